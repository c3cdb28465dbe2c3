"""YuNet and O-Net as one graph: faces, points, crowds, small and turned faces, and the files that it is read from."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from export.models.detector import iou
from export.pictures import canvas_of
from export.session import Session
from export.stages.trace import onnx_from_module
from networks.detector.cascade import Detector
from networks.detector.contract import CANVAS, GREY, INPUTS, OUTPUTS, SLOTS, example_inputs
from networks.detector.crops import Levels, crops
from networks.detector.single_shot import CALIBRATED, CELL_SCORES, SingleShotDetector, calibrated
from networks.detector.weights import YUNET, default_weights
from networks.detector.yunet import STRIDES, YuNet
from networks.errors import NetworkError

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]
DYNAMIC = {"NonZero", "NonMaxSuppression", "If", "Loop"}


@pytest.fixture(scope="module", params=[False, True], ids=["cpu", "fixed"])
def session(request: pytest.FixtureRequest) -> Session:
    graph = onnx_from_module(SingleShotDetector.load(fixed=request.param), example_inputs(), INPUTS, OUTPUTS)
    assert not request.param or not DYNAMIC & {node.op_type for node in graph.graph.node}
    return Session(graph)


def faces_of(session: Session, picture: Picture) -> Floats:
    canvas, geometry = canvas_of(picture)
    rows = session({"canvas": canvas[None], "geometry": geometry[None]})["faces"][0]
    assert rows.shape == (SLOTS, 15)
    assert (np.diff(rows[:, 4]) <= 0).all()
    assert not rows[rows[:, 4] == 0].any()
    return np.asarray(rows[rows[:, 4] >= 0.7])


def test_it_finds_the_same_face_and_points_as_the_cascade(session: Session, portraits: dict[str, Picture]) -> None:
    cascade = Detector.load(default_weights())
    for picture in portraits.values():
        (row,) = faces_of(session, picture)
        canvas, geometry = canvas_of(picture)
        with torch.no_grad():
            other = cascade(torch.from_numpy(canvas)[None], torch.from_numpy(geometry)[None])[0, 0].numpy()
        assert row[4] >= 0.9
        assert iou(row[:4], other[None, :4])[0] > 0.6
        distances = np.linalg.norm((row[5:] - other[5:]).reshape(5, 2), axis=1)
        assert distances.max() < 0.12 * np.linalg.norm(other[7:9] - other[5:7])


def test_a_full_grid_of_small_faces_is_found(session: Session, portraits: dict[str, Picture]) -> None:
    face = cv2.resize(portraits["astronaut"][:320, 80:400], (120, 120), interpolation=cv2.INTER_AREA)
    rows = faces_of(session, np.tile(np.asarray(face, np.uint8), (7, 7, 1)))
    centres = (rows[:, :2] + rows[:, 2:4]) / 2 // 120
    assert len({(int(x), int(y)) for x, y in centres}) >= 48


def test_faces_of_a_thirtieth_of_the_long_side_are_found(session: Session, portraits: dict[str, Picture]) -> None:
    face = cv2.resize(portraits["astronaut"][:320, 80:400], (130, 130), interpolation=cv2.INTER_AREA)
    picture = np.full((1200, 2400, 3), 120, np.uint8)
    for left, top in ((200, 300), (1500, 800)):
        picture[top : top + 130, left : left + 130] = face
    rows = faces_of(session, picture)
    assert len(rows) == 2
    assert (rows[:, 2] - rows[:, 0] < 100).all()


def test_pictures_without_a_face_fill_no_slot(session: Session) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    for picture in (np.zeros((200, 300, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8), noise):
        assert not len(faces_of(session, picture))


def test_an_upside_down_face_is_told_with_its_points_upside_down(
    session: Session, portraits: dict[str, Picture]
) -> None:
    picture = portraits["astronaut"]
    (upright,) = faces_of(session, picture)
    rows = faces_of(session, np.ascontiguousarray(picture[::-1, ::-1]))
    for row in rows:
        turned = picture.shape[0] - 1 - row[5:].reshape(5, 2)
        assert np.linalg.norm(turned - upright[5:].reshape(5, 2), axis=1).max() < 0.3 * (upright[2] - upright[0])


@pytest.mark.parametrize("turns", [1, 3], ids=["counter-clockwise", "clockwise"])
@pytest.mark.parametrize("name", ["astronaut", "grace_hopper"])
def test_a_face_in_a_picture_that_lies_on_its_side_is_found_with_its_points_lying(
    session: Session, portraits: dict[str, Picture], name: str, turns: int
) -> None:
    picture = portraits[name]
    (upright,) = faces_of(session, picture)
    (row,) = faces_of(session, np.ascontiguousarray(np.rot90(picture, turns)))
    height, width = picture.shape[:2]
    x, y = upright[5:].reshape(5, 2).T
    wanted = np.stack([y, width - 1 - x] if turns == 1 else [height - 1 - y, x], 1)
    assert np.linalg.norm(row[5:].reshape(5, 2) - wanted, axis=1).max() < 0.1 * (upright[2] - upright[0])
    assert (row[:2] < row[2:4]).all()


@pytest.mark.parametrize("name", ["astronaut", "grace_hopper"])
def test_a_face_that_fills_its_picture_is_found(session: Session, portraits: dict[str, Picture], name: str) -> None:
    (upright,) = faces_of(session, portraits[name])
    left, top, right, bottom = (int(value) for value in upright[:4])
    (row,) = faces_of(session, np.ascontiguousarray(portraits[name][top + 8 : bottom - 8, left + 8 : right - 8]))
    moved = row[5:].reshape(5, 2) + np.array([left + 8, top + 8])
    assert np.linalg.norm(moved - upright[5:].reshape(5, 2), axis=1).max() < 0.12 * (right - left)


def test_a_group_of_people_that_lies_on_its_side_is_found(session: Session, portraits: dict[str, Picture]) -> None:
    face = cv2.resize(portraits["astronaut"][:320, 80:400], (240, 240), interpolation=cv2.INTER_AREA)
    group = np.tile(np.asarray(face, np.uint8), (2, 3, 1))
    rows = faces_of(session, np.ascontiguousarray(np.rot90(group)))
    centres = (rows[:, :2] + rows[:, 2:4]) / 2 // 240
    assert {(int(x), int(y)) for x, y in centres} == {(x, y) for x in range(2) for y in range(3)}


def test_a_picture_gets_the_same_faces_alone_and_in_any_batch(session: Session, portraits: dict[str, Picture]) -> None:
    lying, *others = portraits.values()
    inputs = [canvas_of(picture) for picture in (np.ascontiguousarray(np.rot90(lying)), *others)]
    inputs.append((np.zeros((3, CANVAS, CANVAS), np.uint8), inputs[0][1]))
    alone = [session({"canvas": c[None], "geometry": g[None]})["faces"][0] for c, g in inputs]
    for order in ([0, 1, 2], [2, 1, 0, 1, 2], [2, 2]):
        batch = session(
            {"canvas": np.stack([inputs[i][0] for i in order]), "geometry": np.stack([inputs[i][1] for i in order])}
        )["faces"]
        for row, index in zip(batch, order, strict=True):
            np.testing.assert_allclose(row, alone[index], atol=0.05)


def test_points_come_back_in_source_pixels(session: Session, portraits: dict[str, Picture]) -> None:
    picture = portraits["astronaut"]
    (first,) = faces_of(session, picture)
    wide = np.full((512, 1024, 3), 90, np.uint8)
    wide[:, 300 : 300 + 512] = picture
    (moved,) = faces_of(session, wide)
    moved[[0, 2, 5, 7, 9, 11, 13]] -= 300
    assert np.abs(first[5:] - moved[5:]).max() < 5


def test_the_calibration_rises_and_keeps_its_corners() -> None:
    scores = torch.linspace(0, 1, 101)
    values = calibrated(scores)
    assert (values.diff() >= 0).all()
    torch.testing.assert_close(calibrated(torch.tensor(CELL_SCORES)), torch.tensor(CALIBRATED))
    assert float(values[0]) == 0


@pytest.mark.parametrize("fixed", [False, True])
def test_a_crop_is_what_the_canvas_shows_there(fixed: bool) -> None:
    # Levels that rise along both sides: a crop's pixels tell where they were read.
    y, x = np.mgrid[0:CANVAS, 0:CANVAS]
    canvas = torch.from_numpy(np.stack([x // 4, y // 4, np.full_like(x, 200)]).astype(np.uint8))[None]
    reduced = torch.nn.functional.interpolate(canvas.float(), size=(320, 320), mode="bilinear", align_corners=False)
    levels = Levels.of(canvas, reduced, 320)
    squares = torch.tensor(
        [[200.0, 300.0, 48.0, 1.0, 0.0], [256.0, 240.0, 400.0, 0.0, 1.0], [0.0, 0.0, 96.0, 1.0, 0.0]]
    )
    result = crops(levels, torch.zeros(3, dtype=torch.long), squares, 48, fixed) + GREY
    assert result.shape == (3, 3, 48, 48)
    assert float((result[0, 0] - (200 - 24 + torch.arange(48)) / 4).abs().max()) < 1
    # A quarter turn: along the crop's rows the canvas goes down, along its columns to the left.
    down = (240 - 200 + (torch.arange(48) + 0.5) / 48 * 400) / 4
    assert float((result[1, 1] - down).abs().max()) < 1.5
    assert float((result[2, :, :23, :23] - GREY).abs().max()) == 0


def folded(path: Path) -> onnx.ModelProto:
    """Return the published graph with its weights as float32: ONNX Runtime refuses blocks with one scale."""
    model = onnx.load(str(path))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type == "DequantizeLinear":
            numbers, scale, zero = (tensors[name].astype(np.float32) for name in node.input)
            if scale.ndim == 1 and numbers.ndim == 1 and scale.size not in (1, numbers.size):
                scale, zero = (np.repeat(part, -(-numbers.size // part.size))[: numbers.size] for part in (scale, zero))
            elif scale.ndim > 1:
                block = -(-numbers.shape[1] // scale.shape[1])
                scale, zero = (np.repeat(part, block, 1)[:, : numbers.shape[1]] for part in (scale, zero))
            value = (numbers - zero) * scale
            model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
            model.graph.node.remove(node)
    return model


def test_yunet_computes_what_the_published_graph_computes() -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # the file has initialisers that nothing uses
    source = folded(YUNET).SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 3, 640, 640)).astype(np.float32)
    names = [output.name for output in session.get_outputs()]
    published = dict(zip(names, session.run(None, {session.get_inputs()[0].name: pixels}), strict=True))
    with torch.no_grad():
        maps = YuNet.load(YUNET)(torch.from_numpy(pixels[:, ::-1].copy()))
    for stride, cells in zip(STRIDES, maps, strict=True):
        rows = cells[0].permute(1, 2, 0).reshape(-1, 16)
        for name, part in (("cls", rows[:, :1].sigmoid()), ("obj", rows[:, 5:6].sigmoid())):
            np.testing.assert_allclose(part.numpy(), published[f"{name}_{stride}"][0], atol=1e-4)
        for name, part in (("bbox", rows[:, 1:5]), ("kps", rows[:, 6:])):
            np.testing.assert_allclose(part.numpy(), published[f"{name}_{stride}"][0], atol=1e-3)


def test_files_that_are_not_yunet_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="make setup"):
        YuNet.load(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(NetworkError, match=r"text\.onnx"):
        YuNet.load(tmp_path / "text.onnx")
    model = onnx.load(str(YUNET))
    for tensor in model.graph.initializer:
        if tensor.name == "421":  # the first layer's bias
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(8, np.float32), "421"))
    onnx.save(model, tmp_path / "narrow.onnx")
    with pytest.raises(NetworkError, match="stem"):
        YuNet.load(tmp_path / "narrow.onnx")
