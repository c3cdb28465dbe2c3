"""A whole head in every format: quads, parts, textures, morph targets, a closed body; and lies about them."""

from __future__ import annotations

import importlib.util
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from face3d_client import BadResponse, NotRequested, Reconstruction
from face3d_client._mesh.expressions import Expressions
from face3d_client._mesh.glb import surface_from_glb
from PIL import Image
from scipy.spatial import cKDTree

from tests.client import head_file
from tests.client.test_viewer import verdicts

PARTS = ["skin", "eye_left", "eye_right", "teeth", "mouth", "lashes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("topology")


@pytest.fixture(scope="module")
def rigged(folder: Path) -> Reconstruction:
    return head_file.result(folder, rig="arkit")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Reconstruction:
    return head_file.result(folder)


def vertex_of(result: Reconstruction, landmark: int) -> int:
    """The place nearest to one of the 68 landmarks, which are vertices of the face model."""
    point = result.vertices_neutral[head_file.model().landmarks[landmark]]
    places = result._surface_in("neutral").vertices
    return int(np.argmin(np.linalg.norm(places - point, axis=1)))


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_head_has_parts_and_more_places_than_vertices(plain: Reconstruction) -> None:
    assert list(plain.parts) == PARTS
    assert len(plain.vertices) == 24359
    assert plain.faces.max() + 1 == len(plain.uv) == len(plain.mesh.vertices) == 25790
    assert sorted(np.concatenate(list(plain.parts.values())).tolist()) == list(range(len(plain.faces)))
    skin = plain._surface.parts[0]
    assert len(skin.first) == len(head_file.model().vertices_of(*head_file.model().skin))
    # A seam is no edge of the shape: its places share their normal.
    assert skin.normals == pytest.approx(skin.normals[skin.first[skin.vertex]], abs=1e-4)


def test_quads_are_those_of_the_face_model(plain: Reconstruction) -> None:
    head = head_file.model()
    assert sum(part.quads for part in plain._surface.parts) == int((head.faces[:, 3] >= 0).sum())
    for part in plain._surface.parts:
        a, b, c, d = (part.normals[part.quad_faces[:, corner]] for corner in range(4))
        assert (np.einsum("nk,nk->n", a, c) > -0.95).mean() > 0.99
        assert len(np.unique(part.quad_faces, axis=0)) == part.quads
        assert all(len(set(quad)) == 4 for quad in part.quad_faces[::97].tolist())
        assert b.shape == d.shape


def test_a_rig_has_apples_names_and_the_photographed_weights(rigged: Reconstruction, plain: Reconstruction) -> None:
    weights = rigged.blendshapes
    assert len(weights) == 52
    assert {"jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp", "cheekPuff", "tongueOut"} <= set(weights)
    assert {name: weight for name, weight in weights.items() if weight} == pytest.approx(
        {"jawOpen": 0.3, "mouthSmileLeft": 0.6, "mouthSmileRight": 0.6}
    )
    assert (rigged.rigged, plain.rigged) == (True, False)
    with pytest.raises(NotRequested, match="rig='arkit'"):
        _ = plain.blendshapes
    # With its weights, a rigged head is the head that has its expression in its shape.
    assert rigged.mesh.vertices == pytest.approx(plain.mesh.vertices, abs=0.05)


def test_morph_targets_are_those_of_the_face_model(rigged: Reconstruction) -> None:
    model = Expressions.load(head_file.MODEL)
    assert model.face_model == rigged.face_model
    skin = rigged._surface.parts[0]
    base = rigged.vertices_neutral
    distance, row = cKDTree(base).query(skin.vertices)
    known = distance < 0.02  # mm; postprocess closes the lips
    assert known.mean() > 0.9
    for shape in ("jawOpen", "mouthSmileLeft", "browInnerUp"):
        moved = model.move(base, named=dict.fromkeys(model.modes_of(shape), 1.0)) - base
        number = list(rigged.blendshapes).index(shape)
        assert skin.shapes is not None
        assert skin.shapes[number][known] == pytest.approx(moved[row[known]], abs=0.05)


@pytest.mark.parametrize(("shape", "side"), [("eyeBlinkLeft", 1), ("mouthSmileRight", -1), ("browDownLeft", 1)])
def test_left_is_the_left_of_the_person(rigged: Reconstruction, shape: str, side: int) -> None:
    moved = rigged._surface_in("canonical", {shape: 1.0}).vertices - rigged._surface_in("canonical", {}).vertices
    length = np.linalg.norm(moved, axis=1)
    assert length.max() > 1
    assert np.average(np.sign(rigged._surface.vertices[:, 0]) * side, weights=length) > 0.7


def test_the_camera_sees_a_head_where_its_vertices_are(folder: Path, plain: Reconstruction) -> None:
    photographed = head_file.result(folder, pose="camera")
    skin = photographed._surface.parts[0].first
    expected = photographed._surface.parts[0].vertices[skin]
    assert plain._surface_in("camera").parts[0].vertices[skin] == pytest.approx(expected, abs=1e-3)
    assert photographed._surface_in("canonical").vertices == pytest.approx(plain._surface.vertices, abs=1e-3)
    points = {point.tobytes() for point in np.round(plain.vertices, 1)}
    assert np.mean([point.tobytes() in points for point in np.round(expected, 1)]) > 0.9


def test_an_expression_in_the_shape_cannot_be_taken_out(folder: Path, plain: Reconstruction, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ask for expression='neutral' or a rig"):
        plain.save(tmp_path / "head.glb", pose="neutral")
    with pytest.raises(ValueError, match="no blendshape smile"):
        plain.save(tmp_path / "head.glb", blendshapes={"smile": 1})
    neutral = head_file.result(folder, expression="neutral")
    assert neutral.neutral_mesh.vertices == pytest.approx(neutral.mesh.vertices)
    assert not list(tmp_path.iterdir())


def test_what_is_moved_keeps_unit_normals_that_follow(rigged: Reconstruction) -> None:
    opened = rigged._surface_in("canonical", {"jawOpen": 1.0})
    assert np.linalg.norm(opened.normals, axis=1) == pytest.approx(1, abs=1e-4)
    assert np.abs(opened.normals - rigged._surface.normals).max() > 0.2
    chin, brow = vertex_of(rigged, 8), vertex_of(rigged, 19)
    moved = opened.vertices - rigged._surface.vertices
    assert moved[chin, 1] < -5
    assert np.abs(moved[brow]).max() < 1


# --- writing ----------------------------------------------------------------------------------------------------------


def test_glbs_of_another_pose_unit_or_expression_are_the_servers_but_for_that(
    rigged: Reconstruction, tmp_path: Path
) -> None:
    ways: dict[str, dict[str, Any]] = {
        "camera": {"pose": "camera"}, "mm": {"units": "mm"}, "neutral": {"pose": "neutral"},
        "smile": {"blendshapes": {"mouthSmileLeft": 1.0}},
    }  # fmt: skip
    files = [rigged.save(tmp_path / f"{name}.glb", **way)[0] for name, way in ways.items()]
    before, binary = head_file.unpacked(rigged.glb)
    for path in files:
        tree, content = head_file.unpacked(path.read_bytes())
        assert content == binary
        assert tree["materials"] == before["materials"]
        assert len(tree["meshes"][0]["extras"]["targetNames"]) == 52
    scale = trimesh.load(files[1], process=False).extents / trimesh.load(files[2], process=False).extents
    assert scale == pytest.approx([1000] * 3, rel=1e-4)
    smile = head_file.unpacked(files[3].read_bytes())[0]["meshes"][0]
    assert dict(zip(smile["extras"]["targetNames"], smile["weights"], strict=True))["mouthSmileLeft"] == 1
    assert sum(smile["weights"]) == 1
    camera = trimesh.load(files[0], process=False, force="mesh").bounds * 1000
    expected = rigged._placement("camera", {}).surface(rigged._surface)  # trimesh knows no weights
    assert camera == pytest.approx(np.array([expected.vertices.min(0), expected.vertices.max(0)]), abs=0.01)


def test_the_khronos_validator_finds_nothing_in_rewritten_heads(
    rigged: Reconstruction, folder: Path, tmp_path: Path
) -> None:
    files = rigged.save(tmp_path / "camera.glb", pose="camera", units="mm")
    files += rigged.save(tmp_path / "smile.glb", blendshapes={"mouthSmileLeft": 1.0})
    files += head_file.result(folder, pose="camera").save(tmp_path / "upright.glb", pose="canonical")
    for verdict in verdicts(*files):
        assert (verdict["numErrors"], verdict["numWarnings"]) == (0, 0), verdict


def test_an_obj_has_quads_groups_and_a_picture_for_each_part(rigged: Reconstruction, tmp_path: Path) -> None:
    written = rigged.save(tmp_path / "me.obj")
    assert [path.name for path in written] == [
        "me_texture.png", *[f"me_{part}.png" for part in PARTS[1:]], "me.mtl", "me.obj",
    ]  # fmt: skip
    lines = written[-1].read_text().splitlines()
    corners = [len(line.split()) - 1 for line in lines if line.startswith("f ")]
    assert corners.count(4) == sum(part.quads for part in rigged._surface.parts)
    assert [line for line in lines if line.startswith("usemtl")] == [f"usemtl me_{part}" for part in PARTS]
    assert sum(line.startswith("v ") for line in lines) < sum(line.startswith("vt ") for line in lines)
    scene: Any = trimesh.load(written[-1], process=False)
    assert set(scene.geometry) == {f"me_{part}" for part in PARTS} or len(scene.geometry) == 6
    assert scene.extents == pytest.approx(rigged.mesh.extents / 1000, abs=1e-4)
    for path in written[:-2]:
        with Image.open(path) as picture:
            assert picture.mode == ("RGBA" if "lashes" in path.name else "RGB")
    assert "map_d me_lashes.png" in written[-2].read_text()


def test_a_ply_names_its_texture_and_has_colours(rigged: Reconstruction, tmp_path: Path) -> None:
    texture, ply = rigged.save(tmp_path / "me.ply")
    assert texture.name == "me_atlas.png"
    data = ply.read_bytes()
    assert b"comment TextureFile me_atlas.png\n" in data[:300]
    mesh: Any = trimesh.load(ply, process=False)
    raw = mesh.metadata["_ply_raw"]["vertex"]["data"]
    with Image.open(texture) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    s, t = raw["s"].ravel(), raw["t"].ravel()
    shown = pixels[
        np.clip(((1 - t) * height).astype(int), 0, height - 1), np.clip((s * width).astype(int), 0, width - 1)
    ]
    colours = np.stack([raw[name].ravel() for name in ("red", "green", "blue")], -1).astype(int)
    skin = len(rigged._surface.parts[0].uv)
    assert np.abs(shown[:skin] - colours[:skin]).mean() < 2
    assert len(mesh.vertices) == len(rigged._surface.opaque().vertices)


@pytest.mark.parametrize("united", [False, True])
@pytest.mark.parametrize("shapes", [None, {}, {"jawOpen": 1.0}, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}])
def test_an_stl_is_closed_and_can_be_printed(
    rigged: Reconstruction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    united: bool,
    shapes: dict[str, float] | None,
) -> None:
    if united:
        pytest.importorskip("manifold3d", reason="manifold3d is not installed")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    rigged.save(tmp_path / "me.stl", blendshapes=shapes)
    mesh: Any = trimesh.load(tmp_path / "me.stl")  # joins equal corners, as slicers do
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 3e6  # cubic millimetres: a head, neck and shoulders
    outer = max(mesh.split(), key=lambda body: body.volume)
    eyes = rigged._surface_in("canonical", shapes).parts[1:3]
    assert outer.volume > 0.95 * mesh.volume
    if not united:
        assert mesh.body_count == 1 + len(eyes)


def test_an_stl_of_a_face_alone_stays_open(folder: Path, tmp_path: Path) -> None:
    face = head_file.result(folder, mesh="face")
    assert list(face.parts) == PARTS
    face.save(tmp_path / "face.stl")
    mesh: Any = trimesh.load(tmp_path / "face.stl")
    assert not mesh.is_watertight


def test_usdz_is_what_quick_look_takes(rigged: Reconstruction, tmp_path: Path) -> None:
    usd = pytest.importorskip("pxr.Usd", reason="usd-core is not installed")
    geometry = pytest.importorskip("pxr.UsdGeom")
    validation = pytest.importorskip("pxr.UsdValidation")
    (path,) = rigged.save(tmp_path / "my head.usdz")
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            file.seek(entry.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            assert (entry.header_offset + 30 + name + extra) % 64 == 0
        assert archive.infolist()[0].filename.endswith(".usdc")
    stage = usd.Stage.Open(str(path))
    assert geometry.GetStageUpAxis(stage) == "Y"
    assert geometry.GetStageMetersPerUnit(stage) == 1
    assert stage.GetDefaultPrim().IsValid()
    meshes = {prim.GetName(): geometry.Mesh(prim) for prim in stage.Traverse() if prim.IsA(geometry.Mesh)}
    assert list(meshes) == PARTS
    quads = [list(mesh.GetFaceVertexCountsAttr().Get()).count(4) for mesh in meshes.values()]
    assert quads == [part.quads for part in rigged._surface.parts]
    box = geometry.BBoxCache(usd.TimeCode.Default(), ["default"]).ComputeWorldBound(stage.GetDefaultPrim()).GetRange()
    assert np.array(box.GetSize()) == pytest.approx(rigged.mesh.extents / 1000, abs=1e-4)
    registry = validation.ValidationRegistry()
    found = validation.ValidationContext(registry.GetAllValidatorMetadata(), True).Validate(stage)
    assert [(error.GetName(), error.GetMessage()) for error in found] == []


def test_usdz_without_usd_core_says_what_to_install(
    rigged: Reconstruction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pxr", "pxr.Usd"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"face3d-client\[usd\]"):
        rigged.save(tmp_path / "head.usdz")
    assert not list(tmp_path.iterdir())


def test_npz_numbers_parts_and_shapes(rigged: Reconstruction, tmp_path: Path) -> None:
    rigged.save(tmp_path / "me.npz")
    with np.load(tmp_path / "me.npz", allow_pickle=False) as arrays:
        assert arrays["mesh_part_names"].tolist() == PARTS
        assert len(arrays["mesh_parts"]) == len(arrays["faces"])
        assert arrays["faces"].max() + 1 == len(arrays["mesh_vertices"]) == len(arrays["uv"])
        assert dict(zip(arrays["blendshape_names"].tolist(), arrays["blendshapes"].tolist(), strict=True)) == (
            pytest.approx(rigged.blendshapes)
        )


def test_the_photograph_is_never_written_over(folder: Path, tmp_path: Path) -> None:
    photograph = tmp_path / "me_texture.png"
    photograph.write_bytes(b"photograph")
    result = Reconstruction(head_file.result(folder).raw, source=photograph)
    with pytest.raises(ValueError, match="would be written over the photograph"):
        result.save(tmp_path / "me.obj")
    assert photograph.read_bytes() == b"photograph"
    assert [path.name for path in tmp_path.iterdir()] == ["me_texture.png"]
    result.save(tmp_path / "you.obj")


# --- drawing ----------------------------------------------------------------------------------------------------------


def test_the_render_shows_eyes_teeth_and_expressions(rigged: Reconstruction) -> None:
    front, opened = (np.asarray(rigged.render(side=300, blendshapes=s)).astype(int) for s in ({}, {"jawOpen": 1.0}))
    changed = np.abs(opened - front).max(-1) > 30
    assert 0.005 < changed.mean() < 0.2
    clay = np.asarray(rigged.render(side=300, clay=True)).astype(int)
    assert np.ptp(clay[150, 150]) < 15 < np.ptp(front[150, 150])
    back = np.asarray(rigged.render(side=300, yaw=180)).astype(int)
    assert np.abs(back - front).mean() > 1


def test_the_overlay_of_a_head_hides_what_is_behind_and_draws_no_diagonals(plain: Reconstruction) -> None:
    pixels, edges = plain._wireframe()
    surface = plain._surface_in("camera")
    nape = surface.vertices[edges].mean(1)[:, 2] < surface.vertices[:, 2].mean() - 80
    assert nape.mean() < 0.02
    pairs = {tuple(edge) for edge in np.sort(edges, 1).tolist()}
    skin = plain._surface.parts[0]
    assert not {tuple(sorted(quad)) for quad in skin.quad_faces[:, [0, 2]].tolist()} & pairs
    assert pixels.shape == (len(surface.vertices), 2)


# --- lies -------------------------------------------------------------------------------------------------------------


def _sparse(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(a["sparse"] for a in tree["accessors"] if a.get("sparse", {}).get("count", 0) > 1)
    return found


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "sparse beyond its view": lambda t: _sparse(t)["values"].update(byteOffset=10**7),
    "sparse of all that there is and more": lambda t: _sparse(t).update(count=2**40),
    "sparse with floats for places": lambda t: _sparse(t)["indices"].update(componentType=5126),
    "nothing for a billion vertices": lambda t: t["accessors"][-1].update(count=10**9, sparse=None),
    "a target of another length": lambda t: t["meshes"][0]["primitives"][0]["targets"][3].update(POSITION=2),
    "too few targets": lambda t: t["meshes"][0]["primitives"][1]["targets"].pop(),
    "more weights than targets": lambda t: t["meshes"][0]["weights"].append(0.5),
    "weights that are words": lambda t: t["meshes"][0].update(weights=["a"] * 52),
    "a name twice": lambda t: t["meshes"][0]["extras"].update(targetNames=["jawOpen"] * 52),
    "no names": lambda t: t["meshes"][0].pop("extras"),
    "a thousand parts": lambda t: t["meshes"][0].update(primitives=t["meshes"][0]["primitives"] * 200),
    "more quads than triangles": lambda t: t["meshes"][0]["primitives"][0]["extras"].update(quads=10**6),
    "quads below zero": lambda t: t["meshes"][0]["primitives"][0]["extras"].update(quads=-1),
    "a material that is not there": lambda t: t["meshes"][0]["primitives"][2].update(material=99),
    "a picture that is not there": lambda t: t["textures"][0].update(source=99),
    "a colour that is no number": lambda t: t["materials"][3]["pbrMetallicRoughness"].update(baseColorFactor="red!"),
    "triangles as lines": lambda t: t["meshes"][0]["primitives"][0].update(mode=1),
    "a node that scales": lambda t: t["nodes"][0].update(scale=[2, 2, 2]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_parts_or_targets_is_a_bad_response(rigged: Reconstruction, lie: str) -> None:
    tree, binary = head_file.unpacked(rigged.glb)
    LIES[lie](tree)
    with pytest.raises(BadResponse, match="not as this service writes it"):
        surface_from_glb(head_file.packed(tree, binary))


def test_targets_that_would_take_all_memory_are_refused(rigged: Reconstruction) -> None:
    tree, binary = head_file.unpacked(rigged.glb)
    mesh = tree["meshes"][0]
    names = [f"shape{number}" for number in range(5000)]
    mesh["extras"]["targetNames"], mesh["weights"] = names, [0.0] * 5000
    for primitive in mesh["primitives"]:
        primitive["targets"] = [primitive["targets"][0]] * 5000
    with pytest.raises(BadResponse, match="too many"):
        surface_from_glb(head_file.packed(tree, binary))


def test_a_picture_with_alpha_is_bounded_as_any_other(rigged: Reconstruction) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8000, 8000)).save(buffer, "PNG")
    tree, binary = head_file.unpacked(rigged.glb)
    tree["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(buffer.getvalue())})
    tree["images"][tree["textures"][-1]["source"]]["bufferView"] = len(tree["bufferViews"]) - 1
    content = binary + buffer.getvalue()
    content += bytes(-len(content) % 4)
    tree["buffers"][0]["byteLength"] = len(content)
    surface = surface_from_glb(head_file.packed(tree, content))
    with pytest.raises(BadResponse, match="8000 x 8000"):
        _ = surface.atlas
