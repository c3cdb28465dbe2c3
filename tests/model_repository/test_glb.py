"""`postprocess`: the mesh file, read back byte by byte and by trimesh."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from PIL import Image

from tests.model_repository import dome
from tests.model_repository.version_folder import load

glb = load("postprocess", "glb")
surface = load("postprocess", "surface")
finish = load("postprocess", "finish")


def texture(kind: str = "png") -> bytes:
    """Red at the top (v = 1), blue at the bottom."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32], image[32:] = (255, 0, 0), (0, 0, 255)
    return bytes(finish.encode(image, kind))


def written(vertices: NDArray[np.float32] | None = None, kind: str = "png") -> bytes:
    vertices = dome.vertices() if vertices is None else vertices
    face = surface.Surface(dome.triangles(), dome.uv(), dome.FINGERPRINT, "dome")
    extras = {"pose": "head", "fingerprint": str(dome.FINGERPRINT)}
    data = glb.write_glb(
        vertices, face.normals(vertices), face.uv, face.triangles, texture(kind), finish.MIME[kind], extras
    )
    assert isinstance(data, bytes)
    return data


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, total, size, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, total, kind) == (b"glTF", 2, len(data), b"JSON")
    binary_size, binary_kind = struct.unpack_from("<I4s", data, 20 + size)
    assert binary_kind == b"BIN\0"
    assert 28 + size + binary_size == len(data)
    return json.loads(data[20 : 20 + size]), data[28 + size :]


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_the_mesh_reads_back_as_one_textured_face_in_metres(kind: str) -> None:
    scene = trimesh.load_scene(io.BytesIO(written(kind=kind)), file_type="glb")
    (mesh,) = scene.geometry.values()
    np.testing.assert_allclose(mesh.vertices, dome.vertices() * 0.1, atol=1e-7)
    np.testing.assert_array_equal(mesh.faces, dome.triangles())
    np.testing.assert_allclose(mesh.visual.uv, dome.uv(), atol=1e-6)
    assert mesh.visual.material.metallicFactor == 0
    np.testing.assert_allclose(mesh.visual.material.baseColorTexture.size, (64, 64))
    np.testing.assert_allclose(mesh.vertex_normals, mesh.vertex_normals / 1.0)
    assert mesh.vertex_normals[len(mesh.vertices) // 2, 2] > 0.9


def test_the_first_row_of_the_texture_is_the_top_of_the_face() -> None:
    scene = trimesh.load_scene(io.BytesIO(written()), file_type="glb")
    (mesh,) = scene.geometry.values()
    colours = mesh.visual.to_color().vertex_colors
    assert tuple(colours[mesh.vertices[:, 1].argmax()][:3]) == (255, 0, 0)
    assert tuple(colours[mesh.vertices[:, 1].argmin()][:3]) == (0, 0, 255)


def test_the_file_keeps_gltf_s_rules_of_alignment_and_bounds() -> None:
    document, binary = parts(written())
    assert len(binary) % 4 == 0
    assert document["asset"]["version"] == "2.0"
    assert 0 <= len(binary) - document["buffers"][0]["byteLength"] < 4
    end = 0
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] >= end
        end = view["byteOffset"] + view["byteLength"]
    assert end == document["buffers"][0]["byteLength"]
    position = document["accessors"][0]
    values = np.frombuffer(binary, "<f4", position["count"] * 3).reshape(-1, 3)
    np.testing.assert_array_equal(values.min(axis=0), np.array(position["min"], np.float32))
    np.testing.assert_array_equal(values.max(axis=0), np.array(position["max"], np.float32))
    normals = document["bufferViews"][1]
    lengths = np.linalg.norm(
        np.frombuffer(binary, "<f4", position["count"] * 3, normals["byteOffset"]).reshape(-1, 3), axis=1
    )
    np.testing.assert_allclose(lengths, 1, atol=5e-4)


def test_the_texture_is_embedded_as_the_very_bytes_that_were_given() -> None:
    document, binary = parts(written(kind="jpeg"))
    image = document["images"][0]
    view = document["bufferViews"][image["bufferView"]]
    stored = binary[view["byteOffset"] :][: view["byteLength"]]
    assert stored == texture("jpeg")
    assert image["mimeType"] == "image/jpeg"
    assert Image.open(io.BytesIO(stored)).format == "JPEG"


def test_the_file_says_which_face_model_and_pose_it_shows() -> None:
    document, _ = parts(written())
    assert document["meshes"][0]["name"] == document["nodes"][0]["name"] == "face"
    assert document["meshes"][0]["extras"] == {"pose": "head", "fingerprint": str(dome.FINGERPRINT)}


def test_indices_take_two_bytes_and_four_for_large_models() -> None:
    document, _ = parts(written())
    assert document["accessors"][3]["componentType"] == 5123
    many = 70_000
    vertices = np.random.default_rng(0).normal(size=(many, 3)).astype(np.float32)
    data = glb.write_glb(
        vertices,
        vertices / np.linalg.norm(vertices, axis=1, keepdims=True),
        np.zeros((many, 2), np.float32),
        np.array([[0, 1, many - 1]], np.int32),
        texture(),
        "image/png",
        {},
    )
    document, binary = parts(data)
    view = document["bufferViews"][3]
    assert document["accessors"][3]["componentType"] == 5125
    assert np.frombuffer(binary, "<u4", 3, view["byteOffset"]).tolist() == [0, 1, many - 1]


def test_numbers_that_are_not_finite_never_get_into_a_file() -> None:
    vertices = dome.vertices()
    vertices[3, 1] = np.nan
    with pytest.raises(ValueError, match="JSON"):
        written(vertices)
