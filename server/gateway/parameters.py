"""The parameters that each ensemble takes, in one table, and how a value of each is read.

What is accepted here agrees with the models that read parameters: `preprocess` (picture_options.py), `align`
(face_options.py), `merge` (merge_options.py), `postprocess` (options.py) and `fusion` (fusion_options.py, consent.py);
a test holds that. The gateway reads them first because it can say at once, before a picture is decoded, what is wrong,
and because the models cannot see a name that is none of theirs.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from server.gateway import limits
from server.gateway.description import Value
from server.gateway.refusal import Refused, bad_option, no_consent, shown

# Numbers written as text, in plain ASCII digits; Python itself would also read "1_0" and digits of other scripts.
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: as clients write it.
        reads: whether a value can be meant; raises ValueError or returns False where it cannot.
        wanted: the end of the sentence "give ...".
    """

    name: str
    reads: Callable[[Value], bool]
    wanted: str


def _integer(value: Value) -> int:
    if isinstance(value, (bool, float)):
        raise ValueError
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise ValueError
    return int(value)


def _number(value: Value) -> float:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError
    return float(value)


def _share(value: Value) -> bool:
    return 0 <= _number(value) <= 1


def _cosine(value: Value) -> bool:
    return -1 <= _number(value) <= 1


def _likeness(value: Value) -> bool:
    return 0 <= _number(value) <= 2


def _index(value: Value) -> bool:
    return 0 <= _integer(value) < 2**31


def _strength(value: Value) -> bool:
    return 0 <= _number(value) <= 2


def _side(value: Value) -> bool:
    return 64 <= _integer(value) <= 4096


def _flag(value: Value) -> bool:
    return str(value).lower() in ("true", "false", "1", "0")


def _boolean(value: Value) -> bool:
    return isinstance(value, bool)


def _sequence(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**63


def _small_face(value: Value) -> bool:
    return 12 <= _number(value) <= 4096


def _frame_rate(value: Value) -> bool:
    return 1 <= _number(value) <= 240


def _smoothing(value: Value) -> bool:
    return 0 <= _number(value) <= 2


def _box(value: Value) -> bool:
    parts = value.split(",") if isinstance(value, str) else []
    if len(parts) != 4:
        return False
    x1, y1, x2, y2 = (_number(part.strip(" ")) for part in parts)
    return x2 > x1 and y2 > y1 and math.isfinite((x2 - x1) * (y2 - y1))


def _one_of(*words: str) -> Callable[[Value], bool]:
    return lambda value: isinstance(value, str) and value.lower() in words


def _statement(value: Value) -> bool:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return 0 < len(text) <= limits.MAX_CONSENT and all(map(_is_shown, text))


def _is_shown(character: str) -> bool:
    return unicodedata.category(character) not in _UNSHOWN and character not in _TURNING


def _microseconds(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


_CHOICE: Final = (
    Parameter("score_threshold", _share, "a number from 0 to 1"),
    Parameter("face", _index, "the index of a face, 0 for the best"),
    Parameter("box", _box, '"x1,y1,x2,y2" in pixels of the picture'),
)
_FILES: Final = (
    Parameter("white_balance", _flag, "true or false"),
    Parameter("sharpen", _share, "a number from 0 to 1"),
    Parameter("texture_format", _one_of("png", "jpeg"), "png or jpeg"),
    Parameter("texture_size", _side, "a whole number from 64 to 4096"),
    Parameter("mesh", _one_of("head", "face"), "head or face"),
    Parameter("rig", _one_of("none", "arkit"), "none or arkit"),
    Parameter("expression", _one_of("photo", "neutral"), "photo or neutral"),
    # The last two are from before `expression` was a parameter: canonical, and canonical without expression.
    Parameter("pose", _one_of("canonical", "camera", "head", "neutral"), "canonical or camera"),
    Parameter("likeness", _likeness, "a number from 0 to 2"),
)
# What is measured in one photograph, and so not for a head of several.
_SKIN: Final = (
    Parameter("upscale", _flag, "true or false"),
    Parameter("texture_light", _one_of("photo", "albedo"), "photo or albedo"),
    Parameter("detail", _strength, "a number from 0 to 2"),
    Parameter("glasses", _one_of("keep", "remove"), "keep or remove"),
    Parameter("hair", _one_of("skin", "paint"), "skin or paint"),
)
_FUSION: Final = (
    Parameter(
        "consent", _statement, f"a sentence of at most {limits.MAX_CONSENT} characters, all of which can be shown"
    ),
    Parameter("source_face", _index, "the index of a face, 0 for the best"),
    Parameter("target_face", _index, "the index of a face, 0 for the best"),
    Parameter("shape", _share, "a number from 0 (the target's) to 1 (the source's)"),
    Parameter("eyes", _one_of("target", "source"), "target or source"),
    Parameter("mouth", _one_of("target", "source"), "target or source"),
    Parameter("picture_format", _one_of("png", "jpeg"), "png or jpeg"),
    Parameter("quality_mode", _one_of("auto", "short", "long"), "auto, short or long"),
    Parameter("mark", _flag, "true or false"),
    Parameter("enhance", _flag, "true or false"),
)
_PERSON: Final = (
    Parameter("same_person", _cosine, "a number from -1 to 1"),
    Parameter("reference", _index, "the index of a photograph, 0 for the first"),
)
_CLIP: Final = (
    Parameter("frame_rate", _frame_rate, "a number from 1 to 240"),
    Parameter("smoothing", _smoothing, "a number from 0 to 2"),
)
_MIN_FACE: Final = Parameter("min_face", _small_face, "a number from 12 to 4096, in pixels of the picture")
# Triton's own, for the one model that keeps something from one request to the next. A random number of 63 bits is
# found by nobody, so that nobody's frames get into another one's clip.
_SEQUENCE: Final = (
    Parameter("sequence_id", _sequence, "a whole number from 1 to 9223372036854775807, a random one for each clip"),
    Parameter("sequence_start", _boolean, "true or false"),
    Parameter("sequence_end", _boolean, "true or false"),
)
# Triton's own, for every model: how long the client waits, for queues that may drop what nobody waits for.
_TIMEOUT: Final = Parameter("timeout", _microseconds, "a whole number of microseconds")

TABLE: Final[Mapping[str, tuple[Parameter, ...]]] = {
    "face3d": (*_CHOICE, *_FILES, *_SKIN),
    # `align` says of face and box that `choice` has chosen already.
    "reconstruct": (*_CHOICE, *_FILES, *_SKIN, _MIN_FACE),
    "detect": (),
    "group": (_MIN_FACE,),
    "embed": _CHOICE,
    "fuse": _FUSION,
    "track": (*_CHOICE, *_CLIP, *_SEQUENCE),
    # Which face is meant differs from photograph to photograph: each one's main face.
    "person": (_CHOICE[0], *_PERSON, *_FILES),
}
"""Ensemble -> its own parameters. A model that is not here takes none."""

# Triton's own parameters that no client needs, each with the reason that it is told.
_TRITON: Final = {
    "priority": "all requests are equal here",
    "sequence_id": "this model keeps nothing from one request to the next",
    "sequence_start": "this model keeps nothing from one request to the next",
    "sequence_end": "this model keeps nothing from one request to the next",
    "triton_enable_empty_final_response": "every request has one answer",
    "triton_final_response": "every request has one answer",
    "classification": "no output here is a list of classes",
    "binary_data_output": "it belongs to HTTP",
    "binary_data": "it belongs to an output of an HTTP request",
    "binary_data_size": "it belongs to a tensor of an HTTP request",
}
_REGION: Final = "shared_memory_"
# Models of which a sentence says that they have a parameter; one that most have needs no such advice.
_FEW: Final = 2
# Of Unicode: control characters, halves of pairs, characters without a meaning; those that turn the order of others.
_UNSHOWN: Final = frozenset({"Cc", "Cs", "Co", "Cn"})
_TURNING: Final = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def check_parameters(model: str, given: Mapping[str, Value]) -> None:
    """See that a request's parameters are known to the model and can be meant.

    Raises:
        Refused: ``BadOption`` with the name, what was given, and what may be; ``ConsentRequired``.
    """
    if len(given) > limits.MAX_PARAMETERS:
        raise bad_option(f"the request has {len(given)} parameters: {limits.MAX_PARAMETERS} are allowed.")
    if model == "fuse" and not str(given.get("consent", "")).strip():
        raise no_consent()
    own = {parameter.name: parameter for parameter in TABLE.get(model, ())}
    known = own | {_TIMEOUT.name: _TIMEOUT}
    for name, value in given.items():
        parameter = known.get(name)
        if parameter is None:
            raise unknown_parameter(model, name, own)
        try:
            good = parameter.reads(value)
        except (ValueError, OverflowError):
            good = False
        if not good:
            raise bad_option(f"`{name}` is {_said(value)}: give {parameter.wanted}.")
    if "sequence_id" in own and "sequence_id" not in given:
        raise bad_option(f"`{model}` takes the frames of a clip: give `sequence_id`, {own['sequence_id'].wanted}.")
    pose, expression = (str(given.get(name, "neutral")).lower() for name in ("pose", "expression"))
    if "pose" in given and pose == "neutral" != expression:
        raise bad_option(
            f'`pose` "neutral" means `expression` "neutral", but `expression` is "{expression}": give `pose` '
            '"canonical" or "camera".'
        )


def is_large(given: Mapping[str, Value]) -> bool:
    """Whether checked parameters ask for a picture so large that few such requests are worked on at a time."""
    return "min_face" in given or int(given.get("texture_size", 0)) > limits.LARGE_TEXTURE


def unknown_parameter(model: str, name: str, known: Iterable[str]) -> Refused:
    """The refusal of a parameter that the model does not have."""
    if reason := _TRITON.get(name):
        return bad_option(f"the parameter `{name}` is not taken ({reason}): leave it out.")
    if name.startswith(_REGION):
        return no_regions()
    names = list(known)
    takers = [f"`{other}`" for other, own in TABLE.items() if name in {parameter.name for parameter in own}]
    if 0 < len(takers) <= _FEW:
        return bad_option(f"`{model}` has no parameter `{name}`: it is one of {', '.join(takers)}.")
    return bad_option(f"`{model}` has no parameter `{shown(name)}`: {nearest(name, names, 'it takes')}")


def no_regions() -> Refused:
    """The refusal of a tensor in shared memory."""
    return bad_option("shared memory is not served here: send the tensor's bytes in the request.")


def nearest(name: str, names: Iterable[str], there: str = "there are") -> str:
    """The end of a sentence about an unknown name: ``did you mean `x`?``, or all names where none is near.

    Args:
        name: what the client wrote.
        names: what it may have meant.
        there: how the list of all begins.
    """
    known = list(names)
    close = difflib.get_close_matches(name[: limits.MAX_ID].lower(), known, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"{there} {', '.join(f'`{other}`' for other in known) or 'none'}."


def _said(value: Value) -> str:
    """A value with its type, so that 1 and "1" differ."""
    if isinstance(value, bool):
        return f"{str(value).lower()} (a boolean)"
    if isinstance(value, str):
        return f'"{shown(value)}" (a text)'
    return f"{shown(value)} (a {'whole ' if isinstance(value, int) else ''}number)"
