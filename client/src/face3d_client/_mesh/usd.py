"""USDZ, for AR Quick Look and other programs of the USD family, by usd-core.

usd-core is an extra (``pip install face3d-client[usd]``) and carries no types, so it is imported by name.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from face3d_client._mesh.part import Part
from face3d_client._mesh.surface import Surface

__all__ = ["usdz_bytes"]


def usdz_bytes(surface: Surface, name: str, scale: float = 0.001) -> bytes:
    """Encode a USDZ: y up, textures inside, one UsdPreviewSurface a part; quads stay quads.

    Args:
        surface: the mesh.
        name: of the root prim.
        scale: stage units per millimetre; ``metersPerUnit`` follows.

    Raises:
        ModuleNotFoundError: usd-core is not installed.
    """
    try:
        usd, geometry = (importlib.import_module(f"pxr.{module}") for module in ("Usd", "UsdGeom"))
        transfer: Any = importlib.import_module("pxr.Tf")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("USDZ needs usd-core: pip install 'face3d-client[usd]'.") from error
    with tempfile.TemporaryDirectory() as folder:
        layer = Path(folder) / "head.usdc"
        stage: Any = usd.Stage.CreateNew(str(layer))
        geometry.SetStageUpAxis(stage, geometry.Tokens.y)
        geometry.SetStageMetersPerUnit(stage, 0.001 / scale)
        root = geometry.Xform.Define(stage, "/" + transfer.MakeValidIdentifier(name))
        stage.SetDefaultPrim(root.GetPrim())
        usd.ModelAPI(root.GetPrim()).SetKind("component")
        geometry.Scope.Define(stage, f"{root.GetPath()}/Materials")
        for part in surface.parts:
            _define_part(stage, str(root.GetPath()), part, scale, Path(folder))
        stage.GetRootLayer().Save()
        package = Path(folder) / "head.usdz"
        # Lays files uncompressed at multiples of 64 bytes, the layer first, as the format asks.
        writer = importlib.import_module("pxr.Sdf").ZipFileWriter.CreateNew(str(package))
        for path in (layer, *sorted(Path(folder).glob("*.[jp][pn]g"))):
            writer.AddFile(str(path), path.name)
        if not writer.Save():
            raise OSError("usd-core could not write the USDZ file.")
        return package.read_bytes()


def _define_part(stage: Any, root: str, part: Part, scale: float, folder: Path) -> None:
    geometry: Any = importlib.import_module("pxr.UsdGeom")
    shading: Any = importlib.import_module("pxr.UsdShade")
    types: Any = importlib.import_module("pxr.Sdf").ValueTypeNames
    arrays: Any = importlib.import_module("pxr.Vt")
    identifier = importlib.import_module("pxr.Tf").MakeValidIdentifier(part.material.name)
    mesh = geometry.Mesh.Define(stage, f"{root}/{identifier}")
    points = arrays.Vec3fArray.FromNumpy(np.ascontiguousarray(part.vertices * np.float32(scale)))
    mesh.CreatePointsAttr(points)
    mesh.CreateExtentAttr(geometry.PointBased.ComputeExtent(points))
    counts = np.repeat([4, 3], [len(part.quad_faces), len(part.triangle_faces)]).astype(np.int32)
    corners = np.concatenate([part.quad_faces.ravel(), part.triangle_faces.ravel()]).astype(np.int32)
    mesh.CreateFaceVertexCountsAttr(arrays.IntArray.FromNumpy(counts))
    mesh.CreateFaceVertexIndicesAttr(arrays.IntArray.FromNumpy(corners))
    mesh.CreateSubdivisionSchemeAttr("none")  # normals are given, and viewers shall not refine the surface
    mesh.CreateNormalsAttr(arrays.Vec3fArray.FromNumpy(np.ascontiguousarray(part.normals)))
    mesh.SetNormalsInterpolation(geometry.Tokens.vertex)
    mesh.CreateDoubleSidedAttr(part.material.double_sided)
    places = geometry.PrimvarsAPI(mesh).CreatePrimvar("st", types.TexCoord2fArray, geometry.Tokens.vertex)
    places.Set(arrays.Vec2fArray.FromNumpy(np.ascontiguousarray(part.uv)))
    shading.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(_define_material(stage, root, identifier, part, folder))


def _define_material(stage: Any, root: str, identifier: str, part: Part, folder: Path) -> Any:
    """Define a UsdPreviewSurface whose colour is the part's picture."""
    shading: Any = importlib.import_module("pxr.UsdShade")
    types: Any = importlib.import_module("pxr.Sdf").ValueTypeNames
    image = part.material.image
    if image is None or part.material.blended:
        texture = folder / f"{identifier}.png"
        part.tile().save(texture)
    else:
        texture = folder / f"{identifier}{'.png' if image.startswith(bytes([0x89])) else '.jpg'}"
        texture.write_bytes(image)
    material = shading.Material.Define(stage, f"{root}/Materials/{identifier}")

    def shader(name: str, kind: str) -> Any:
        made = shading.Shader.Define(stage, f"{material.GetPath()}/{name}")
        made.CreateIdAttr(kind)
        return made

    surface, picture = shader("surface", "UsdPreviewSurface"), shader("picture", "UsdUVTexture")
    reader = shader("st", "UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")
    picture.CreateInput("file", types.Asset).Set(texture.name)
    picture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    for side in ("wrapS", "wrapT"):
        picture.CreateInput(side, types.Token).Set("clamp")
    picture.CreateInput("st", types.Float2).ConnectToSource(reader.CreateOutput("result", types.Float2))
    surface.CreateInput("diffuseColor", types.Color3f).ConnectToSource(picture.CreateOutput("rgb", types.Float3))
    if part.material.blended:
        surface.CreateInput("opacity", types.Float).ConnectToSource(picture.CreateOutput("a", types.Float))
    surface.CreateInput("roughness", types.Float).Set(part.material.roughness)
    surface.CreateInput("metallic", types.Float).Set(0.0)
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", types.Token))
    return material
