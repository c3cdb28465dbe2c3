"""Answers of the service made of known numbers: a curved patch whose texture tells up from down and left from right."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

COLUMNS, ROWS = 9, 11
CAMERA = np.array([2.0, 2.5, 30.0, 40.0, 0.875, 1.09, 30.0, 40.0], np.float32)
FACE = np.array([100, 120, 300, 380, 0.98, 150, 200, 250, 200, 200, 260, 160, 320, 240, 320], np.float32)
TEXTURE_SIZE = 64


def texture() -> Image.Image:
    """RGB 64 x 64: red grows to the right, green grows downward, no blue."""
    ramp = np.arange(TEXTURE_SIZE, dtype=np.uint8) * 4
    pixels = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.uint8)
    pixels[..., 0] = ramp[np.newaxis, :]
    pixels[..., 1] = ramp[:, np.newaxis]
    return Image.fromarray(pixels)


def grid() -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Vertices (N, 3) mm, triangles (F, 3), uv (N, 2): 160 mm wide, 200 mm high, bulging 60 mm toward +z."""
    u, v = np.meshgrid(np.linspace(0, 1, COLUMNS), np.linspace(0, 1, ROWS))
    x, y = 160 * (u - 0.5), 200 * (v - 0.5)
    z = 60 * np.cos(np.pi * (u - 0.5)) * np.cos(np.pi * (v - 0.5))
    numbers = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    a, b, c, d = numbers[:-1, :-1], numbers[:-1, 1:], numbers[1:, 1:], numbers[1:, :-1]
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], -2).reshape(-1, 3)
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    return vertices.astype(np.float32), faces.astype(np.int32), np.stack([u, v], -1).reshape(-1, 2).astype(np.float32)


def glb() -> bytes:
    """The patch as the service would send it: metres, texture inside."""
    vertices, faces, uv = grid()
    visuals: Any = trimesh.visual  # partly untyped
    material = visuals.material.PBRMaterial(baseColorTexture=texture(), metallicFactor=0.0, roughnessFactor=1.0)
    visual = visuals.TextureVisuals(uv=uv, material=material)
    mesh: Any = trimesh.Trimesh(vertices / 1000, faces, visual=visual, process=False)
    data: bytes = mesh.export(file_type="glb", include_normals=True)
    return data


def png() -> bytes:
    """`texture` as a PNG file."""
    buffer = io.BytesIO()
    texture().save(buffer, "PNG")
    return buffer.getvalue()


def reply(warnings: tuple[bytes, ...] = ()) -> dict[str, NDArray[Any]]:
    """Every output of `face3d`, batch dimension 1 in front."""
    vertices, _, _ = grid()
    values: dict[str, NDArray[Any]] = {
        "mesh": np.array([glb()], np.object_),
        "texture": np.array([png()], np.object_),
        "preview": np.array([png()], np.object_),
        "vertices": vertices + np.array([3, -5, 20], np.float32),
        "vertices_neutral": vertices * np.float32(0.9),
        "landmarks": np.stack([np.linspace(120, 280, 68), np.linspace(130, 370, 68)], -1).astype(np.float32),
        "landmarks_3d": vertices[:68],
        "coefficients": np.arange(257, dtype=np.float32),
        "certainty": np.array([0.5, 1.0, 0.25, 0.0], np.float32),
        "visibility": np.full((1, 1024, 1024), 255, np.uint8),
        "face": FACE,
        "camera": CAMERA,
        "warnings": np.array(list(warnings), np.object_),
        "texture_warnings": np.empty(0, np.object_),
        "face_model": np.array([-42], np.int64),
    }
    return {name: value[np.newaxis] for name, value in values.items()}
