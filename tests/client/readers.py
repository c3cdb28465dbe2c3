"""`python readers.py READER FILE`: what a library of others reads from a file, as JSON on the last line.

Runs by itself, in the Python that has the library, and knows nothing of the client: `low`, `high` (bounding box in the
file's unit), `triangles`, `pictures` (textures that were found), `places` (whether there are texture coordinates).
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy


def trimesh(path: str) -> dict[str, Any]:
    library = import_module("trimesh")

    scene = library.load(path, force="scene")
    low, high = scene.bounds.tolist()
    meshes = list(scene.geometry.values())
    places = [getattr(mesh.visual, "uv", None) is not None for mesh in meshes]
    return {"low": low, "high": high, "triangles": sum(len(mesh.faces) for mesh in meshes), "places": any(places)}


def open3d(path: str) -> dict[str, Any]:
    library = import_module("open3d")

    model = library.io.read_triangle_model(path)
    # Its importer of models reads no PLY, the one of meshes does.
    meshes = [part.mesh for part in model.meshes] or [library.io.read_triangle_mesh(path)]
    points = numpy.concatenate([numpy.asarray(mesh.vertices) for mesh in meshes])
    return {
        "low": points.min(0).tolist(),
        "high": points.max(0).tolist(),
        "triangles": sum(len(mesh.triangles) for mesh in meshes),
        "places": any(mesh.has_triangle_uvs() for mesh in meshes),
        "pictures": sum(material.albedo_img is not None for material in model.materials),
    }


def meshlab(path: str) -> dict[str, Any]:
    library = import_module("pymeshlab")

    meshes = library.MeshSet()
    meshes.load_new_mesh(path)
    if meshes.mesh_number() > 1:
        meshes.generate_by_merging_visible_meshes()
    mesh = meshes.current_mesh()
    box = mesh.bounding_box()
    return {
        "low": box.min().tolist(),
        "high": box.max().tolist(),
        "triangles": mesh.face_number(),
        "places": mesh.has_wedge_tex_coord() or mesh.has_vertex_tex_coord(),
        "pictures": mesh.texture_number(),
    }


def assimp(path: str) -> dict[str, Any]:
    library = import_module("assimp_py")

    scene = library.import_file(path, library.Process_Triangulate | library.Process_PreTransformVertices)
    points = numpy.concatenate([numpy.asarray(mesh.vertices, float).reshape(-1, 3) for mesh in scene.meshes])
    return {
        "low": points.min(0).tolist(),
        "high": points.max(0).tolist(),
        "triangles": sum(len(numpy.asarray(mesh.indices).ravel()) // 3 for mesh in scene.meshes),
        "places": any(bool(mesh.texcoords) for mesh in scene.meshes),
    }


def tinyobj(path: str) -> dict[str, Any]:
    library = import_module("tinyobjloader")

    reader = library.ObjReader()
    if not reader.ParseFromFile(path, library.ObjReaderConfig()):
        raise SystemExit(reader.Error())
    points = numpy.array(reader.GetAttrib().vertices).reshape(-1, 3)
    shapes = [shape.mesh for shape in reader.GetShapes()]
    materials = reader.GetMaterials()
    used = {index for mesh in shapes for index in mesh.material_ids}
    assert used == set(range(len(materials))), used
    pictures = [Path(path).parent / material.diffuse_texname for material in materials if material.diffuse_texname]
    assert all(picture.is_file() for picture in pictures), pictures
    return {
        "low": points.min(0).tolist(),
        "high": points.max(0).tolist(),
        "triangles": sum(len(mesh.num_face_vertices) for mesh in shapes),
        "places": len(reader.GetAttrib().texcoords) > 0,
        "pictures": len(pictures),
    }


def usd(path: str) -> dict[str, Any]:
    usd_, geometry, shade = (import_module(f"pxr.{name}") for name in ("Usd", "UsdGeom", "UsdShade"))

    stage = usd_.Stage.Open(path)
    bounds = geometry.BBoxCache(usd_.TimeCode.Default(), [geometry.Tokens.default_])
    box = bounds.ComputeWorldBound(stage.GetPseudoRoot()).ComputeAlignedRange()
    meshes = [geometry.Mesh(prim) for prim in stage.Traverse() if prim.IsA(geometry.Mesh)]
    counts = [mesh.GetFaceVertexCountsAttr().Get() for mesh in meshes]
    shaders = [shade.Shader(prim) for prim in stage.Traverse() if prim.IsA(shade.Shader)]
    pictures = {str(shader.GetInput("file").Get()) for shader in shaders if shader.GetInput("file")}
    return {
        "low": list(box.GetMin()),
        "high": list(box.GetMax()),
        "triangles": sum(count - 2 for part in counts for count in part),
        "places": all(geometry.PrimvarsAPI(mesh).HasPrimvar("st") for mesh in meshes),
        "pictures": len(pictures),
        "unit": geometry.GetStageMetersPerUnit(stage),
    }


READERS = {
    "trimesh": ("trimesh", trimesh),
    "open3d": ("open3d", open3d),
    "meshlab": ("pymeshlab", meshlab),
    "assimp": ("assimp_py", assimp),
    "tinyobj": ("tinyobjloader", tinyobj),
    "usd": ("pxr", usd),
}
"""Name -> module that it needs, and function."""

if __name__ == "__main__":
    print("\n" + json.dumps(READERS[sys.argv[1]][1](sys.argv[2])))
