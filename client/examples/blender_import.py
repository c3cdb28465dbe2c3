"""Bring a head into Blender: upright, in metres, with materials for eyes and skin, shape keys, light and camera.

    blender --background --python blender_import.py -- face.glb head.blend [picture.png] [head.fbx] [jawOpen=0.6 ...]

Works with .glb, .obj (with the .mtl and the pictures beside it), .ply, .stl and .usdz as face3d writes them, in Blender
4.2 and newer. A rigged .glb (``--rig arkit``) brings 52 shape keys; words with ``=`` set them. A name that ends in .fbx
exports FBX, with the shape keys, for engines that want it.
"""

from __future__ import annotations

import sys
from math import radians
from pathlib import Path
from typing import Any

import bpy  # only there inside Blender, or from `pip install bpy`
from mathutils import Vector

# PLY and STL are written in millimetres, the others in metres, which is Blender's unit.
SCALE = {".glb": 1.0, ".obj": 1.0, ".ply": 0.001, ".stl": 0.001, ".usdz": 1.0}


def load(path: Path) -> Any:
    """Import a head into an empty scene as one object: y up becomes z up, +z becomes -y (the front view)."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    suffix = path.suffix.lower()
    if suffix == ".glb":
        bpy.ops.import_scene.gltf(filepath=str(path))
    elif suffix == ".usdz":
        bpy.ops.wm.usd_import(filepath=str(path), import_textures_mode="IMPORT_PACK")
    else:
        importer = {".obj": bpy.ops.wm.obj_import, ".ply": bpy.ops.wm.ply_import, ".stl": bpy.ops.wm.stl_import}[suffix]
        importer(filepath=str(path), forward_axis="NEGATIVE_Z", up_axis="Y", global_scale=SCALE[suffix])
    head = _joined([thing for thing in bpy.data.objects if thing.type == "MESH"])
    head.name = path.stem
    bpy.ops.object.shade_smooth()
    return head


def _joined(parts: list[Any]) -> Any:
    """One object of them all, in the axes of the scene; empty parents are dropped."""
    for part in parts:
        placed = part.matrix_world.copy()
        part.parent = None
        part.matrix_world = placed
        part.select_set(True)
    for thing in [thing for thing in bpy.data.objects if thing.type != "MESH"]:
        bpy.data.objects.remove(thing)
    bpy.context.view_layer.objects.active = parts[0]
    if len(parts) > 1:
        bpy.ops.object.join()
    bpy.ops.object.transform_apply(location=True, rotation=True, scale=True)
    return bpy.context.view_layer.objects.active


def dress(head: Any) -> None:
    """Tune the materials: wet eyes, skin that lets light in, lashes that are seen through. Names end in the part's."""
    for slot in head.material_slots:
        material = slot.material
        shader = next((n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED"), None) if material else None
        if shader is None:
            continue
        if "eye_" in material.name:
            shader.inputs["Roughness"].default_value = 0.05
            shader.inputs["Coat Weight"].default_value = 1.0
        elif "skin" in material.name:
            shader.inputs["Roughness"].default_value = 0.5
            shader.inputs["Subsurface Weight"].default_value = 0.15
            shader.inputs["Subsurface Scale"].default_value = 0.005  # metres
        elif "teeth" in material.name or "mouth" in material.name:
            shader.inputs["Roughness"].default_value = 0.2


def shape(head: Any, weights: dict[str, float]) -> None:
    """Set shape keys by their names, 0..1.

    Raises:
        KeyError: the head has no shape of this name; only a rigged .glb has any.
    """
    keys = head.data.shape_keys.key_blocks if head.data.shape_keys else {}
    for name, weight in weights.items():
        keys[name].value = weight


def frame(head: Any) -> None:
    """A portrait lens in front of the head, as far as it takes, and a soft light from the upper left."""
    scene = bpy.context.scene
    corners = [head.matrix_world @ Vector(corner) for corner in head.bound_box]
    middle = [(min(c[axis] for c in corners) + max(c[axis] for c in corners)) / 2 for axis in range(3)]
    side = max(max(c[axis] for c in corners) - min(c[axis] for c in corners) for axis in (0, 2))
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.lens = 85
    camera.location = (middle[0], middle[1] - 2.8 * side - 0.1, middle[2])
    camera.rotation_euler = (radians(90), 0, 0)
    light = bpy.data.objects.new("light", bpy.data.lights.new("light", "AREA"))
    light.data.energy, light.data.size = 20, 0.6
    light.location = (middle[0] - 0.5, middle[1] - 0.8, middle[2] + 0.5)
    light.rotation_euler = (radians(60), 0, radians(-30))
    world = bpy.data.worlds.new("world")
    if world.node_tree is None:  # before Blender 5 a world has nodes only when told to
        world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.5, 0.52, 0.55, 1)
    scene.world = world
    for thing in (camera, light):
        scene.collection.objects.link(thing)
    scene.camera = camera


def render(path: Path, side: int = 512, samples: int = 24) -> None:
    """Render the scene by Cycles into a PNG file."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples = samples
    scene.render.resolution_x = scene.render.resolution_y = side
    scene.view_settings.view_transform = "Standard"
    scene.render.filepath = str(path.resolve())
    bpy.ops.render.render(write_still=True)


def main(words: list[str]) -> None:
    """Head, .blend, and perhaps a picture, an FBX and weights."""
    weights = dict(word.split("=", 1) for word in words if "=" in word)
    source, *targets = (Path(word) for word in words if "=" not in word)
    head = load(source)
    dress(head)
    shape(head, {name: float(value) for name, value in weights.items()})
    frame(head)
    for target in targets:
        if target.suffix == ".blend":
            bpy.ops.wm.save_as_mainfile(filepath=str(target.resolve()))
        elif target.suffix == ".fbx":
            bpy.ops.export_scene.fbx(filepath=str(target.resolve()), path_mode="COPY", embed_textures=True)
        else:
            render(target)


if __name__ == "__main__":
    main(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:])
