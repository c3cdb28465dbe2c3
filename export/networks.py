"""The three networks of the repository: how each is loaded, traced, fed and compared.

A `Network` is all that the rest of `export/` knows of one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from torch import Tensor, nn

from export.errors import ExportError
from export.graph import onnx_from_module
from export.official import checkpoint
from export.official.recon import load_regressor
from export.official.retinaface import RetinaFaceDetector
from export.samples import Sample
from export.session import Feed
from export.surgery import VERTICES, clean
from networks.detector.cascade import Detector
from networks.detector.cascade import example_inputs as detector_inputs
from networks.detector.weights import SCREEN, default_weights
from networks.face_model import FaceModel
from networks.regressor import ReconstructionNet, Regressor, inner_of, trained_resolution, window_of
from networks.regressor import example_inputs as regressor_inputs
from networks.texture import TextureNet, UNet
from networks.texture import example_inputs as texture_inputs

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "weights"
FACE_MODEL = WEIGHTS / "face_model.npz"
Loaded = tuple[nn.Module, tuple[Tensor, ...]]
Loader = Callable[[Path | None, FaceModel | None, str | None, bool], Loaded]


@dataclass(frozen=True)
class Network:
    """One of `detector`, `regressor`, `texture`.

    Attributes:
        name: of the model in the repository.
        weights: where the default weights are.
        beside: files that the graph is made of as well, whatever the weights.
        inputs, outputs: names by the contract, in the order of the module's arguments and results.
        load: weights, face model, recipe of the pixels, and whether every size inside has to be fixed -> module and
            example inputs.
        inner: names of what the module gives behind the outputs, by which a graph can be cut; it may give fewer.
        open_axes: output -> axis over the vertices, which the configuration leaves open.
        free_inputs: the same for inputs: input -> axis -> name of the axis.
        feed: a sample (and the regressor's result for it) -> the network's inputs.
        needs_face_model: whether the graph holds a face model.
    """

    name: str
    weights: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    load: Loader
    feed: Callable[[Sample, Feed], Feed]
    beside: tuple[Path, ...] = ()
    inner: tuple[str, ...] = ()
    open_axes: Mapping[str, int] = field(default_factory=dict)
    free_inputs: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    needs_face_model: bool = True

    def traced(
        self, weights: Path | None, face_model: FaceModel | None, recipe: str | None = None, fixed: bool = False
    ) -> onnx.ModelProto:
        """The graph as the tracer writes it, without surgery."""
        module, example = self.load(weights, face_model, recipe, fixed)
        return onnx_from_module(module, example, self.inputs, self.outputs, self.free_inputs, self.inner)

    def cleaned(self, traced: onnx.ModelProto) -> onnx.ModelProto:
        """The graph after surgery."""
        return clean(traced, self.open_axes)


def _load_detector(weights: Path | None, _face_model: FaceModel | None, recipe: str | None, fixed: bool) -> Loaded:
    """A folder holds MTCNN's three files; a file is a RetinaFace checkpoint, whose graph's sizes are always fixed."""
    path = weights or default_weights()
    if path.is_file():
        return RetinaFaceDetector.load(path, recipe), detector_inputs()
    return Detector.load(path, fixed), detector_inputs()


def _load_regressor(weights: Path | None, face_model: FaceModel | None, _recipe: str | None, _fixed: bool) -> Loaded:
    """The default weights are safetensors; everything else is a published checkpoint."""
    assert face_model is not None
    if weights is None and not belongs_to_built_in(face_model):
        raise ExportError(
            f"The default regressor belongs to the built-in face model, not to '{face_model.name}': name those weights "
            "that do with --weights."
        )
    path = weights or WEIGHTS / "regressor.safetensors"
    if path.suffix != ".safetensors":
        return load_regressor(path, face_model), regressor_inputs()
    state = checkpoint.state_dict(checkpoint.read(path), path)
    network = ReconstructionNet(window_of(state), inner_of(state))
    checkpoint.load_strictly(network, state, path)
    return Regressor(network, face_model, trained_resolution(path)).eval(), regressor_inputs()


def _load_texture(weights: Path | None, face_model: FaceModel | None, _recipe: str | None, _fixed: bool) -> Loaded:
    """The network belongs to the built-in UV layout; for another one the graph samples and fills without it."""
    assert face_model is not None
    path = weights or WEIGHTS / "texture.safetensors"
    count = len(face_model.mean)
    sampler = TextureNet(face_model, None)
    if belongs_to_built_in(face_model):
        sampler.unet = UNet()
        checkpoint.load_strictly(sampler.unet, checkpoint.state_dict(checkpoint.read(path), path), path)
    return _FirstVertices(sampler.eval(), count), texture_inputs(count)


class _FirstVertices(nn.Module):
    """Lets the texture network take shapes with more rows than its face model has vertices.

    A model is warmed up with a sample whose size stands in its configuration, and the configuration serves any face
    model; so the sample has room for the largest one.
    """

    def __init__(self, network: TextureNet, count: int) -> None:
        super().__init__()
        self.network, self.count = network, count

    def forward(self, crop_hd: Tensor, shapes: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = self.network(crop_hd, shapes[:, :, : self.count], context, inner=True)
        return results


def belongs_to_built_in(face_model: FaceModel) -> bool:
    """Whether a face model has the UV layout that the texture network was trained on: the built-in one's."""
    return FACE_MODEL.is_file() and FaceModel.load(FACE_MODEL).fingerprint == face_model.fingerprint


NETWORKS = {
    "detector": Network(
        name="detector",
        weights=default_weights(),
        inputs=Detector.INPUTS,
        outputs=Detector.OUTPUTS,
        load=_load_detector,
        feed=lambda sample, _shapes: {"canvas": sample.canvas, "geometry": sample.geometry},
        beside=(SCREEN,),
        needs_face_model=False,
    ),
    "regressor": Network(
        name="regressor",
        weights=WEIGHTS / "regressor.safetensors",
        inputs=("crop", "context"),
        outputs=(
            "shapes",
            "fingerprint",
            "coefficients",
            "vertices",
            "vertices_neutral",
            "landmarks",
            "landmarks_3d",
            "face_model",
        ),
        load=_load_regressor,
        feed=lambda sample, _shapes: {"crop": sample.crop, "context": sample.context},
        open_axes={"shapes": 2, "vertices": 1, "vertices_neutral": 1},
    ),
    "texture": Network(
        name="texture",
        weights=WEIGHTS / "texture.safetensors",
        inputs=("crop_hd", "shapes", "context"),
        outputs=TextureNet.OUTPUTS,
        inner=TextureNet.INNER,
        load=_load_texture,
        feed=lambda sample, shapes: {
            "crop_hd": sample.crop_hd,
            "shapes": shapes["shapes"],
            "context": sample.context,
        },
        free_inputs={"shapes": {2: VERTICES}},
    ),
}
