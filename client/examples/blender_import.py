"""Bring a face into Blender, upright, in metres, lit and framed; save it as a .blend and, if asked, render it.

    blender --background --python blender_import.py -- face.glb face.blend [render.png]

Works with .glb, .obj (with the .mtl and .png beside it), .ply and .stl as face3d writes them, in Blender 4.0 and newer.
"""

from __future__ import annotations

import sys
from math import radians
from pathlib import Path
from typing import Any

import bpy  # only there inside Blender, or from `pip install bpy`

# PLY and STL are written in millimetres, GLB and OBJ in metres, which is Blender's unit.
SCALE = {".glb": 1.0, ".obj": 1.0, ".ply": 0.001, ".stl": 0.001}


def load(path: Path) -> Any:
    """Import a face into an empty scene and return its object: y up becomes z up, +z becomes -y (the front view)."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    suffix = path.suffix.lower()
    if suffix == ".glb":
        bpy.ops.import_scene.gltf(filepath=str(path))
    else:
        importer = {".obj": bpy.ops.wm.obj_import, ".ply": bpy.ops.wm.ply_import, ".stl": bpy.ops.wm.stl_import}[suffix]
        importer(filepath=str(path), forward_axis="NEGATIVE_Z", up_axis="Y", global_scale=SCALE[suffix])
    (face,) = (thing for thing in bpy.data.objects if thing.type == "MESH")
    face.name = path.stem
    bpy.context.view_layer.objects.active = face
    face.select_set(True)
    bpy.ops.object.transform_apply(location=False, rotation=True, scale=True)
    bpy.ops.object.shade_smooth()
    return face


def frame(face: Any) -> None:
    """A portrait lens a metre in front of the face, and a soft light from the upper left."""
    scene = bpy.context.scene
    corners = [face.matrix_world @ corner.co for corner in face.data.vertices]
    middle = [(min(c[axis] for c in corners) + max(c[axis] for c in corners)) / 2 for axis in range(3)]
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.lens = 85
    camera.location = (middle[0], middle[1] - 1.0, middle[2])
    camera.rotation_euler = (radians(90), 0, 0)
    light = bpy.data.objects.new("light", bpy.data.lights.new("light", "AREA"))
    light.data.energy, light.data.size = 10, 0.5
    light.location = (middle[0] - 0.5, middle[1] - 0.8, middle[2] + 0.5)
    light.rotation_euler = (radians(60), 0, radians(-30))
    for thing in (camera, light):
        scene.collection.objects.link(thing)
    scene.camera = camera


def main(words: list[str]) -> None:
    """Face, .blend and perhaps a picture."""
    frame(load(Path(words[0])))
    bpy.ops.wm.save_as_mainfile(filepath=str(Path(words[1]).resolve()))
    if len(words) > 2:
        scene = bpy.context.scene
        scene.render.engine = "CYCLES"
        scene.cycles.samples = 16
        scene.render.resolution_x = scene.render.resolution_y = 512
        scene.render.filepath = str(Path(words[2]).resolve())
        bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    main(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:])
