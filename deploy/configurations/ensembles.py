"""face3d, reconstruct, detect, group, embed, person, track, fuse: one list of steps; each takes what it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deploy.configurations.networks import CERTAINTY
from deploy.configurations.pbtxt import VERSION_POLICY, Step, Tensor, comment, tensors


@dataclass(frozen=True)
class Ensemble:
    """An ensemble: what goes in and out, and its steps in the order of the chain.

    Attributes:
        title, batch_reason, steps_reason: the comments above name, `max_batch_size` and steps.
    """

    name: str
    title: str
    batch: int
    batch_reason: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    steps_reason: str = ""


def same(*names: str) -> dict[str, str]:
    """Map tensors to tensors of the same name."""
    return {name: name for name in names}


IMAGE = Tensor("image", "STRING", (1,), "The bytes of a JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF file.")
CHOICE = Tensor("choice", "FP32", (15,), "A row of what `detect` returned. Not called `face`: that is an output.")

PREPROCESS = Step("preprocess", same("image"), same("picture", "geometry", "canvas"))
DETECT = Step("detector", same("canvas", "geometry"), same("faces"))
ALIGN = Step(
    "align",
    same("picture", "geometry", "faces"),
    same("crop", "crop_hd", "context", "face", "camera", "warnings", "close_up", "close_up_camera"),
)
REGRESS = Step(
    "regressor",
    same("crop", "context"),
    same(
        *("shapes", "fingerprint", "coefficients", "vertices", "vertices_neutral", "landmarks", "landmarks_3d"),
        *("face_model", "expression", "certainty"),
    ),
)
PARSE = Step("parser", same("crop", "fingerprint"), same("parts"))
PAINT = Step(
    "texture",
    same("crop_hd", "shapes", "context", "parts"),
    {"texture": "raw_texture", **same("places")},
)
MESH = Step(
    "postprocess",
    {
        "texture": "raw_texture",
        **same("crop_hd", "shapes", "fingerprint", "expression", "context"),
        **same("places", "parts", "close_up", "close_up_camera"),
    },
    same("mesh", "mesh_done", "texture_warnings"),
    comment=(
        "One step for each file: Triton leaves out steps that nobody needs, but within a step it asks for everything.\n"
        "Hence no step gives what only few requests need: three megabytes of a finished texture, one of visibility."
    ),
)
VISIBILITY = Step(
    "postprocess", same("places", "mesh_done"), {"visibility": "visibility", "mesh_done": "visibility_done"}
)
IMAGE_FILE = Step(
    "postprocess",
    {**MESH.inputs, "mesh_done": "visibility_done"},
    {"texture_image": "texture", "thumbnail": "thumbnail"},
)
PREVIEW = Step(
    "postprocess",
    same("thumbnail", "crop_hd", "shapes", "fingerprint", "expression", "context"),
    same("preview"),
)

FACE3D = Ensemble(
    name="face3d",
    title=(
        "A photograph -> a textured 3D face, for the main face in it (or the one that the request's parameters "
        "name).\nSteps that the requested outputs do not need do not run; for that, no tensor may both leave and "
        "feed a step."
    ),
    batch=4,
    batch_reason="The smallest of its steps'. Most requests hold one picture; batches are made inside, at each step.",
    inputs=(IMAGE,),
    outputs=(
        Tensor("face", "FP32", (15,), "Box, score and five points of the face, source pixels."),
        Tensor("camera", "FP32", (8,), "Crop pixel -> source pixel, for both crops: sx, sy, ox, oy."),
        Tensor("warnings", "STRING", (-1,), "What is doubtful about the picture, one sentence each; often none."),
        Tensor(
            "coefficients",
            "FP32",
            (257,),
            "Identity 80, expression 64, albedo 80, angles 3 (radians), light 27, translation 3 (decimetres).",
        ),
        Tensor("vertices", "FP32", (-1, 3), "Millimetres; as in the picture, and upright without expression."),
        Tensor("vertices_neutral", "FP32", (-1, 3)),
        Tensor(
            "landmarks",
            "FP32",
            (68, 2),
            "The 68 landmarks in source pixels, and in millimetres in the frame of `vertices`.",
        ),
        Tensor("landmarks_3d", "FP32", (68, 3)),
        Tensor("face_model", "INT64", (1,), "Fingerprint of the face model that the vertices belong to."),
        CERTAINTY,
        Tensor("visibility", "UINT8", (1, 1024, 1024), "255 where the camera saw skin, 0 where it was filled in."),
        Tensor(
            "texture_warnings",
            "STRING",
            (-1,),
            "What is doubtful about the texture: what covers the face, what the photograph has not the pixels for.",
        ),
        Tensor("mesh", "STRING", (1,), "Files: GLB with the texture inside; PNG or JPEG; PNG."),
        Tensor("texture", "STRING", (1,)),
        Tensor("preview", "STRING", (1,)),
    ),
    steps=(PREPROCESS, DETECT, ALIGN, REGRESS, PARSE, PAINT, MESH, VISIBILITY, IMAGE_FILE, PREVIEW),
    steps_reason="The steps form a chain. On Triton 2.51 two steps that run side by side and both fail bring the whole "
    "server down. `mesh_done` is what a step waits for that needs nothing of the step before.",
)

RECONSTRUCT = replace(
    FACE3D,
    name="reconstruct",
    title="A photograph and a face that `detect` found in it -> a textured 3D face, without detecting again.\n"
    "An ensemble cannot leave out an input, hence this twin of face3d.",
    inputs=(IMAGE, CHOICE),
    steps=(
        replace(PREPROCESS, outputs=same("picture", "geometry")),
        replace(ALIGN, inputs=same("picture", "geometry", "choice")),
        *FACE3D.steps[3:],
    ),
)

DETECT_FACES = Ensemble(
    name="detect",
    title="A photograph -> the faces in it.",
    batch=8,
    batch_reason="The smallest of its steps'.",
    inputs=(IMAGE,),
    outputs=(
        Tensor(
            "faces",
            "FP32",
            (64, 15),
            "64 slots, best score first, empty ones zero: x1 y1 x2 y2, score, five points (x, y); source pixels.\n"
            "Scores go down to about 0.3; `face3d` takes those from `align`'s `score_threshold` on.",
        ),
    ),
    steps=(replace(PREPROCESS, outputs=same("canvas", "geometry")), DETECT),
)

GROUP = Ensemble(
    name="group",
    title=(
        "A photograph of a group -> the faces in it, those too that are small on a canvas of the whole: `min_face`\n"
        "says from which size in source pixels on, and the detector looks at as many tiles as that takes."
    ),
    batch=0,
    batch_reason="No batch: the photograph and its tiles are a batch for the detector.",
    inputs=(replace(IMAGE, dims=(1, 1)),),
    outputs=(
        replace(
            DETECT_FACES.outputs[0],
            dims=(1, -1, 15),
            comment="As `detect`, and more than 64 slots where there are more faces, at most 512.",
        ),
    ),
    steps=(
        replace(PREPROCESS, outputs=same("canvas", "geometry", "view")),
        replace(DETECT, outputs={"faces": "tile_faces"}),
        Step("merge", {"tile_faces": "tile_faces", "tile_view": "view"}, same("faces")),
    ),
    steps_reason="A chain, as in face3d.",
)

EMBED = Ensemble(
    name="embed",
    title=(
        "A photograph -> what says who it is: an embedding of the main face in it (or the one that the request's\n"
        "parameters name)."
    ),
    batch=8,
    batch_reason="The smallest of its steps'.",
    inputs=(IMAGE,),
    outputs=(
        Tensor("embedding", "FP32", (-1,), "Of length 1: the cosine of two faces is their product."),
        Tensor(
            "quality",
            "FP32",
            (4,),
            "Size, sharpness, pose, cover, each 0..1, 1 the best: model_repository/align/1/embedding_crop.py.",
        ),
        Tensor("face", "FP32", (15,), "Box, score and five points of the face, source pixels."),
        Tensor("warnings", "STRING", (-1,), "What is doubtful about the picture, one sentence each; often none."),
        Tensor("embedder", "INT64", (1,), "Fingerprint of the embedder: vectors of two embedders say nothing."),
    ),
    steps=(
        PREPROCESS,
        DETECT,
        Step("align", same("picture", "geometry", "faces"), same("aligned", "quality", "face", "warnings")),
        Step("embedder", same("aligned"), same("embedding", "embedder")),
    ),
    steps_reason="A chain, as in face3d.",
)

FUSE = Ensemble(
    name="fuse",
    title="Two photographs -> the second one with the face of the first, drawn from both heads. Off unless the\n"
    "operator turns it on.",
    batch=0,
    batch_reason="A request is a pair; its two photographs are one batch of two for the steps that take photographs.",
    inputs=(
        Tensor("source", "STRING", (1,), "Whose face: the bytes of a picture file of any format that `face3d` takes."),
        Tensor("target", "STRING", (1,), "Which picture: likewise."),
    ),
    outputs=(
        Tensor("picture", "STRING", (1,), "PNG or JPEG of the target's size, with a C2PA manifest."),
        Tensor(
            "mask", "STRING", (1,), "PNG, grey: how much of a pixel is the source's; where it is 0, nothing changed."
        ),
        Tensor("warnings", "STRING", (-1,), "What is doubtful about either picture, one sentence each; often none."),
    ),
    steps=(
        Step(
            "pair", same("source", "target"), same("image", "whole"), comment="Row 0 is the source, row 1 the target."
        ),
        Step("preprocess", same("image", "whole"), {"picture": "pictures", **same("geometry", "canvas")}),
        DETECT,
        Step(
            "align",
            {"picture": "pictures", **same("geometry", "faces")},
            {**same("crop", "crop_hd", "context"), "warnings": "doubts"},
        ),
        Step("regressor", same("crop", "context"), same("shapes", "fingerprint")),
        PARSE,
        Step(
            "pair",
            same("crop_hd", "shapes", "context", "parts"),
            same("source_crop_hd", "source_shapes", "source_context", "source_parts"),
            comment="Only the source's skin is needed.",
        ),
        Step(
            "texture",
            {name: f"source_{name}" for name in ("crop_hd", "shapes", "context", "parts")},
            same("texture", "visibility"),
        ),
        Step(
            "fusion",
            {
                "picture": "pictures",
                **same("geometry", "context", "shapes", "fingerprint", "parts", "texture", "visibility", "doubts"),
            },
            {"picture_file": "picture", **same("mask", "warnings")},
        ),
    ),
    steps_reason="A chain, as in face3d.",
)

PHOTO_FILES = ("mesh", "texture", "preview")
# What of one photograph a texture's relief, size and light are taken from: a head of several has the usual texture.
CLOSE_UP = ("close_up", "close_up_camera", "places", "parts", "texture_warnings")
OF_HEAD = {"context": "reference_context", "crop_hd": "reference_crop_hd", "visibility_done": "mesh_done"}
PERSON = Ensemble(
    name="person",
    title=(
        "Several photographs of one person -> one textured head, and how each photograph shows it.\n"
        "Photographs of different people are refused before anything is computed of them."
    ),
    batch=0,
    batch_reason=(
        "No batch: the first dimension, K, is the photographs of one person. Steps that have a batch take it as\n"
        "theirs, so that K is at most 8, the smallest of theirs; postprocess gets one head."
    ),
    inputs=(
        replace(IMAGE, name="images", dims=(-1, 1), comment=f"One to eight photographs of one person. {IMAGE.comment}"),
    ),
    outputs=(
        Tensor("similarity", "FP32", (-1,), "Of the photographs' faces: mean cosine with the others."),
        Tensor("weights", "FP32", (-1,), "Part of each photograph in the identity, 1 together."),
        Tensor("reference", "INT64", (1,), "The photograph whose expression and pose `mesh` has, from 0 on."),
        *(
            replace(tensor, dims=(1 if tensor.name in ("vertices_neutral", "face_model") else -1, *tensor.dims))
            for tensor in FACE3D.outputs
            if tensor.name not in (*PHOTO_FILES, "visibility", "texture_warnings", "certainty")
        ),
        *(
            replace(tensor, dims=(1, *tensor.dims))
            for tensor in FACE3D.outputs
            if tensor.name in (*PHOTO_FILES, "visibility")
        ),
    ),
    steps=(
        replace(PREPROCESS, inputs={"image": "images"}),
        DETECT,
        replace(
            ALIGN,
            outputs={
                **{key: value for key, value in ALIGN.outputs.items() if key not in CLOSE_UP},
                **same("aligned", "quality"),
            },
        ),
        Step("embedder", same("aligned"), same("embedding", "embedder")),
        Step(
            "merge",
            {"photo_embedding": "embedding", "photo_crop": "crop"},
            {"similarity": "similarity", "crop": "checked_crop"},
            "Whether they show one person: nothing is computed of those that do not.",
        ),
        Step(
            "regressor",
            {"crop": "checked_crop", "context": "context"},
            {name: f"photo_{name}" for name in ("shapes", "coefficients", "fingerprint", "certainty")},
        ),
        Step(
            "merge",
            {
                **same("photo_shapes", "photo_coefficients", "photo_fingerprint", "photo_certainty"),
                "photo_context": "context",
                "photo_crop_hd": "crop_hd",
                "photo_quality": "quality",
                "photo_embedding": "embedding",
                "photo_embedder": "embedder",
            },
            {
                "shapes": "shapes",
                "expression": "expression",
                "fingerprint": "fingerprint",
                "context": "reference_context",
                "crop_hd": "reference_crop_hd",
                "fingerprints": "fingerprints",
                "certainties": "certainties",
                **same("coefficients", "vertices", "vertices_neutral", "landmarks", "landmarks_3d", "face_model"),
                **same("weights", "reference"),
            },
            "One identity; the photographs keep their expressions and poses.",
        ),
        Step("parser", {"crop": "checked_crop", "fingerprint": "fingerprints"}, same("parts")),
        Step(
            "texture",
            {**same("crop_hd", "context", "parts"), "shapes": "photo_shapes"},
            {"texture": "photo_texture", "visibility": "photo_visibility"},
            "Each photograph is sampled by its own shape, which lies best over it.",
        ),
        Step(
            "merge",
            {
                **same("photo_texture", "photo_visibility", "photo_shapes"),
                "photo_context": "context",
                "photo_crop_hd": "crop_hd",
                "photo_parts": "parts",
                "certainty": "certainties",
            },
            {"texture": "raw_texture", "visibility": "visibility"},
        ),
        *(
            replace(
                step,
                inputs={key: OF_HEAD.get(value, value) for key, value in step.inputs.items() if key not in CLOSE_UP},
                outputs={key: value for key, value in step.outputs.items() if key not in CLOSE_UP},
            )
            for step in (MESH, IMAGE_FILE, PREVIEW)
        ),
    ),
    steps_reason="A chain, as in face3d: the parser waits for the identity although it does not need it.",
)

TRACK = Ensemble(
    name="track",
    title=(
        "A frame of a clip -> expression and pose, steady from frame to frame. The frames of a clip come one after\n"
        "the other, as a sequence of Triton's: one sequence_id, sequence_start at the first, sequence_end at the last."
    ),
    batch=1,
    batch_reason="One: the frames of a clip follow each other, those of different clips meet at each step.",
    inputs=(IMAGE,),
    outputs=(
        Tensor("blendshapes", "FP32", (52,), "Weights of ARKit's 52 shapes, 0..1, in the order of their names."),
        Tensor("rotation", "FP32", (4,), "Of the head in the frame of the GLB: a unit quaternion x, y, z, w."),
        *(tensor for tensor in FACE3D.outputs if tensor.name in ("face", "camera", "warnings", "coefficients")),
        EMBED.outputs[1],
    ),
    steps=(
        PREPROCESS,
        DETECT,
        Step(
            "align",
            same("picture", "geometry", "faces"),
            same("crop", "context", "face", "camera", "warnings", "quality"),
        ),
        Step(
            "regressor",
            same("crop", "context"),
            {"coefficients": "frame_coefficients", "fingerprint": "fingerprint"},
        ),
        Step(
            "steady",
            {"coefficients": "frame_coefficients", "fingerprint": "fingerprint"},
            {"steady_coefficients": "coefficients", **same("blendshapes", "rotation")},
        ),
    ),
    steps_reason="A chain, as in face3d.",
)

ENSEMBLES = (FACE3D, RECONSTRUCT, DETECT_FACES, GROUP, EMBED, PERSON, TRACK, FUSE)


def ensemble_config(ensemble: Ensemble) -> str:
    """Return the ensemble's config.pbtxt."""
    lines = [
        *comment(ensemble.title),
        f'name: "{ensemble.name}"',
        'platform: "ensemble"',
        *comment(ensemble.batch_reason),
        f"max_batch_size: {ensemble.batch}",
        "",
        *tensors("input", ensemble.inputs),
        *tensors("output", ensemble.outputs),
        "",
        f"{VERSION_POLICY}  # there is only one",
        "",
        *comment(ensemble.steps_reason),
        "ensemble_scheduling {",
        "  step [",
    ]
    for index, step in enumerate(ensemble.steps):
        lines += [f"    {line}" for line in (*comment(step.comment), *step.lines())]
        if index < len(ensemble.steps) - 1:
            lines[-1] += ","
    return "\n".join([*lines, "  ]", "}"]) + "\n"
