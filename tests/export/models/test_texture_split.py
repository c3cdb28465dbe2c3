"""The texture graph in parts: with SciPy and OpenCV between them they give what the whole graph gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from export.models import get_model
from export.models.texture_split import LEVEL_TOLERANCE, SplitGraph, session_of, split, split_error, write
from export.session import Session
from export.stages.surgery import clean
from export.stages.trace import onnx_from_module
from networks import camera, texture
from networks.face_model import FaceModel
from networks.parser import PARTS, PARTS_SIDE
from networks.texture import SIZE, TextureNet, example_inputs
from networks.texture_fill import UNet
from server.backends.onnxruntime import parts
from server.backends.onnxruntime.integer_products import INTEGER_PRODUCTS, open_graph
from server.backends.onnxruntime.parts import FILL, TABLE, PartsSession, Table, enlarged, open_parts, sample, spans_of
from tests.export import tiny
from tests.export.synthetic import face_model, rotation_matrix

SIDE = 512
RATIO = 224 / SIDE


class Inner(torch.nn.Module):
    """Gives the tensors by which the graph is cut, too."""

    def __init__(self, network: TextureNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.network(*inputs, inner=True)


def graph_of(model: FaceModel, unet: UNet | None) -> onnx.ModelProto:
    network = get_model("texture")
    module = Inner(TextureNet(model, unet).eval())
    free = network.dynamic_axes
    return clean(
        onnx_from_module(module, example_inputs(len(model.mean)), network.inputs, network.outputs, free, network.inner),
        free,
    )


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return face_model()


@pytest.fixture(scope="module", params=["with a U-Net", "without"])
def whole(request: pytest.FixtureRequest, model: FaceModel) -> onnx.ModelProto:
    """Build a texture graph with random weights, or of a face model that the U-Net does not belong to."""
    if request.param == "without":
        return graph_of(model, None)
    torch.manual_seed(0)
    unet = UNet()
    torch.nn.init.normal_(unet.head.weight, std=0.05)
    return graph_of(model, unet)


@pytest.fixture(scope="module")
def cut(whole: onnx.ModelProto) -> SplitGraph:
    found = split(whole)
    assert found is not None
    return found


def feed(model: FaceModel, *yaws: float, shift: float = 0.0, pixels: float = 1.0) -> dict[str, NDArray[Any]]:
    """Make inputs: a smooth picture under the mean face, rotated.

    ``shift`` moves it in pixels of the 224 px crop, each of which has so many ``pixels`` of the source.
    """
    column, row = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    picture = np.stack([90 + 80 * np.sin(column / 31), 110 + 60 * np.cos(row / 23), 60 + (column + row) / 9])
    shapes = [model.mean @ rotation_matrix(0, np.radians(yaw), 0).T for yaw in yaws]
    edge = 0.5 * RATIO - 0.5
    context = np.array([0.0] * 15 + [1, 1, 0, 0, RATIO, RATIO, edge + shift, edge], np.float32) * np.float32(pixels)
    parts = np.zeros((len(yaws), len(PARTS), PARTS_SIDE, PARTS_SIDE), np.uint8)
    parts[:, 0] = 255
    parts[:, 0, 20:40, 30:60], parts[:, 2, 20:40, 30:60] = 0, 255
    return {
        "parts": parts,
        "crop_hd": np.repeat(picture[None].astype(np.uint8), len(yaws), 0),
        "shapes": np.stack([[shape] * 3 for shape in shapes]).astype(np.float32),
        "context": np.repeat(context[None], len(yaws), 0),
    }


class TestCut:
    def test_the_parts_have_the_networks_and_not_what_is_between(self, cut: SplitGraph) -> None:
        operators = {node.op_type for node in cut.fill.graph.node}
        assert "Log" in operators
        assert not {"GridSample", "ScatterElements"} & operators

    def test_the_interface_is_the_whole_graph_s(self, whole: onnx.ModelProto, cut: SplitGraph) -> None:
        session = PartsSession(ort.InferenceSession(cut.fill.SerializeToString()), cut.table)
        whole_session = ort.InferenceSession(whole.SerializeToString())
        for value, expected in zip(
            (*session.get_inputs(), *session.get_outputs()),
            (*whole_session.get_inputs(), *whole_session.get_outputs()),
            strict=True,
        ):
            assert (value.name, value.type, value.shape) == (expected.name, expected.type, expected.shape)

    def test_the_graph_itself_stays_as_it_is(self, whole: onnx.ModelProto) -> None:
        kept = whole.SerializeToString()
        split(whole)
        assert whole.SerializeToString() == kept

    def test_other_networks_are_not_cut(self) -> None:
        assert split(tiny.cleaned()) is None

    @pytest.mark.parametrize(
        "name",
        [
            *("DEPTH_GRID", "UNSEEN_COSINE", "SEEN_COSINE", "SEEN_DEPTH", "HIDDEN_DEPTH", "SEEN_BEHIND_EYE"),
            *("HIDDEN_BEHIND_EYE", "NOT_SKIN", "SURE_SKIN", "BORDER", "ISLAND", "ISLAND_SKIN", "NO_BEARD", "BEARD"),
            *("CROP", "FOCAL", "DISTANCE"),
        ],
    )
    def test_what_is_computed_around_the_network_has_its_thresholds(self, name: str) -> None:
        assert getattr(parts, name) == getattr(texture if hasattr(texture, name) else camera, name)


class TestSession:
    # Sampled at a quarter of the size, at half of it, and at full size.
    @pytest.mark.parametrize("pixels", [0.8, 1.0, 2.0], ids=["tiny", "small", "large"])
    @pytest.mark.parametrize("yaws", [(0.0,), (35.0, -60.0)])
    def test_gives_what_the_whole_graph_gives(
        self, model: FaceModel, whole: onnx.ModelProto, cut: SplitGraph, yaws: tuple[float, ...], pixels: float
    ) -> None:
        error = split_error(whole, cut, feed(model, *yaws, pixels=pixels))
        assert error.acceptable, str(error)

    def test_a_large_face_has_detail_that_a_small_one_cannot_have(self, model: FaceModel, cut: SplitGraph) -> None:
        session = session_of(cut)
        noise = np.random.default_rng(1).integers(0, 256, (1, 3, SIDE, SIDE)).astype(np.uint8)
        small, large = (session(feed(model, 0.0, pixels=p) | {"crop_hd": noise})["texture"] for p in (1.0, 2.0))
        assert (small.shape, large.shape) == ((1, 3, SIZE // 2, SIZE // 2), (1, 3, SIZE, SIZE))
        steps = [np.abs(np.diff(enlarged(texture, SIZE).astype(int), axis=3)).mean() for texture in (small, large)]
        assert steps[1] > 1.15 * steps[0]

    def test_rows_of_a_request_that_run_apart_have_the_size_of_the_largest(
        self, model: FaceModel, cut: SplitGraph
    ) -> None:
        session = PartsSession(ort.InferenceSession(cut.fill.SerializeToString()), cut.table)
        small, large = (session.run(["texture"], feed(model, 0.0, pixels=p))[0] for p in (1.0, 2.0))
        joined = session.concatenate([small, large])
        assert joined.shape == (2, 3, SIZE, SIZE)
        np.testing.assert_array_equal(joined[1:], large)
        assert np.abs(joined[:1, :, ::2, ::2].astype(int) - small).mean() < 3

    def test_also_where_the_picture_ends(self, model: FaceModel, whole: onnx.ModelProto, cut: SplitGraph) -> None:
        values = feed(model, 0.0, shift=90)
        visibility = Session(whole)(values)["visibility"]
        assert 0.1 < (visibility == 0).mean() < 0.9  # a part of the face lies beyond
        given = session_of(cut)(values)["visibility"]
        assert (np.abs(visibility.astype(int) - given) > LEVEL_TOLERANCE).mean() < 0.003

    def test_a_row_does_not_depend_on_its_neighbours(self, model: FaceModel, cut: SplitGraph) -> None:
        session, values = session_of(cut), feed(model, 35.0, -60.0)
        together = session(values)
        for row in range(2):
            alone = session({name: value[row : row + 1] for name, value in values.items()})
            for name, value in alone.items():
                np.testing.assert_array_equal(value[0], together[name][row])

    def test_a_head_in_the_camera_s_plane_is_a_fault_of_the_request(self, model: FaceModel, cut: SplitGraph) -> None:
        session = PartsSession(ort.InferenceSession(cut.fill.SerializeToString()), cut.table)
        values = feed(model, 0.0)
        values["shapes"][..., :2], values["shapes"][..., 2] = 0, 10  # decimetres
        with pytest.raises(ValueError, match="plane of the camera"):
            session.run(None, values)

    def test_only_what_is_wanted_is_given(self, model: FaceModel, cut: SplitGraph) -> None:
        session = PartsSession(ort.InferenceSession(cut.fill.SerializeToString()), cut.table)
        (visibility,) = session.run(["visibility"], feed(model, 20.0))
        assert visibility.shape == (1, 1, SIZE, SIZE)
        assert 0.2 < (visibility > 127).mean() < 1


WHOLE = [(slice(None), slice(None))]
"""All of a texture, as one span."""


class TestSample:
    CAMERA = np.array([1, 1, 0, 0, 1, 1, 0, 0], np.float32)

    def test_whole_pixels_are_exact(self) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (3, 9, 9)).astype(np.uint8)
        places = np.stack(np.meshgrid(np.arange(9), np.arange(9))).astype(np.float32)
        np.testing.assert_array_equal(sample(picture, places, self.CAMERA, 9, WHOLE), picture.transpose(1, 2, 0))

    def test_the_cameras_lead_from_the_small_crop_to_the_picture(self) -> None:
        ramp = np.repeat(np.arange(40, 200, 2, dtype=np.uint8)[None, None], 3, 0).repeat(80, 1)
        places = np.stack(np.meshgrid(np.arange(5, 10), np.arange(5, 10))).astype(np.float32)
        camera = np.array([3, 3, 7, 7, 0.5, 0.5, 10, 10], np.float32)
        # 3 * 5 + 7 source pixels are column 24 of the picture: 40 + 2 * 24
        assert sample(ramp, places, camera, 5, WHOLE)[0, 0].tolist() == [88, 88, 88]

    @pytest.mark.parametrize("place", [np.nan, np.inf, -np.inf, 1e9, -1e9, 40_000.0])
    def test_places_far_from_the_picture_are_black(self, place: float) -> None:
        places = np.full((2, 9, 9), place, np.float32)
        assert not sample(np.full((3, 12, 12), 200, np.uint8), places, self.CAMERA, 9, WHOLE).any()


class TestSpans:
    @pytest.mark.parametrize("scale", [2, 4])
    def test_hold_what_is_used_and_little_else(self, scale: int) -> None:
        used = np.zeros((256, 256), bool)
        used[100, [40, 45, 200]] = used[255, 255] = True
        covered = np.zeros((256 * scale, 256 * scale), int)
        for span in spans_of(used, 256 * scale, 16):
            covered[span] += 1
        wide = used.repeat(scale, 0).repeat(scale, 1)
        assert (covered[wide] == 1).all()
        assert covered.max() == 1
        assert covered.sum() < 16 * scale * 20 * scale

    def test_nothing_used_has_none(self) -> None:
        assert spans_of(np.zeros((256, 256), bool), SIZE, 16) == []


class TestSplitError:
    def test_large_for_the_parts_of_another_graph(
        self, model: FaceModel, whole: onnx.ModelProto, cut: SplitGraph
    ) -> None:
        shuffled = replace(cut.table, weights=cut.table.weights[::-1].copy())
        error = split_error(whole, replace(cut, table=shuffled), feed(model, 20.0))
        assert not error.acceptable
        assert "the whole graph is served" in str(error)


class TestOpenParts:
    @pytest.fixture
    def folder(self, tmp_path: Path, whole: onnx.ModelProto, cut: SplitGraph) -> Path:
        """Write a version folder with a whole graph and its parts."""
        onnx.save(whole, tmp_path / "model.onnx")
        write(tmp_path, tmp_path / "model.onnx", cut)
        return tmp_path

    def opened(self, folder: Path) -> PartsSession | None:
        return open_parts(folder / "model.onnx", ort.SessionOptions(), open_graph)

    def test_parts_that_belong_are_taken(self, folder: Path, model: FaceModel) -> None:
        session = self.opened(folder)
        assert session is not None
        assert session.run(["texture"], feed(model, 0.0, pixels=2.0))[0].shape == (1, 3, SIZE, SIZE)

    def test_parts_say_for_which_processors_the_graph_was_judged(
        self, tmp_path: Path, whole: onnx.ModelProto, cut: SplitGraph
    ) -> None:
        marked = onnx.ModelProto()
        marked.CopyFrom(whole)
        onnx.helper.set_model_props(marked, {INTEGER_PRODUCTS: "vnni"})
        onnx.save(marked, tmp_path / "model.onnx")
        write(tmp_path, tmp_path / "model.onnx", cut)
        marks = {entry.key: entry.value for entry in onnx.load(tmp_path / FILL).metadata_props}
        assert marks[INTEGER_PRODUCTS] == "vnni"

    def test_parts_of_another_graph_are_not(self, folder: Path, whole: onnx.ModelProto) -> None:
        other = onnx.ModelProto()
        other.CopyFrom(whole)
        other.doc_string = "another one"
        onnx.save(other, folder / "model.onnx")
        assert self.opened(folder) is None

    def test_the_table_of_another_graph_is_not(self, folder: Path) -> None:
        replace(Table.load(folder / TABLE), whole="0" * 64).save(folder / TABLE)
        assert self.opened(folder) is None

    @pytest.mark.parametrize("name", [FILL, TABLE])
    def test_some_of_them_are_not(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        assert self.opened(folder) is None
