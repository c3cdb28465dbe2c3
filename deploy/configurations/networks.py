"""The networks: what their flavours share, and what each has of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deploy.configurations.pbtxt import VERSION_POLICY, Parameter, Tensor, block, comment, tensors, warmup

CONTEXT_RANGE = Parameter(
    "input_range.context",
    "4*-1e9:1e9, 0:1, 10*-1e9:1e9, 2*1e-6:1e9, 2*-1e9:1e9, 2*1e-6:1e9, 2*-1e9:1e9",
    "What align gives, with room. Box and points: a picture of 65 megapixels has no longer side. Score. Cameras: "
    "source\npixels for one of the crop, where 0 would be divided by, and where the crop begins.",
)
MAX_VERTICES = 40_000
"""Vertices of the warm-up sample; the export writes it with this room (`export/tensorrt/profile.py`)."""
COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")

CONTEXT = Tensor("context", "FP32", (23,), "The face (15) and the camera (8) of align.")
GEOMETRY = Tensor(
    "geometry", "FP32", (6,), "Source width, height; source pixels per canvas pixel x, y; per picture pixel x, y."
)

# Of networks whose requests may have several rows.
IDLE_LANES = Parameter(
    "idle_lanes", "2", "A pair's two rows side by side while a core is idle; busy, rows that stay together are cheaper."
)
CERTAINTY = Tensor(
    "certainty",
    "FP32",
    (4,),
    "One over the errors to be expected (root mean squares) of the neutral shape and of the expression (1/mm), the\n"
    "rotation (1/degree), the landmarks (1/pixel of the 224 px crop); 0: not known.",
)


@dataclass(frozen=True)
class Network:
    """One network in both flavours.

    Attributes:
        title: the comment on the first line.
        batch, batch_reason: `max_batch_size` on a CPU.
        gpu_batch, gpu_batch_reason: the same of the TensorRT flavour.
        full_reason: why the CPU flavour is warmed up with `full_batch` rows, or its largest batch where that is 0;
            empty: it is not warmed up.
        about_outputs: a comment above all outputs.
        about_warmup: what the comment on the warm-up says besides.
        parameters: of the CPU flavour's backend.
    """

    name: str
    title: str
    batch: int
    batch_reason: str
    gpu_batch: int
    gpu_batch_reason: str
    full_reason: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    about_outputs: str = ""
    about_warmup: str = ""
    parameters: tuple[Parameter, ...] = ()
    full_batch: int = 0


WITHOUT_PATTERNS = (
    "A plan of the memory for each shape that was ever seen costs {} MB here and no time is gained by it."
)

DETECTOR = Network(
    name="detector",
    title="Canvas -> the faces on it. YuNet and O-Net as one graph: see networks/detector.",
    batch=32,
    batch_reason="A photograph and its tiles, as many as preprocess makes at most (tiles.py).",
    gpu_batch=32,
    gpu_batch_reason="A photograph and its tiles, as many as preprocess makes at most. The plan is built for it.",
    full_batch=8,
    full_reason="a row for each of as many cores as are used: their memory is allocated here and not under load",
    inputs=(
        Tensor(
            "canvas", "UINT8", (3, 512, 512), "The whole picture, RGB, long side 512, top left; the rest grey (127)."
        ),
        GEOMETRY,
    ),
    outputs=(
        Tensor(
            "faces",
            "FP32",
            (64, 15),
            "64 slots, best first, empty ones zero: x1 y1 x2 y2, score, five points (x, y), all in source pixels.",
        ),
    ),
    parameters=(
        Parameter(
            "rows_per_run",
            "1",
            (
                "Row by row: several at once leave the caches (on a CPU 20 to 30 % slower a picture), "
                "and each takes 60 MB."
            ),
        ),
        IDLE_LANES,
        Parameter("enable_mem_pattern", "0", WITHOUT_PATTERNS.format("5 to 19")),
        Parameter(
            "input_range.geometry",
            "2*1:1e8, 4*1e-3:1e6",
            "What preprocess gives, with room: sides of a picture of 65 megapixels, and pixels of it for one of the "
            "canvas\n(long side 512) or of the decoded picture. Others make sizes in the graph that it cannot compute "
            "with.",
        ),
    ),
)

REGRESSOR = Network(
    name="regressor",
    title=(
        "Crop -> coefficients, shapes and landmarks. ResNet50 with the face model's decode: see networks/regressor.py."
    ),
    batch=8,
    batch_reason="As many as align hands over at once; on a CPU a larger batch is no faster a face.",
    gpu_batch=16,
    gpu_batch_reason="As the detector: who has passed there in one batch stays together. The plan is built for it.",
    full_batch=4,
    full_reason="as many as go into one run: the arena grows to its final size here and not under load",
    inputs=(
        Tensor("crop", "UINT8", (3, 224, 224), "The aligned face, RGB."),
        replace(CONTEXT, comment=f"{CONTEXT.comment[:-1]}: the way from crop to source pixels."),
    ),
    about_outputs="-1: the vertices of the face model that was exported; one configuration serves any.",
    outputs=(
        Tensor(
            "shapes",
            "FP32",
            (3, -1, 3),
            (
                "For the steps that follow: decimetres; posed in the camera frame, in the head frame, in "
                "the head frame neutral."
            ),
        ),
        Tensor("fingerprint", "INT64", (1,)),
        Tensor(
            "coefficients",
            "FP32",
            (257,),
            "For the client, under names of their own: a tensor that leaves the ensemble must not also feed a step.",
        ),
        Tensor("vertices", "FP32", (-1, 3)),
        Tensor("vertices_neutral", "FP32", (-1, 3)),
        Tensor("landmarks", "FP32", (68, 2)),
        Tensor("landmarks_3d", "FP32", (68, 3)),
        Tensor("face_model", "INT64", (1,)),
        Tensor("expression", "FP32", (64,), "Those of the coefficients, for the step that writes files."),
        CERTAINTY,
    ),
    parameters=(
        Parameter(
            "most_rows_together",
            "4",
            "Eight are hardly faster a face, take 30 MB more for as long as the server lives, and answer later.",
        ),
        Parameter(
            "gathering_milliseconds",
            "60",
            "After a run of one face, while others keep every core busy, so that the next has several: four in one "
            "take 0.65 of the time. Less than a single client needs for its next picture.",
        ),
        IDLE_LANES,
        Parameter("enable_mem_pattern", "0", WITHOUT_PATTERNS.format(10)),
        CONTEXT_RANGE,
    ),
)

PARTS = Tensor("parts", "UINT8", (3, 128, 128), "Probabilities 0..255 of the crop's pixels: skin, hair, other.")

PARSER = Network(
    name="parser",
    title="Crop -> what of it is skin, hair, anything else: see networks/parser.py.",
    batch=8,
    batch_reason="As many as the regressor hands over at once; on a CPU a larger batch is no faster a face.",
    gpu_batch=16,
    gpu_batch_reason="As the regressor: who has passed there in one batch stays together. The plan is built for it.",
    full_reason="the largest batch: every core's memory is allocated here and not under load",
    inputs=(
        Tensor("crop", "UINT8", (3, 224, 224), "The aligned face, RGB."),
        Tensor(
            "fingerprint", "INT64", (1,), "Of the regressor, after which this step runs; it does not change the answer."
        ),
    ),
    outputs=(PARTS,),
    parameters=(
        Parameter("rows_per_run", "1", "Row by row: eight at once are no faster a face, and take 12 MB."),
        IDLE_LANES,
    ),
)

TEXTURE = Network(
    name="texture",
    title="Large crop, shapes and parts -> texture. UV sampling, visibility, and what fills the skin that is hidden:\n"
    "networks/texture.py.",
    batch=8,
    batch_reason="As many as the regressor hands over at once; on a CPU a larger batch is no faster a face.",
    gpu_batch=8,
    gpu_batch_reason=(
        "Half of the regressor: its activations at 1024 x 1024 are the service's largest. The plan is built for it."
    ),
    full_reason="the largest batch: every core's memory is allocated here and not under load",
    inputs=(
        Tensor("crop_hd", "UINT8", (3, 512, 512), "The aligned face, RGB."),
        Tensor(
            "shapes",
            "FP32",
            (3, -1, 3),
            "Of the regressor; -1: the vertices of the face model that was exported.",
        ),
        CONTEXT,
        replace(PARTS, comment="Of the parser."),
    ),
    outputs=(
        Tensor("texture", "UINT8", (3, -1, -1), "RGB, row 0 is v = 1; 512 or 1024 a side, by the photograph's pixels."),
        Tensor("visibility", "UINT8", (1, 1024, 1024), "255: skin seen in the photograph; 0: filled in."),
        Tensor(
            "places",
            "FP32",
            (4, 256, 256),
            "Of every fourth texel: column and row in the 224 px crop; 0..1, seen by the camera, and seen as skin.",
        ),
    ),
    about_warmup=(
        f" {MAX_VERTICES} vertices: room for the largest face model (BFM, 35,709); the graph reads the ones it knows."
    ),
    parameters=(
        Parameter(
            "rows_per_run",
            "1",
            "Row by row: several at once leave the caches (on a CPU no faster a picture), and each takes 40 MB.",
        ),
        Parameter(
            "enable_mem_pattern",
            "0",
            WITHOUT_PATTERNS.format(40),
        ),
        Parameter(
            "input_range.shapes",
            "-100:100",
            "Decimetres: a head is three and stands ten before the camera; a NaN would be a texture of any colour.",
        ),
        CONTEXT_RANGE,
    ),
)

EMBEDDER = Network(
    name="embedder",
    title="Upright face -> embedding of unit length. SFace: see networks/embedder.",
    batch=8,
    batch_reason="As many as align hands over at once; on a CPU a larger batch is no faster a face.",
    gpu_batch=16,
    gpu_batch_reason="As the detector: who has passed there in one batch stays together. The plan is built for it.",
    full_reason="",
    inputs=(Tensor("aligned", "UINT8", (3, 112, 112), "The face on the ArcFace template, RGB."),),
    outputs=(
        Tensor("embedding", "FP32", (-1,), "Of length 1; -1: the length of the vectors of the embedder exported."),
        Tensor("embedder", "INT64", (1,), "Fingerprint of its weights: vectors of two embedders say nothing."),
    ),
    parameters=(
        Parameter("rows_per_run", "1", "Row by row: eight at once are no faster a face, and take 50 MB."),
        Parameter("least_lanes", "2", "Two rows side by side also where a run has one thread: it is most of `embed`."),
        Parameter(
            "load_on_first_use",
            "1",
            "A server that nobody asks to recognise people does not hold its 60 MB; the first request waits half a "
            "second.",
        ),
    ),
)

ENHANCE = Network(
    name="enhance",
    title="Part of a face -> the same, sharper and cleaner: see networks/enhance.py. In no ensemble: postprocess and\n"
    "fusion ask it where a request wants that.",
    batch=4,
    batch_reason="The tiles of one 512 px crop.",
    gpu_batch=4,
    gpu_batch_reason="The tiles of one 512 px crop. The plan is built for it.",
    full_reason="",
    inputs=(Tensor("tile", "UINT8", (3, 320, 320), "RGB; a pixel of the photograph is one to three here."),),
    outputs=(Tensor("enhanced", "UINT8", (3, 320, 320), "The same part."),),
    parameters=(
        Parameter("rows_per_run", "1", "Row by row: several at once leave the caches."),
        Parameter(
            "load_on_first_use", "1", "Few requests ask for it: a server does not hold its memory before one does."
        ),
    ),
)

NETWORKS = (DETECTOR, REGRESSOR, PARSER, TEXTURE, EMBEDDER, ENHANCE)


def cpu_config(network: Network) -> str:
    """Return the portable config.pbtxt, for the onnxruntime backend."""
    lines = [
        *comment(network.title),
        f'name: "{network.name}"',
        'backend: "onnxruntime"',
        *comment(network.batch_reason),
        f"max_batch_size: {network.batch}",
        *_interface(network),
        (
            "# One instance. Threads by the machine: one on one or two cores, whose rest the other steps "
            "need; on more, every core."
        ),
        "instance_group [ { kind: KIND_CPU count: 1 } ]",
        "",
    ]
    if network.parameters:
        lines += [*block("parameters", [(p.comment, p.entry()) for p in network.parameters]), ""]
    lines += _batching(
        "No delay: what has queued while the last batch ran is the next batch; idle waiting gains nothing on a CPU."
    )
    if network.full_reason:
        lines += _warmup(network, network.full_batch or network.batch, network.full_reason)
    return "\n".join(lines).rstrip() + "\n"


def tensorrt_config(network: Network) -> str:
    """Return configs/tensorrt.pbtxt, for plans built by `make plans`."""
    plans = [
        ("", f'{{ key: "{capability}" value: "model.cc{capability.replace(".", "")}.plan" }}')
        for capability in COMPUTE_CAPABILITIES
    ]
    lines = [
        *comment(network.title),
        "# GPU flavour, chosen for the whole server by --model-config-name=tensorrt; tensors as in ../config.pbtxt.",
        f'name: "{network.name}"',
        'platform: "tensorrt_plan"',
        (
            "# One plan for each kind of GPU and none by default: a plan of another GPU would fail late "
            "or, worse, run slowly."
        ),
        "# `make plans` writes model.cc90.plan and so on into the version folder.",
        *block("cc_model_filenames", plans),
        *comment(network.gpu_batch_reason),
        f"max_batch_size: {network.gpu_batch}",
        *_interface(network),
        "# One instance a GPU: copies and kernels of one already overlap; a second costs its memory again.",
        "instance_group [ { kind: KIND_GPU count: 1 } ]",
        "",
        *_batching(
            "No delay before a measurement asks for one: what has queued while the last batch ran is the next batch."
        ),
        *_warmup(network, network.gpu_batch, "the largest batch: its memory is allocated here and not under load"),
    ]
    return "\n".join(lines) + "\n"


def _interface(network: Network) -> list[str]:
    return [
        "",
        *tensors("input", network.inputs),
        *comment(network.about_outputs),
        *tensors("output", network.outputs),
        "",
    ]


def _batching(reason: str) -> list[str]:
    return [
        "dynamic_batching {",
        f"  # {reason}",
        "  max_queue_delay_microseconds: 0",
        "}",
        "",
        f"{VERSION_POLICY}  # one version serves; an older one stays on disk to go back to",
        "",
    ]


def _warmup(network: Network, batch: int, full_reason: str) -> list[str]:
    sample = [replace(t, dims=tuple(MAX_VERTICES if size < 0 else size for size in t.dims)) for t in network.inputs]
    one = warmup("one", 1, "what an interactive request is", sample)
    return [
        (
            "# A real portrait, so that the first request meets memory that is allocated and caches that "
            "are warm. `python -m export`"
        ),
        f"# writes warmup/.{network.about_warmup}",
        "model_warmup [",
        *one[:-1],
        "  },",
        *warmup("full", batch, full_reason, sample),
        "]",
    ]
