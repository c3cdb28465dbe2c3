"""The regressor: a ResNet50 with seven heads (HRN / Deep3DFaceRecon) and the face model's decoder in the same graph.

State-dict names are those of the family's ``net_recon`` (``backbone.*``, ``final_layers.0..6.*``), so the same code
reads the default weights and the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from networks.camera import CROP, project, rotation
from networks.certainty import GROUPS, Certainty
from networks.face_model import COEFFICIENTS
from networks.head_model import AnyFaceModel
from networks.identity_correction import IdentityCorrection, returned
from networks.mode_blocks import mode_blocks

# Sizes of the seven heads in file order; the last two (tx ty, tz) together are the translation.
HEADS = (80, 64, 80, 3, 27, 2, 1)
# The four stages of ResNet50: channels inside a bottleneck (a fourth of what leaves it), blocks, stride of the first.
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
DECIMETRE_IN_MM = 100.0


class Bottleneck(nn.Module):
    """ResNet v1.5 bottleneck: (B, channels, H, W) -> (B, 4 planes, H / stride, W / stride).

    Args:
        channels: of the input.
        planes: a fourth of the output's channels.
        stride: of the 3x3 convolution.
        inner: channels of the 3x3 convolution; ``planes`` unless some were pruned.
    """

    def __init__(self, channels: int, planes: int, stride: int = 1, inner: int | None = None) -> None:
        super().__init__()
        inner = inner or planes
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != planes * 4:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, planes * 4, 1, stride, bias=False), nn.BatchNorm2d(planes * 4)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the block's output (B, 4 planes, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Backbone(nn.Module):
    """ResNet50 without its classifier: (B, 3, H, W) -> (B, 2048, 1, 1).

    Args:
        inner: channels of each bottleneck's 3x3 convolution, in order; None: those of ResNet50.
    """

    def __init__(self, inner: Sequence[int] | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths = iter(inner or [planes for planes, blocks, _ in STAGES for _ in range(blocks)])
        channels = 64
        for index, (planes, blocks, stride) in enumerate(STAGES, 1):
            layer = []
            for block in range(blocks):
                layer.append(Bottleneck(channels, planes, stride if block == 0 else 1, next(widths)))
                channels = planes * 4
            setattr(self, f"layer{index}", nn.Sequential(*layer))

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Compute the five feature maps after the stem and each layer (for the texture network's perceptual loss)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        maps = [x]
        for index in range(1, 5):
            x = getattr(self, f"layer{index}")(x)
            maps.append(x)
        return maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the mean of the last feature map: (B, 3, H, W) -> (B, 2048, 1, 1)."""
        return self.stages(x)[-1].mean((2, 3), keepdim=True)


class ReconstructionNet(nn.Module):
    """``net_recon``: RGB 0..1 (B, 3, S, S) -> coefficients (B, 257).

    Args:
        window: side of the feature map that the heads read. 1: its average, as in the family. S / 32: all of it, each
            position with weights of its own, so that the heads see where a feature is.
        inner: see `Backbone`.
    """

    def __init__(self, window: int = 1, inner: Sequence[int] | None = None) -> None:
        super().__init__()
        self.window = window
        self.backbone = Backbone(inner)
        self.final_layers = nn.ModuleList(nn.Conv2d(2048, size, window) for size in HEADS)
        for parameter in self.final_layers.parameters():
            nn.init.zeros_(parameter)

    def forward(self, picture: torch.Tensor, with_features: bool = False) -> Any:
        """Regress coefficients (B, 257) from RGB 0..1 (B, 3, S, S).

        Args:
            picture: see above.
            with_features: also return what the heads have read, (B, 2048, window, window).
        """
        features = self.backbone(picture) if self.window == 1 else self.backbone.stages(picture)[-1]
        coefficients = torch.cat([head(features) for head in self.final_layers], 1).flatten(1)
        return (coefficients, features) if with_features else coefficients

    def load_averaging(self, state: dict[str, torch.Tensor]) -> None:
        """Load weights whose heads read the average (window 1) into heads of this window, keeping the function."""
        spread = {
            key: value.expand(-1, -1, self.window, self.window) / self.window**2
            if key.startswith("final_layers") and key.endswith("weight")
            else value
            for key, value in state.items()
        }
        self.load_state_dict(spread)

    def load_resized(self, state: dict[str, torch.Tensor]) -> None:
        """Load weights whose heads read a map of another size: nearly the same function of a larger picture."""
        resized = {
            key: nn.functional.interpolate(value, (self.window, self.window), mode="bilinear", align_corners=False)
            * (value.shape[-1] / self.window) ** 2
            if key.startswith("final_layers") and key.endswith("weight")
            else value
            for key, value in state.items()
        }
        self.load_state_dict(resized)


class Decoded(NamedTuple):
    """Shapes decoded from coefficients, (B, N, 3) decimetres each.

    Attributes:
        posed: camera frame, rotated and translated, with expression.
        head: head frame, with expression.
        neutral: head frame, without expression.
    """

    posed: torch.Tensor
    head: torch.Tensor
    neutral: torch.Tensor


class FaceDecoder(nn.Module):
    """The face model as a layer: coefficients (B, 257) -> posed, expressive and neutral shapes (B, N, 3).

    Args:
        model: the face model.
        only: the vertices (N,) to decode; None for all of them.
    """

    mean: torch.Tensor
    identity: torch.Tensor

    def __init__(self, model: AnyFaceModel, only: NDArray[np.integer[Any]] | None = None) -> None:
        super().__init__()
        mean, identity, expression = model.mean, model.identity, model.expression
        if only is not None:
            mean, identity, expression = mean[only], identity[:, only], expression[:, only]
        self.vertices = len(mean)
        self.register_buffer("mean", torch.from_numpy(mean.reshape(1, -1).copy()))
        self.register_buffer("identity", torch.from_numpy(identity.reshape(80, -1).copy()))
        blocks = mode_blocks(expression)
        self.modes = [block.modes.tolist() for block in blocks]
        self.expressions = nn.ParameterList(
            torch.from_numpy(expression[block.modes, block.start : block.stop].reshape(len(block.modes), -1))
            for block in blocks
        ).requires_grad_(False)

    def forward(self, coefficients: torch.Tensor) -> Decoded:
        """Decode coefficients (B, 257): shape = mean + identity + expression, then rotation and translation."""
        neutral = self.mean + coefficients[:, COEFFICIENTS["identity"]] @ self.identity
        weights = coefficients[:, COEFFICIENTS["expression"]]
        head = neutral + torch.cat([weights[:, m] @ e for m, e in zip(self.modes, self.expressions, strict=True)], 1)
        neutral, head = neutral.view(-1, self.vertices, 3), head.view(-1, self.vertices, 3)
        rotations = rotation(coefficients[:, COEFFICIENTS["angle"]])
        # Written out for each vertex: ONNX Runtime adds three numbers to rows of three a row at a time.
        posed = head @ rotations + coefficients[:, None, COEFFICIENTS["translation"]].expand_as(head)
        return Decoded(posed, head, neutral)


class Regressor(nn.Module):
    """The exported module: crop and camera -> coefficients, shapes and landmarks.

    Inputs:
        crop: (B, 3, 224, 224) uint8 RGB.
        context: (B, 23) float32, 15 numbers of the face and 8 of the camera (see `ARCHITECTURE.md`, tensor table).

    Outputs, in the order of ``OUTPUTS``, float32 unless noted:
        shapes (B, 3, N, 3) dm: posed, head frame with expression, head frame neutral; fingerprint (B, 1) int64;
        coefficients (B, 257); vertices (B, N, 3) mm, posed; vertices_neutral (B, N, 3) mm; landmarks (B, 68, 2)
        source pixels; landmarks_3d (B, 68, 3) mm, posed; face_model (B, 1) int64, the fingerprint for clients;
        expression (B, 64), those of the coefficients, for the step that writes files; certainty (B, 4), one over the
        errors that the network expects of itself (`networks.certainty.GROUPS`), 0 where its weights do not say.
    """

    OUTPUTS = (
        "shapes",
        "fingerprint",
        "coefficients",
        "vertices",
        "vertices_neutral",
        "landmarks",
        "landmarks_3d",
        "face_model",
        "expression",
        "certainty",
    )
    landmark_index: torch.Tensor
    fingerprint: torch.Tensor

    def __init__(
        self,
        net: nn.Module,
        model: AnyFaceModel,
        resolution: int = CROP,
        certainty: Certainty | None = None,
        correction: IdentityCorrection | None = None,
    ) -> None:
        """Join the parts; ``certainty`` needs a `ReconstructionNet`."""
        super().__init__()
        self.net = net
        self.correction = correction
        self.certainty = certainty
        if certainty is not None:
            assert isinstance(net, ReconstructionNet)
            self.components = certainty.head(net.window)
        self.downscale = CROP // resolution
        self.decoder = FaceDecoder(model)
        if correction is not None:
            self.landmark_decoder = FaceDecoder(model, model.landmarks)
        self.register_buffer("landmark_index", torch.from_numpy(model.landmarks.astype("int64")))
        self.register_buffer("fingerprint", torch.tensor([[model.fingerprint]], dtype=torch.int64))

    @classmethod
    def load(cls, weights: Path, model: AnyFaceModel) -> Regressor:
        """Read ``net_recon`` weights (safetensors, any float type) strictly.

        The module halves the crop for weights that were trained so (`trained_resolution`), says how sure it is and
        corrects the identity where the files of that lie beside and belong to these weights (`Certainty.beside`,
        `IdentityCorrection.beside`).

        Raises:
            OSError, SafetensorError, RuntimeError, NetworkError: a file is missing, damaged, or of another network.
        """
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()}
        net = ReconstructionNet(window_of(state), inner_of(state))
        net.load_state_dict(state)
        correction = IdentityCorrection.beside(weights, model.fingerprint)
        return cls(net, model, trained_resolution(weights), Certainty.beside(weights), correction).eval()

    def picture(self, crop: torch.Tensor) -> torch.Tensor:
        """Scale the crop for the network: uint8 (B, 3, 224, 224) -> float 0..1 (B, 3, S, S) at its resolution S."""
        scaled = crop.float() / 255.0
        return scaled if self.downscale == 1 else nn.functional.avg_pool2d(scaled, self.downscale)

    def forward(self, crop: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the outputs in the order of ``OUTPUTS``; see the class for shapes, types and units."""
        coefficients, certainty = self.regress(self.picture(crop))
        if self.correction is not None:
            coefficients = self.corrected(self.correction, coefficients, crop, context)
        decoded = self.decoder(coefficients)
        posed_landmarks = decoded.posed[:, self.landmark_index]
        # context[15:19] = scale x, scale y, origin x, origin y of the 224 px crop in source pixels
        landmarks = project(posed_landmarks) * context[:, None, 15:17] + context[:, None, 17:19]
        fingerprint = self.fingerprint.expand(crop.shape[0], 1)
        return (
            torch.stack([decoded.posed, decoded.head, decoded.neutral], 1),
            fingerprint,
            coefficients * 1.0,
            decoded.posed * DECIMETRE_IN_MM,
            decoded.neutral * DECIMETRE_IN_MM,
            landmarks,
            posed_landmarks * DECIMETRE_IN_MM,
            fingerprint * 1,
            coefficients[:, COEFFICIENTS["expression"]] * 1.0,
            certainty,
        )

    def corrected(
        self, correction: IdentityCorrection, coefficients: torch.Tensor, crop: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        """Correct the identity in coefficients (B, 257); the head moves so that its landmarks stay where they are seen.

        Args:
            correction: of the identity.
            coefficients: of the network.
            crop, context: of `forward`.
        """
        points = (context[:, 5:15].reshape(-1, 5, 2) - context[:, None, 17:19]) / context[:, None, 15:17]
        parts = list(coefficients.split([80, 64, 110, 3], 1))
        identity, translation = correction(crop.float(), points, parts[0]), parts[3]
        before = self.landmark_decoder(coefficients).posed
        moved = self.landmark_decoder(torch.cat([identity, *parts[1:]], 1)).posed
        return torch.cat([identity, *parts[1:3], translation + returned(moved, before)], 1)

    def regress(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Regress coefficients (B, 257) and certainty (B, 4) from RGB 0..1 (B, 3, S, S)."""
        if self.certainty is None:
            coefficients = self.net(picture)
            return coefficients, coefficients[:, : len(GROUPS)] * 0.0
        coefficients, features = self.net(picture, True)
        return coefficients, self.certainty.of(self.components(features).flatten(1))


def window_of(state: dict[str, torch.Tensor]) -> int:
    """Return the ``window`` of `ReconstructionNet` for a state dict; 1 where its heads are missing."""
    heads = state.get("final_layers.0.weight")
    return 1 if heads is None or heads.ndim != 4 else int(heads.shape[-1])


def inner_of(state: dict[str, torch.Tensor]) -> list[int]:
    """Return ``inner`` of `Backbone` for a state dict: fewer channels than ResNet50's where `training.prune` cut some.

    A missing bottleneck counts as unpruned; strict loading then names what is missing.
    """
    widths = []
    for layer, (planes, blocks, _) in enumerate(STAGES, 1):
        for block in range(blocks):
            weight = state.get(f"backbone.layer{layer}.{block}.conv1.weight")
            widths.append(planes if weight is None or weight.ndim != 4 else int(weight.shape[0]))
    return widths


def trained_resolution(weights: Path) -> int:
    """Return the side in pixels of the network's input, from the file's metadata: 224 unless it names another.

    Weights trained at 112 take a quarter of the arithmetic: the graph halves the crop before the network.
    """
    with safe_open(weights, "pt") as file:
        return int((file.metadata() or {}).get("resolution", CROP))


def example_inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a black crop uint8 [B, 3, 224, 224] and a context float32 [B, 23], to trace with."""
    context = torch.zeros(batch, 23)
    context[:, 15:17] = 1.0
    return torch.zeros(batch, 3, CROP, CROP, dtype=torch.uint8), context
