"""`postprocess`: each file of a face, from all tensors at once or handed on from file to file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from PIL import Image

from server.backends.onnxruntime.parts import COARSE
from tests.model_repository import dome
from tests.model_repository.version_folder import load

files = load("postprocess", "files")
options = load("postprocess", "options")
surface = load("postprocess", "surface")


def tensors(side: int = 1024, **changes: Any) -> dict[str, NDArray[Any]]:
    texture = np.random.default_rng(4).integers(60, 200, (3, side, side), np.uint8)
    step = 224 / 512
    return {
        "texture": texture,
        "shapes": dome.shapes(yaw=20.0),
        "fingerprint": np.array([dome.FINGERPRINT]),
        "context": np.array([0] * 15 + [1, 1, 0, 0, step, step, step / 2 - 0.5, step / 2 - 0.5], np.float32),
        "crop_hd": np.full((3, 512, 512), 90, np.uint8),
        **changes,
    }


def made(given: dict[str, NDArray[Any]] | None = None, **chosen: Any) -> Any:
    face = surface.Surface.from_arrays(dome.arrays())
    return files.Files(face, tensors() if given is None else given, options.Options(**chosen))


def mesh_of(data: bytes) -> Any:
    (mesh,) = trimesh.load_scene(io.BytesIO(data), file_type="glb").geometry.values()
    return mesh


def image_of(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    ("pose", "expression", "expected"),
    [
        ("camera", "photo", dome.turned(20.0)),
        ("canonical", "photo", dome.vertices()),
        ("canonical", "neutral", dome.vertices() * 0.9),
        ("camera", "neutral", dome.turned(20.0) * 0.9),
    ],
)
def test_the_mesh_shows_what_was_asked_for(pose: str, expression: str, expected: NDArray[np.float32]) -> None:
    mesh = mesh_of(made(pose=pose, expression=expression).mesh)
    np.testing.assert_allclose(mesh.vertices, expected * 0.1, atol=1e-6)


@pytest.mark.parametrize(
    ("pose", "expression", "expected"),
    [
        # The shape is 0.45 of the depth away from the mean; twice the likeness puts as much on top.
        ("canonical", "neutral", dome.vertices() * np.array([0.9, 0.9, 1.35])),
        ("canonical", "photo", dome.vertices() * np.array([1, 1, 1.45])),
        ("camera", "neutral", dome.turned(20.0, 1.5) * 0.9),
    ],
)
def test_likeness_moves_the_shape_away_from_the_mean(pose: str, expression: str, expected: NDArray[np.float32]) -> None:
    mesh = mesh_of(made(pose=pose, expression=expression, likeness=2.0).mesh)
    np.testing.assert_allclose(mesh.vertices, expected * 0.1, atol=1e-6)


def test_without_likeness_the_shape_is_the_mean() -> None:
    mesh = mesh_of(made(expression="neutral", likeness=0.0).mesh)
    np.testing.assert_allclose(mesh.vertices, dome.mean() * 0.1, atol=1e-6)


def test_a_face_model_without_a_head_has_no_rig() -> None:
    with pytest.raises(options.Refused, match='`rig` is "arkit"') as caught:
        made(rig="arkit")
    assert caught.value.tag == "BadOption"


def test_without_a_format_the_texture_file_is_png_and_the_mesh_holds_a_jpeg() -> None:
    face = made()
    assert image_of(face.texture_image).format == "PNG"
    assert mesh_of(face.mesh).visual.material.baseColorTexture.format == "JPEG"


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_format_counted_models_the_file_and_for_the_mesh(kind: str) -> None:
    face = made(texture_format=kind, texture_size=128)
    texture = mesh_of(face.mesh).visual.material.baseColorTexture
    assert image_of(face.texture_image).format == texture.format == kind.upper()
    assert image_of(face.texture_image).size == texture.size == (128, 128)


def test_what_one_call_hands_on_the_next_one_takes() -> None:
    """The steps of the ensembles: mesh, then texture and `thumbnail`, then preview."""
    whole = made(texture_size=1024)
    second = made({**tensors(), "mesh_done": whole.mesh_done}, texture_size=1024)
    assert second.texture_image == whole.texture_image
    assert second.thumbnail.shape == (640, 640, 3)
    rest = {name: array for name, array in tensors().items() if name != "texture"}
    third = made({**rest, "thumbnail": second.thumbnail}, texture_size=1024)
    assert third.preview == whole.preview


def test_visibility_is_the_places_seen_share_at_the_texture_s_size() -> None:
    places = np.zeros((4, 256, 256), np.float32)
    places[3, 100:120, 40:60] = 1
    visibility = made({"places": places}).visibility
    assert (visibility.shape, visibility.dtype) == ((1, 1024, 1024), np.uint8)
    assert (visibility[0, 404:476, 164:236] == 255).all()
    assert not visibility[0, :390].any()


def small_face(**changes: Any) -> dict[str, NDArray[Any]]:
    """All that is known of a face of few pixels."""
    camera = np.float32(1.3) * tensors()["context"][15:]
    points = [130, 130, 190, 130, 160, 160, 135, 190, 185, 190]
    axis = (np.arange(256, dtype=np.float32) + 0.5) * (224 / 256) - 0.5
    ones = np.ones((256, 256), np.float32)
    return tensors(
        context=np.array([0, 0, 0, 0, 1, *points, *camera], np.float32),
        places=np.stack([*np.meshgrid(axis, axis), ones, ones]),
        parts=np.zeros((3, 128, 128), np.uint8),
        close_up=np.zeros((1, 1, 3), np.uint8),
        close_up_camera=np.zeros(4, np.float32),
        **changes,
    )


@pytest.mark.parametrize("side", [512, 1024], ids=["as the parts give it", "as the whole graph gives it"])
def test_a_face_of_few_pixels_has_a_texture_of_512(side: int) -> None:
    face = made(small_face(side=side))
    assert face.finished.shape == (512, 512, 3)
    assert mesh_of(face.mesh).visual.material.baseColorTexture.size == (512, 512)
    assert "size" not in face.texture_doubts, "nothing was asked for"


@pytest.mark.parametrize(
    ("asked", "sent", "said"), [(1024, 512, True), (4096, 512, True), (512, 512, False), (64, 64, False)]
)
def test_who_asks_for_more_than_the_photograph_has_is_told_what_was_sent(asked: int, sent: int, said: bool) -> None:
    face = made(small_face(side=512), texture_size=asked)
    assert face.finished.shape == (sent, sent, 3)
    assert ("size" in face.texture_doubts) == said
    assert not said or f"{sent} texels a side, not of {asked}" in face.texture_doubts["size"]


def test_who_makes_a_texture_and_who_reads_one_have_the_same_rule() -> None:
    photograph = load("postprocess", "photograph")
    sides = (photograph.SMALL_TEXTURE, photograph.USUAL_TEXTURE)
    for model, module in (("postprocess", "face_tensors"), ("merge", "photo_tensors"), ("fusion", "pairs")):
        assert sides == load(model, module).TEXTURE_SIDES
    assert photograph.COARSE == COARSE


def test_without_the_photograph_the_texture_keeps_its_size() -> None:
    assert made(tensors(side=512)).finished.shape == (512, 512, 3)
    assert made(tensors(side=1024)).finished.shape == (1024, 1024, 3)


def test_a_small_texture_is_its_own_thumbnail() -> None:
    face = made(texture_size=256)
    np.testing.assert_array_equal(face.thumbnail, face.finished)


@pytest.mark.parametrize(
    ("output", "missing"),
    [("mesh", "shapes"), ("mesh", "texture"), ("texture_image", "crop_hd"), ("preview", "context")],
)
def test_a_tensor_that_is_missing_is_named(output: str, missing: str) -> None:
    given = {name: array for name, array in tensors().items() if name != missing}
    with pytest.raises(options.Refused, match=f"`{missing}`") as caught:
        getattr(made(given), output)
    assert caught.value.tag == "BadOption"


@pytest.mark.parametrize("output", ["mesh", "preview"])
def test_shapes_of_another_face_model_are_refused(output: str) -> None:
    with pytest.raises(options.Refused) as caught:
        getattr(made(tensors(fingerprint=np.array([5]))), output)
    assert caught.value.tag == "FaceModelMismatch"


@pytest.mark.parametrize("output", ["mesh", "preview"])
def test_a_shape_that_is_not_finite_is_refused(output: str) -> None:
    shapes = dome.shapes()
    shapes[0, 5, 1] = np.inf
    with pytest.raises(options.Refused) as caught:
        getattr(made(tensors(shapes=shapes)), output)
    assert caught.value.tag == "BadFace"
