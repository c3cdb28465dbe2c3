"""`postprocess`: the mesh file, read back byte by byte and by trimesh."""

from __future__ import annotations

import io
import json
import struct
from itertools import product
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from PIL import Image

from tests.model_repository import dome, heads
from tests.model_repository.version_folder import load

arkit, figure, files, finish, glb, irises, options, surface = (
    load("postprocess", name) for name in ("arkit", "figure", "files", "finish", "glb", "irises", "options", "surface")
)
KINDS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
MATERIALS = ["skin", "eye_left", "eye_right", "teeth", "mouth", "lashes"]


def texture(kind: str = "png") -> bytes:
    """Red at the top (v = 1), blue at the bottom."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32], image[32:] = (255, 0, 0), (0, 0, 255)
    return bytes(finish.encode(image, kind))


def written(vertices: NDArray[np.float32] | None = None, kind: str = "png") -> bytes:
    vertices = dome.vertices() if vertices is None else vertices
    face = surface.Surface.from_arrays(dome.arrays())
    drawn = figure.Figure(face, "head", vertices, np.eye(3), None, irises.Irises(), None)
    data = drawn.write([("skin", texture(kind), finish.MIME[kind])], {"pose": "canonical"})
    assert isinstance(data, bytes)
    return data


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, total, size, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, total, kind) == (b"glTF", 2, len(data), b"JSON")
    binary_size, binary_kind = struct.unpack_from("<I4s", data, 20 + size)
    assert binary_kind == b"BIN\0"
    assert 28 + size + binary_size == len(data)
    return json.loads(data[20 : 20 + size]), data[28 + size :]


class Gltf:
    """A file as the specification reads it, normalised integers as numbers."""

    def __init__(self, data: bytes) -> None:
        self.document, self.binary = parts(data)
        (self.mesh,) = self.document["meshes"]

    def rows(self, view: int, kind: int, width: int, count: int, offset: int = 0) -> NDArray[Any]:
        entry = self.document["bufferViews"][view]
        item = np.dtype(KINDS[kind]).itemsize
        stride = entry.get("byteStride", item * width)
        assert offset + (count - 1) * stride + item * width <= entry["byteLength"]
        raw: NDArray[Any] = np.ndarray(
            (count, width), KINDS[kind], self.binary, entry["byteOffset"] + offset, (stride, item)
        )
        return raw.copy()

    def values(self, index: int) -> NDArray[np.float64]:
        accessor = self.document["accessors"][index]
        width, kind, count = WIDTHS[accessor["type"]], accessor["componentType"], accessor["count"]
        if "bufferView" in accessor:
            values = self.rows(accessor["bufferView"], kind, width, count)
        else:
            values = np.zeros((count, width), KINDS[kind])
        if sparse := accessor.get("sparse"):
            where, what = sparse["indices"], sparse["values"]
            at = self.rows(where["bufferView"], where["componentType"], 1, sparse["count"], where["byteOffset"])[:, 0]
            assert (np.diff(at.astype(int)) > 0).all()
            values[at] = self.rows(what["bufferView"], kind, width, sparse["count"], what["byteOffset"])
        if "min" in accessor:
            assert values.min(axis=0).tolist() == accessor["min"]
            assert values.max(axis=0).tolist() == accessor["max"]
        numbers = values.astype(np.float64)
        return numbers / np.iinfo(KINDS[kind]).max if accessor.get("normalized") else numbers

    def primitives(self) -> dict[str, dict[str, Any]]:
        named = {self.document["materials"][p["material"]]["name"]: p for p in self.mesh["primitives"]}
        assert len(named) == len(self.mesh["primitives"])
        return named

    def attribute(self, material: str, name: str) -> NDArray[np.float64]:
        return self.values(self.primitives()[material]["attributes"][name])

    def triangles(self, material: str) -> NDArray[np.int64]:
        return self.values(self.primitives()[material]["indices"]).astype(np.int64).reshape(-1, 3)

    def target(self, material: str, name: str) -> NDArray[np.float64]:
        at = self.mesh["extras"]["targetNames"].index(name)
        return self.values(self.primitives()[material]["targets"][at]["POSITION"])


def head_file(face: NDArray[np.float32] | None = None, yaw: float = 0.0, **chosen: Any) -> tuple[Gltf, Any]:
    face = heads.expression_of() if face is None else face
    made = files.Files(heads.surface_of_head(), heads.tensors(face, yaw), options.Options(**chosen))
    return Gltf(made.mesh), made


SMILE = heads.expression_of(
    mouthSmile_L=0.7, mouthSmile_R=0.6, browInnerUp_L=0.5, browInnerUp_R=0.1, cheekRaiser_L=0.4, jawOpen=0.3,
    eyeBlink_L=1.3, noseSneer_R=-0.2,
)  # fmt: skip


# --- any face model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_the_mesh_reads_back_as_one_textured_face_in_metres(kind: str) -> None:
    scene = trimesh.load_scene(io.BytesIO(written(kind=kind)), file_type="glb")
    (mesh,) = scene.geometry.values()
    np.testing.assert_allclose(mesh.vertices, dome.vertices() * 0.1, atol=1e-7)
    np.testing.assert_array_equal(mesh.faces, dome.triangles())
    np.testing.assert_allclose(mesh.visual.uv, dome.uv(), atol=1e-5)
    assert mesh.visual.material.metallicFactor == 0
    np.testing.assert_allclose(mesh.visual.material.baseColorTexture.size, (64, 64))
    assert mesh.vertex_normals[len(mesh.vertices) // 2, 2] > 0.9


def test_the_first_row_of_the_texture_is_the_top_of_the_face() -> None:
    scene = trimesh.load_scene(io.BytesIO(written()), file_type="glb")
    (mesh,) = scene.geometry.values()
    colours = mesh.visual.to_color().vertex_colors
    assert tuple(colours[mesh.vertices[:, 1].argmax()][:3]) == (255, 0, 0)
    assert tuple(colours[mesh.vertices[:, 1].argmin()][:3]) == (0, 0, 255)


@pytest.mark.parametrize("rig", ["none", "arkit"])
def test_the_file_keeps_gltf_s_rules_of_alignment_and_bounds(rig: str) -> None:
    read, _ = head_file(SMILE, rig=rig)
    document, binary = read.document, read.binary
    assert len(binary) % 4 == 0
    assert document["asset"]["version"] == "2.0"
    assert 0 <= len(binary) - document["buffers"][0]["byteLength"] < 4
    end = 0
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] >= end
        end = view["byteOffset"] + view["byteLength"]
    assert end == document["buffers"][0]["byteLength"]
    for index in range(len(document["accessors"])):
        read.values(index)
    for material in read.primitives():
        lengths = np.linalg.norm(read.attribute(material, "NORMAL"), axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-4)


def test_the_texture_is_embedded_as_the_very_bytes_that_were_given() -> None:
    document, binary = parts(written(kind="jpeg"))
    image = document["images"][0]
    view = document["bufferViews"][image["bufferView"]]
    stored = binary[view["byteOffset"] :][: view["byteLength"]]
    assert stored == texture("jpeg")
    assert image["mimeType"] == "image/jpeg"
    assert Image.open(io.BytesIO(stored)).format == "JPEG"


def test_the_file_says_what_it_shows_and_whose_shape_it_is() -> None:
    document, _ = parts(written())
    assert document["meshes"][0]["name"] == document["nodes"][0]["name"] == "face"
    assert document["meshes"][0]["extras"] == {"pose": "canonical"}
    assert document["asset"]["copyright"] == "nobody"
    read, _ = head_file(pose="camera", expression="neutral")
    assert read.mesh["name"] == read.document["nodes"][0]["name"] == "head"
    assert set(read.document["nodes"][0]) == {"name", "mesh"}
    assert read.mesh["extras"] == {
        "mesh": "head", "rig": "none", "expression": "neutral", "pose": "camera", "likeness": 1.0,
        "units": "metre", "face_model": heads.MODEL.name, "fingerprint": str(heads.MODEL.fingerprint),
    }  # fmt: skip
    assert "MIT" in read.document["asset"]["copyright"]


def test_indices_take_two_bytes_and_four_for_large_models() -> None:
    document, _ = parts(written())
    assert document["accessors"][3]["componentType"] == 5123
    many = 70_000
    vertices = np.random.default_rng(0).normal(size=(many, 3)).astype(np.float32)
    large = glb.Part(
        0, vertices, vertices, np.zeros((many, 2), np.float32), np.array([[0, 1, many - 1]], np.int32), 0,
        targets=glb.Targets.of(np.ones((1, many, 3), np.float32), many),
    )  # fmt: skip
    read = Gltf(glb.write_glb("face", [large], [{"name": "skin"}], [], {}, [0.0]))
    assert read.document["accessors"][3]["componentType"] == 5125
    assert read.triangles("skin").tolist() == [[0, 1, many - 1]]


def test_numbers_that_are_not_finite_never_get_into_a_file() -> None:
    vertices = dome.vertices()
    vertices[3, 1] = np.nan
    with pytest.raises(ValueError, match="JSON"), np.errstate(invalid="ignore"):
        written(vertices)


# --- a head ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mesh", ["head", "face"])
def test_a_head_has_a_primitive_for_each_material_with_places_of_its_own(mesh: str) -> None:
    read, _ = head_file(mesh=mesh)
    assert [read.document["materials"][p["material"]]["name"] for p in read.mesh["primitives"]] == MATERIALS
    for material in MATERIALS:
        count = len(read.attribute(material, "POSITION"))
        np.testing.assert_array_equal(np.unique(read.triangles(material)), np.arange(count))
        assert len(read.attribute(material, "NORMAL")) == len(read.attribute(material, "TEXCOORD_0")) == count
    accessors = [index for p in read.mesh["primitives"] for index in p["attributes"].values()]
    assert len(set(accessors)) == len(accessors)


def test_the_first_triangles_are_quads_split_along_their_shorter_diagonal() -> None:
    read, _ = head_file()
    for material, primitive in read.primitives().items():
        quads, triangles = primitive["extras"]["quads"], read.triangles(material)
        first, second = triangles[: 2 * quads : 2], triangles[1 : 2 * quads : 2]
        np.testing.assert_array_equal(first[:, [0, 2]], second[:, [0, 1]])
        places = read.attribute(material, "POSITION")
        split = np.linalg.norm(places[first[:, 0]] - places[first[:, 2]], axis=1)
        other = np.linalg.norm(places[first[:, 1]] - places[second[:, 2]], axis=1)
        assert (split <= 1.001 * other).mean() > 0.99
    assert read.primitives()["skin"]["extras"]["quads"] == sum(
        len(heads.MODEL.faces_of(part)) for part in heads.MODEL.skin
    )


def test_places_of_one_vertex_lie_at_the_same_position_to_the_bit() -> None:
    read, _ = head_file(SMILE, rig="arkit")
    skin = heads.surface_of_head().primitives("head")[0].vertex
    order = np.argsort(skin, kind="stable")
    same = np.diff(skin[order]) == 0
    assert same.sum() > 40
    for values in (read.attribute("skin", "POSITION"), read.target("skin", "jawOpen")):
        np.testing.assert_array_equal(values[order][1:][same], values[order][:-1][same])


@pytest.mark.parametrize(("mesh", "pose"), list(product(("head", "face"), ("canonical", "camera"))))
def test_targets_at_their_weights_lead_to_the_photographs_shape(mesh: str, pose: str) -> None:
    rigged, _ = head_file(SMILE, yaw=25.0, mesh=mesh, pose=pose, rig="arkit")
    plain, _ = head_file(SMILE, yaw=25.0, mesh=mesh, pose=pose)
    weights = rigged.mesh["weights"]
    assert rigged.mesh["extras"]["targetNames"] == list(arkit.NAMES)
    assert len(weights) == 52
    assert min(weights) >= 0
    assert max(weights) == 1
    for material in MATERIALS:
        shape = rigged.attribute(material, "POSITION")
        for name, weight in zip(arkit.NAMES, weights, strict=True):
            if weight:
                shape = shape + weight * rigged.target(material, name)
        np.testing.assert_allclose(shape, plain.attribute(material, "POSITION"), atol=2e-6)  # metres


def test_targets_are_those_of_the_face_model_within_a_twentieth_of_a_millimetre() -> None:
    read, _ = head_file(rig="arkit")
    surface_of = heads.surface_of_head()
    shapes = arkit.shapes(surface_of.head)
    for k, name in enumerate(arkit.NAMES):
        for primitive in surface_of.primitives("head"):
            stored = read.target(primitive.material, name)
            assert np.abs(stored - shapes[k][primitive.vertex] * 0.1).max() < 0.05e-3


def test_without_an_expression_all_weights_are_0_and_the_shape_is_neutral() -> None:
    rigged, _ = head_file(SMILE, rig="arkit", expression="neutral")
    assert rigged.mesh["weights"] == [0.0] * 52
    plain, _ = head_file(SMILE, expression="neutral")
    np.testing.assert_array_equal(rigged.attribute("skin", "POSITION"), plain.attribute("skin", "POSITION"))


def test_the_files_stay_small() -> None:
    textured = 250_000  # what textures of photographs take as JPEG files is half of that
    for rig, most in (("none", 1_500_000), ("arkit", 4_000_000)):
        read, _ = head_file(SMILE, rig=rig)
        assert len(read.binary) + len(json.dumps(read.document)) + textured < most


def test_it_is_darker_behind_lips_and_beside_lids() -> None:
    read, _ = head_file(heads.expression_of(jawOpen=0.5))
    for material in ("teeth", "mouth"):
        places, light = read.attribute(material, "POSITION"), read.attribute(material, "COLOR_0")[:, 0]
        front, back = places[:, 2] > np.quantile(places[:, 2], 0.95), places[:, 2] < np.quantile(places[:, 2], 0.1)
        assert light[front].mean() > 2 * light[back].mean()
    eye = read.attribute("eye_left", "COLOR_0")[:, 0]
    iris = np.linalg.norm(read.attribute("eye_left", "TEXCOORD_0") - 0.5, axis=1) < 0.05
    assert eye[iris].min() > 0.8
    assert eye.min() < 0.5
    assert "COLOR_0" not in read.primitives()["skin"]["attributes"]
