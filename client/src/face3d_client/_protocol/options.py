"""Options of a reconstruction: what may be asked for, and by which values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from face3d_client._detection import DetectedFace

__all__ = [
    "DEFAULT_OUTPUTS",
    "PERSON_OUTPUTS",
    "Expression",
    "Glasses",
    "Hair",
    "MeshKind",
    "Options",
    "Output",
    "PersonOptions",
    "Pose",
    "Rig",
    "TextureFormat",
    "TextureLight",
    "with_face",
]

Output: TypeAlias = Literal[
    "mesh",
    "texture",
    "preview",
    "vertices",
    "vertices_neutral",
    "landmarks",
    "landmarks_3d",
    "coefficients",
    "certainty",
    "visibility",
    "face",
    "camera",
    "warnings",
    "texture_warnings",
    "face_model",
]
"""What `outputs` may name. The server runs only the steps that these need: coefficients alone cost no texture."""

MeshKind: TypeAlias = Literal["head", "face"]
"""What `mesh` holds: the whole head with eyes, teeth and neck, or the front of it as one open sheet."""

Rig: TypeAlias = Literal["none", "arkit"]
"""Whether `mesh` has morph targets: none, or Apple's 52 face-tracking shapes by name."""

Expression: TypeAlias = Literal["photo", "neutral"]
"""The expression of `mesh`: as photographed, or none."""

Pose: TypeAlias = Literal["canonical", "camera", "head", "neutral"]
"""Which frame `mesh` is in: upright or as photographed. In this release ``"head"`` is another word for ``"canonical"``,
and ``"neutral"`` for ``"canonical"`` with expression ``"neutral"``."""

TextureFormat: TypeAlias = Literal["png", "jpeg"]

TextureLight: TypeAlias = Literal["photo", "albedo"]
"""The light on the texture: as photographed, or taken out, so that the head can be lit anew."""

Glasses: TypeAlias = Literal["keep", "remove"]
"""Glasses in the texture: as the photograph shows them, or left out."""

Hair: TypeAlias = Literal["skin", "paint"]
"""The scalp in the texture: bare skin, or painted with the hair that the photograph shows."""

# `texture` is left out because the mesh carries it; `preview` and `visibility` because few want them.
DEFAULT_OUTPUTS: Final[tuple[Output, ...]] = (
    "mesh",
    "vertices",
    "vertices_neutral",
    "landmarks",
    "landmarks_3d",
    "coefficients",
    "certainty",
    "face",
    "camera",
    "warnings",
    "texture_warnings",
    "face_model",
)


# What is said of one photograph's shape and texture is not of a head of several.
PERSON_OUTPUTS: Final = tuple(name for name in DEFAULT_OUTPUTS if name not in ("certainty", "texture_warnings"))


class Options(TypedDict, total=False):
    """What may be asked of a reconstruction. Left out or None means: as the server does by default.

    Attributes:
        outputs: names of what to compute and send. Default: everything but texture (which is inside the mesh), preview
            and visibility.
        face: which face: a number in the order of score (0 = best), or one that `detect` returned, which spares the
            server the detection. Left out: the main one, by size, place and score.
        box: x1, y1, x2, y2 in source pixels: the face that overlaps this most (at least 0.3 of the union).
        score_threshold: lowest score of a face, 0..1 (0.7).
        mesh: the whole head, or the face alone (``"head"``).
        rig: morph targets in `mesh` (``"none"``). With ``"arkit"`` the shape is without expression, and the
            photographed one is in the weights of the targets.
        expression: of `mesh` (``"photo"``).
        pose: frame of `mesh` (``"canonical"``).
        texture_size: side of the texture in pixels, 64..4096, as far as the photograph has the pixels for it, which a
            warning says. Left out: 1024, or 512 for a small face, without a warning.
        upscale: enhance a face of few pixels by a network; its texture is up to 1024 wide then (False).
        texture_light: light on the texture (``"photo"``).
        detail: strength of the skin's fine relief, a normal map in `mesh`, 0..2 (0: none).
        glasses: whether the texture keeps them (``"keep"``).
        hair: what the texture shows of the scalp (``"skin"``).
        texture_format: of `texture` and inside `mesh` (PNG for the former, JPEG for the latter, which makes it small).
        white_balance: grey-world white balance of the texture (False).
        sharpen: strength of the edge sharpening of the texture, 0..1 (0.3).
        likeness: how far the shape of `mesh` and `preview` goes from the mean head, 0..2: 1 is as measured, more a
            caricature, 0 the mean head (1).
        min_face: for `reconstruct_all`: look for faces as small as that, see `Face3DClient.detect`. With a face that
            `detect` returned: cut it out of the picture's own pixels, up to 12 megapixels of them. Such requests take
            turns.
    """

    outputs: Iterable[Output] | None
    face: int | DetectedFace | None
    min_face: float | None
    box: Sequence[float] | NDArray[np.float32] | None
    score_threshold: float | None
    mesh: MeshKind | None
    rig: Rig | None
    expression: Expression | None
    pose: Pose | None
    texture_size: int | None
    upscale: bool | None
    texture_light: TextureLight | None
    detail: float | None
    glasses: Glasses | None
    hair: Hair | None
    texture_format: TextureFormat | None
    white_balance: bool | None
    sharpen: float | None
    likeness: float | None


class PersonOptions(TypedDict, total=False):
    """What may be asked of a person: of `Options` what concerns the head and not the choice of a face, and these.

    Attributes:
        same_person: lowest mean cosine of a photograph's face with the others (0.25); -1 takes everybody.
        reference: the photograph whose expression and pose the head has, from 0 on. Left out: the best
            frontal one.
    """

    outputs: Iterable[Output] | None
    score_threshold: float | None
    same_person: float | None
    reference: int | None
    mesh: MeshKind | None
    rig: Rig | None
    expression: Expression | None
    pose: Pose | None
    texture_size: int | None
    texture_format: TextureFormat | None
    white_balance: bool | None
    sharpen: float | None
    likeness: float | None


def with_face(options: Options, face: DetectedFace) -> Options:
    """Copy the options, with `face` as the face to reconstruct."""
    chosen = options.copy()
    chosen["face"] = face
    return chosen
