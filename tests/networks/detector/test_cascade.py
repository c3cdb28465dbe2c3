"""The detector graph against the sequential cascade, the published code, and real photographs."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.models.detector import iou
from export.pictures import canvas_of
from export.reports import parity
from export.session import Session
from networks.detector import reference
from networks.detector.cascade import Detector
from networks.detector.mtcnn import PNet, load_networks
from networks.detector.weights import default_weights
from networks.errors import NetworkError

Pictures = dict[str, NDArray[np.uint8]]


def _faces(session: Session, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    canvas, geometry = canvas_of(picture)
    return np.asarray(session({"canvas": canvas[None], "geometry": geometry[None]})["faces"][0])


def _agreement(detector: Detector, session: Session, pictures: Pictures, on_canvas: bool = False) -> parity.Agreement:
    networks = (detector.p_net, detector.r_net, detector.o_net)

    def run(canvas: NDArray[np.uint8], geometry: NDArray[np.float32]) -> NDArray[np.float32]:
        return session({"canvas": canvas, "geometry": geometry})["faces"]

    return parity.compare(iter(pictures.items()), networks, run, on_canvas)


def test_graph_and_sequential_cascade_find_the_same_face_in_the_two_portraits(
    detector: Detector, detector_session: Session, portraits: Pictures
) -> None:
    agreement = _agreement(detector, detector_session, portraits)
    assert (agreement.faces, agreement.found, agreement.points, agreement.extra) == (2, 2, 2, 0)


def test_on_the_same_square_canvas_graph_and_sequential_cascade_agree_to_a_hundredth_of_a_pixel(
    detector: Detector, detector_session: Session, portraits: Pictures
) -> None:
    canvas, _ = canvas_of(portraits["astronaut"])
    sequential = reference.detect(
        canvas.transpose(1, 2, 0), (detector.p_net, detector.r_net, detector.o_net), min_face=20.0
    )
    graph = _faces(detector_session, portraits["astronaut"])
    np.testing.assert_allclose(graph[: len(sequential)], sequential, atol=0.01)


@pytest.mark.slow
def test_on_real_photographs_97_percent_of_the_faces_are_the_same(
    detector: Detector, detector_session: Session, photographs: Pictures
) -> None:
    agreement = _agreement(detector, detector_session, photographs)
    assert agreement.faces >= len(photographs) * 0.9
    assert agreement.rate >= 0.97, agreement.missed
    assert agreement.points >= 0.97 * agreement.found


def test_many_faces_in_one_picture_fill_the_slots_best_first(
    detector: Detector, detector_session: Session, portraits: Pictures
) -> None:
    face = portraits["astronaut"][:320, 80:400]
    picture = np.tile(face, (3, 3, 1))
    faces = _faces(detector_session, picture)
    scores = faces[:, 4]
    assert (scores >= 0.7).sum() == 9
    assert (np.diff(scores) <= 0).all()
    centres = (faces[:9, :2] + faces[:9, 2:4]) / 2 // 320
    assert len({(int(x), int(y)) for x, y in centres}) == 9


def test_a_picture_without_a_face_gives_only_empty_slots(detector_session: Session) -> None:
    chance = np.random.default_rng(0)
    noise = chance.integers(0, 256, (300, 400, 3)).astype(np.uint8)
    for picture in (np.zeros((200, 300, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8), noise):
        faces = _faces(detector_session, picture)
        assert faces.shape == (64, 15)
        assert not (faces[:, 4] >= 0.7).any()
        assert np.count_nonzero(faces[faces[:, 4] == 0]) == 0


def test_a_picture_gets_the_same_faces_alone_and_in_any_batch(detector_session: Session, portraits: Pictures) -> None:
    inputs = [canvas_of(portraits["astronaut"]), canvas_of(portraits["grace_hopper"])]
    inputs.append((np.zeros((3, 512, 512), np.uint8), inputs[0][1]))
    alone = [detector_session({"canvas": c[None], "geometry": g[None]})["faces"][0] for c, g in inputs]
    for order in ([0, 1, 2], [2, 1, 0, 1, 2]):
        batch = detector_session(
            {"canvas": np.stack([inputs[i][0] for i in order]), "geometry": np.stack([inputs[i][1] for i in order])}
        )["faces"]
        for row, index in zip(batch, order, strict=True):
            np.testing.assert_allclose(row, alone[index], atol=0.05)


def test_faces_come_back_in_source_pixels_whatever_the_size_and_shape_of_the_picture(
    detector_session: Session, portraits: Pictures
) -> None:
    picture = portraits["astronaut"]
    first = _faces(detector_session, picture)[0]
    wide = np.full((512, 1024, 3), 90, np.uint8)
    wide[:, 300 : 300 + 512] = picture
    moved = _faces(detector_session, wide)[0]
    moved[[0, 2, 5, 7, 9, 11, 13]] -= 300
    small = _faces(detector_session, picture[::2, ::2])[0]
    small[[*range(4), *range(5, 15)]] = (small[[*range(4), *range(5, 15)]] + 0.5) * 2 - 0.5
    for other in (moved, small):
        assert iou(first[:4], other[None, :4])[0] > 0.8
        assert np.abs(first[5:] - other[5:]).max() < 5


def test_points_are_where_eyes_nose_and_mouth_are(detector_session: Session, portraits: Pictures) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = _faces(detector_session, portraits["astronaut"])[
        0, 5:
    ].reshape(5, 2)
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_the_sequential_cascade_is_what_facenet_pytorch_computes(
    detector: Detector, portraits: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare with the published implementation, in which only torchvision's suppression is replaced."""
    package = default_weights().parents[1]
    if not (package / "facenet_pytorch" / "models" / "mtcnn.py").is_file():
        pytest.skip("facenet-pytorch is not unpacked in .tools/wheels: run `make setup`")

    def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, threshold: float) -> torch.Tensor:
        assert int(groups.sum()) == 0, "one picture at a time"
        return torch.tensor(greedy_suppression(boxes.numpy(), scores.numpy(), threshold), dtype=torch.int64)

    greedy_suppression = reference.greedy_suppression
    for name in ("torchvision", "torchvision.transforms", "torchvision.ops", "torchvision.ops.boxes"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["torchvision.transforms"].functional = None  # type: ignore[attr-defined]
    sys.modules["torchvision.ops.boxes"].batched_nms = batched_nms  # type: ignore[attr-defined]
    published = _published_cascade(package)

    picture = portraits["grace_hopper"]
    # Its own networks take normalised pixels; ours have the normalisation in them.
    networks = [_normalised(net) for net in (detector.p_net, detector.r_net, detector.o_net)]
    with torch.no_grad():
        boxes, points = published.detect_face(picture, 40, *networks, [0.6, 0.7, 0.7], 0.709, "cpu")
    sequential = reference.detect(picture, (detector.p_net, detector.r_net, detector.o_net), min_face=40.0)
    # Published boxes count pixels from 1, published points from 0.
    np.testing.assert_allclose(sequential[:, :4], np.asarray(boxes[0], np.float32)[:, :4] - 1, atol=0.01)
    np.testing.assert_allclose(sequential[:, 5:], np.asarray(points[0], np.float32).reshape(-1, 10), atol=0.01)


def _published_cascade(package: Path) -> types.ModuleType:
    source = package / "facenet_pytorch" / "models" / "utils" / "detect_face.py"
    module = types.ModuleType("published_detect_face")
    exec(compile(source.read_text(), str(source), "exec"), module.__dict__)
    return module


def _normalised(network: torch.nn.Module) -> torch.nn.Module:
    """Undo the folded normalisation and give the outputs in the published order and form."""

    class Published(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            output = self.network(x * 128.0 + 0.5)
            if isinstance(self.network, PNet):
                probability, rest = torch.sigmoid(output[:, 0]), (output[:, 1:],)
            else:
                probability, *rest = output
            return (*rest, torch.stack([1 - probability, probability], 1))

    return Published()


def test_a_missing_damaged_or_wrong_weight_file_is_named_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"pnet\.pt are not there: `make setup`"):
        load_networks(tmp_path)
    (tmp_path / "pnet.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(NetworkError, match=r"pnet\.pt does not hold the weights of PNet"):
        load_networks(tmp_path)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "pnet.pt")
    with pytest.raises(NetworkError, match="PNet"):
        PNet.load(tmp_path / "pnet.pt")


def test_pickled_code_in_a_weight_file_is_never_run(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "executed"),))  # type: ignore[return-value]

    torch.save({"conv1.weight": Malicious()}, tmp_path / "pnet.pt")
    with pytest.raises(NetworkError):
        PNet.load(tmp_path / "pnet.pt")
    assert not (tmp_path / "executed").exists()
