"""RetinaFace graphs against an independent computation: layers by name, decode and suppression in plain NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from export.errors import ExportError
from export.official.retinaface import RetinaFaceDetector
from export.session import Session
from export.stages.surgery import clean
from export.stages.trace import onnx_from_module
from networks.detector.contract import example_inputs
from networks.detector.reference import greedy_suppression
from tests.export.official import layouts


def raw(  # noqa: C901 (one network, written out from its first layer to its last)
    state: layouts.State, pixels: torch.Tensor, mobile: bool
) -> list[NDArray[np.float64]]:
    """Compute offsets, logits and points [10752, ...] of prepared pixels [1,3,512,512], in double precision."""
    w = {key: value.double() for key, value in state.items()}
    leaky = 0.1 if mobile else 0.0

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return F.batch_norm(x, mean, variance, w[f"{name}.weight"], w[f"{name}.bias"])

    def unit(x: torch.Tensor, name: str, slope: float | None, stride: int = 1) -> torch.Tensor:
        weight = w[f"{name}.0.weight"]
        y = norm(F.conv2d(x, weight, None, stride, weight.shape[-1] // 2), f"{name}.1")
        return y if slope is None else F.leaky_relu(y, slope)

    x = pixels.double()
    maps = []
    if mobile:
        x = unit(x, "body.stage1.0", 0.1, 2)
        for stage, steps, strided in ((1, range(1, 6), {2, 4}), (2, range(6), {0}), (3, range(2), {0})):
            for step in steps:
                name = f"body.stage{stage}.{step}"
                weight = w[f"{name}.0.weight"]
                x = F.conv2d(x, weight, None, 2 if step in strided else 1, 1, 1, weight.shape[0])
                x = F.leaky_relu(norm(x, f"{name}.1"), 0.1)
                x = F.leaky_relu(norm(F.conv2d(x, w[f"{name}.3.weight"]), f"{name}.4"), 0.1)
            maps.append(x)
    else:
        x = F.max_pool2d(F.relu(norm(F.conv2d(x, w["body.conv1.weight"], None, 2, 3), "body.bn1")), 3, 2, 1)
        for layer, blocks in enumerate((3, 4, 6, 3), 1):
            for block in range(blocks):
                name, stride = f"body.layer{layer}.{block}", 2 if block == 0 and layer > 1 else 1
                y = F.relu(norm(F.conv2d(x, w[f"{name}.conv1.weight"]), f"{name}.bn1"))
                y = F.relu(norm(F.conv2d(y, w[f"{name}.conv2.weight"], None, stride, 1), f"{name}.bn2"))
                y = norm(F.conv2d(y, w[f"{name}.conv3.weight"]), f"{name}.bn3")
                if block == 0:
                    x = norm(F.conv2d(x, w[f"{name}.downsample.0.weight"], None, stride), f"{name}.downsample.1")
                x = F.relu(x + y)
            if layer > 1:
                maps.append(x)
    fine, middle, coarse = (unit(x, f"fpn.output{i}", leaky) for i, x in enumerate(maps, 1))
    middle = unit(middle + coarse.repeat_interleave(2, 2).repeat_interleave(2, 3), "fpn.merge2", leaky)
    fine = unit(fine + middle.repeat_interleave(2, 2).repeat_interleave(2, 3), "fpn.merge1", leaky)
    features = []
    for index, x in enumerate((fine, middle, coarse), 1):
        five = unit(x, f"ssh{index}.conv5X5_1", leaky)
        seven = unit(unit(five, f"ssh{index}.conv7X7_2", leaky), f"ssh{index}.conv7x7_3", None)
        views = [unit(x, f"ssh{index}.conv3X3", None), unit(five, f"ssh{index}.conv5X5_2", None), seven]
        features.append(F.relu(torch.cat(views, 1)))
    results = []
    for head, size in (("BboxHead", 4), ("ClassHead", 2), ("LandmarkHead", 10)):
        rows = []
        for level, x in enumerate(features):
            y = F.conv2d(x, w[f"{head}.{level}.conv1x1.weight"], w[f"{head}.{level}.conv1x1.bias"])
            rows.append(y[0].permute(1, 2, 0).reshape(-1, size))
        results.append(torch.cat(rows).numpy())
    return results


def faces(
    offsets: NDArray[np.float64], logits: NDArray[np.float64], points: NDArray[np.float64], extra: float
) -> NDArray[np.float64]:
    """Decode with priors and variances, keep scores above 0.3, suppress greedily at 0.4: rows [n,15], canvas edges."""
    prior = []
    for step, sizes in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        for row in range(512 // step):
            for column in range(512 // step):
                prior += [((column + 0.5) * step / 512, (row + 0.5) * step / 512, size / 512) for size in sizes]
    p = np.array(prior)
    centre = p[:, :2] + offsets[:, :2] * 0.1 * p[:, 2:]
    size = p[:, 2:] * np.exp(offsets[:, 2:] * 0.2)
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 1) * 512
    marks = (np.tile(p[:, :2], 5) + points * 0.1 * p[:, 2:]) * 512
    score = np.exp(logits[:, 1]) / np.exp(logits).sum(1)
    order = np.argsort(-score, kind="stable")
    order = order[score[order] > 0.3][:128]
    kept = order[greedy_suppression(boxes[order], score[order], 0.4, "union", extra)][:64]
    return np.concatenate([boxes[kept], score[kept, None], marks[kept]], 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "mobile"),
    [
        ("retinaface_resnet50_2020-07-20_old_torch.pth", False),
        # The architecture of the first with the recipe of the last.
        pytest.param("Resnet50_Final.pth", False, marks=pytest.mark.soak),
        ("mobilenet0.25_Final.pth", True),
    ],
)
def test_the_graph_agrees_with_the_published_network_decode_and_suppression(
    tmp_path: Path, file: str, mobile: bool
) -> None:
    state = layouts.retinaface(mobile, seed=5)
    if "Final" in file:  # pixels are not scaled there: without this, random scores would all be 1
        state["body.stage1.0.0.weight" if mobile else "body.conv1.weight"] *= 0.02
    torch.save(
        {f"module.{key}": value for key, value in state.items()} if "Final" in file else state,
        tmp_path / file,
        _use_new_zipfile_serialization="Final" in file,
    )
    detector = RetinaFaceDetector.load(tmp_path / file)
    chance = np.random.default_rng(0)
    canvas = chance.integers(0, 256, (2, 3, 512, 512)).astype(np.uint8)
    canvas[1, :, :, 300:] = 127
    geometry = np.array([[1024, 1024, 2, 2, 1, 1], [600, 1024, 2, 2, 1, 1]], np.float32)
    graph = clean(onnx_from_module(detector, example_inputs(), ("canvas", "geometry"), ("faces",)))
    result = Session(graph)({"canvas": canvas, "geometry": geometry})["faces"]

    # The ResNet in double precision takes seconds a picture: the one with a border is enough for it.
    for index, width in ((0, 512), (1, 300)) if mobile else ((1, 300),):
        pixels = torch.from_numpy(canvas[index : index + 1]).double()
        if "Final" in file:
            pixels = pixels.flip(1) - torch.tensor([104.0, 117, 123]).reshape(1, 3, 1, 1)
        else:
            mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
            pixels = (pixels / 255 - mean.reshape(1, 3, 1, 1)) / deviation.reshape(1, 3, 1, 1)
        pixels[..., width:] = 0
        offsets, logits, points = raw(state, pixels, mobile)
        expected = faces(offsets, logits, points, extra=1.0 if "Final" in file else 0.0)
        expected[:, [0, 1, 2, 3, *range(5, 15)]] = expected[:, [0, 1, 2, 3, *range(5, 15)]] * 2 - 0.5
        assert len(expected) == 64, "random weights should fill every slot"
        np.testing.assert_allclose(result[index, :, 4], expected[:, 4], atol=1e-4)
        np.testing.assert_allclose(result[index], expected, rtol=1e-4, atol=2e-2)


def test_a_file_name_that_says_nothing_asks_for_the_recipe(tmp_path: Path) -> None:
    torch.save(layouts.retinaface(mobile=True), tmp_path / "mine.pth")
    with pytest.raises(ExportError, match=r"--recipe imagenet.*--recipe bgr-mean"):
        RetinaFaceDetector.load(tmp_path / "mine.pth")
    assert RetinaFaceDetector.load(tmp_path / "mine.pth", "bgr-mean").recipe.flip


def test_another_network_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    torch.save({"net_recon": layouts.net_recon()}, tmp_path / "Resnet50_Final.pth")
    with pytest.raises(ExportError, match=r"missing \(body\.conv1\.weight.*unexpected \(backbone\.conv1\.weight"):
        RetinaFaceDetector.load(tmp_path / "Resnet50_Final.pth")
