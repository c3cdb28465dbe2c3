"""One ONNX model behind Triton's configuration: options, checks, and batches of requests; no Triton in here.

Everything that a `config.pbtxt` may say to the C++ onnxruntime backend is either done here in the same way or refused
by name, so that a configuration that loads on this backend means the same on the other one. In particular the outputs'
dimensions must agree exactly (a -1 in the configuration needs a symbolic dimension in the model), because the C++
backend asks for that too.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

# ONNX Runtime holds 10 MB as soon as it is imported: a process whose graph nobody has asked for yet does without it.
if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[Any]
Config = Mapping[str, Any]
Answer = dict[str, Array] | Exception

# Triton's names of element types, and what ONNX Runtime calls them. BYTES and BF16 are left out on purpose.
_DTYPES: dict[str, tuple[type[np.generic], str]] = {
    "TYPE_BOOL": (np.bool_, "tensor(bool)"),
    "TYPE_UINT8": (np.uint8, "tensor(uint8)"),
    "TYPE_UINT16": (np.uint16, "tensor(uint16)"),
    "TYPE_UINT32": (np.uint32, "tensor(uint32)"),
    "TYPE_UINT64": (np.uint64, "tensor(uint64)"),
    "TYPE_INT8": (np.int8, "tensor(int8)"),
    "TYPE_INT16": (np.int16, "tensor(int16)"),
    "TYPE_INT32": (np.int32, "tensor(int32)"),
    "TYPE_INT64": (np.int64, "tensor(int64)"),
    "TYPE_FP16": (np.float16, "tensor(float16)"),
    "TYPE_FP32": (np.float32, "tensor(float)"),
    "TYPE_FP64": (np.float64, "tensor(double)"),
}

# `optimization { graph { level } }` as the C++ backend reads it: names of ``ort.GraphOptimizationLevel``.
_GRAPH_LEVELS = {-1: "ORT_ENABLE_BASIC", 0: "ORT_ENABLE_ALL", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}

_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_DEVICE_INITIALIZERS = "session.use_device_allocator_for_initializers"
# A run takes every core, but no more than this: the three networks of a pipeline share a machine, and operators on
# pictures of 512 pixels have no more to share out.
MOST_THREADS = 8
# On so few cores the steps of the pipeline fill them by themselves: threads inside an operator gain a single client 3 %
# and cost many clients 5 %.
FEW_CORES = 2
# This backend's own parameter; the C++ backend leaves parameters that it does not know alone.
_ROWS = "rows_per_run"
# The same: parts of a batch that run side by side at least, each on one thread.
_LANES = "least_lanes"
_IDLE_LANES = "idle_lanes"
# The same: rows of several requests that go into one run at most.
_MOST = "most_rows_together"
# The same: a pause after a run, see gathering.py.
_GATHERING = "gathering_milliseconds"
# The same: the weights are read when the first request comes.
_LATE = "load_on_first_use"
# The same; input_ranges.py reads them.
_RANGES = "input_range."
_LONGEST_REASON = 160  # characters: a sentence, not a page
_AS_GIVEN = "send the inputs as the steps before this model give them"


class Session(Protocol):
    """What is used of ``ort.InferenceSession``."""

    def get_inputs(self) -> list[Any]:
        """Name, type and shape of each input."""
        ...

    def get_outputs(self) -> list[Any]:
        """Return name, type and shape of each output."""
        ...

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array], options: ort.RunOptions) -> list[Array]:
        """Return the named outputs."""
        ...


Opener = Callable[[Path, "ort.SessionOptions"], Session]


class ConfigError(ValueError):
    """The configuration and the model do not fit, or the configuration asks for something this backend cannot do."""


class RequestError(ValueError):
    """One request is not what the configuration promises; its neighbours are not touched."""


@dataclass(frozen=True)
class TensorSpec:
    """What the configuration says of one tensor; ``dims`` includes the batch dimension (-1) where there is one."""

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int, ...]

    def check(self, value: Array) -> None:
        """Raise RequestError if ``value`` is not of this dtype and shape (-1 fits any length)."""
        if value.dtype != self.dtype:
            raise RequestError(f"input '{self.name}' must be {self.dtype}, not {value.dtype}.")
        fits = value.ndim == len(self.dims) and all(
            want in (-1, got) for want, got in zip(self.dims, value.shape, strict=True)
        )
        if not fits:
            raise RequestError(f"input '{self.name}' must have shape {list(self.dims)}, not {list(value.shape)}.")


def usable_cores() -> int:
    """Return how many cores this process may use, by its affinity and its cgroup's (v2) quota; at least 1."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, int(quota) // int(period))
    except (OSError, ValueError):
        pass  # no cgroup v2: the affinity is all there is to know
    return max(1, cores)


def default_threads(cores: int) -> int:
    """Return the threads of a session whose configuration names none."""
    return 1 if cores <= FEW_CORES else min(cores, MOST_THREADS)


def others_leave_cores(cores: int) -> bool:
    """Return whether less than half of the cores are wanted by other threads at this moment, by the kernel's count.

    Threads inside an operator shorten a run where cores idle; where they do not, they only get into each other's way.
    """
    return 2 * _others_running() < cores


def every_core_is_wanted() -> bool:
    """Return whether other threads want every core of the machine at this moment, by the kernel's count.

    That is of the machine: where a process may use only some of its cores, the answer is no too often.
    """
    return _others_running() >= (os.cpu_count() or 1)


def _others_running() -> int:
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1


def _number(parameters: dict[str, str], name: str, default: int) -> int:
    text = parameters.pop(name, str(default))
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise ConfigError(f"parameter '{name}' must be a whole number of at least 0, not '{text}'.")
    return value


def _flag(parameters: dict[str, str], name: str, default: bool) -> bool:
    text = parameters.pop(name, str(default)).lower()
    if text not in ("0", "1", "true", "false"):
        raise ConfigError(f"parameter '{name}' must be 0 or 1, not '{text}'.")
    return text in ("1", "true")


def session_options(config: Config) -> tuple[ort.SessionOptions, ort.RunOptions]:
    """Build ONNX Runtime's options from a model configuration.

    Args:
        config: the model configuration as Triton hands it out in JSON. Read are ``parameters`` (the names of the C++
            backend: intra_op_thread_count, inter_op_thread_count, execution_mode, enable_mem_arena,
            enable_mem_pattern, memory.enable_memory_arena_shrinkage,
            session.use_device_allocator_for_initializers, share_session_between_instances) and
            ``optimization.graph.level``. ``rows_per_run``, ``least_lanes``, ``idle_lanes``,
            ``most_rows_together``, ``gathering_milliseconds`` and ``load_on_first_use`` are read by the functions of
            these names, ``input_range.*`` by input_ranges.py.

    Raises:
        ConfigError: a value is out of range, or a parameter has no meaning here.
    """
    import onnxruntime as ort

    parameters = {
        name: str(entry.get("string_value", ""))
        for name, entry in config.get("parameters", {}).items()
        if not name.startswith(_RANGES)
    }
    parameters.pop("face3d_revival", None)  # a supervisor's mark that makes two loads differ
    for own in (_ROWS, _LANES, _IDLE_LANES, _MOST, _GATHERING, _LATE):
        parameters.pop(own, None)
    options, run_options = ort.SessionOptions(), ort.RunOptions()
    options.log_severity_level = 3
    threads = default_threads(usable_cores())
    options.intra_op_num_threads = _number(parameters, "intra_op_thread_count", 0) or threads
    options.inter_op_num_threads = _number(parameters, "inter_op_thread_count", 0) or threads
    # A waiting pool that spins takes the cores that the other models' processes need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    mode = _number(parameters, "execution_mode", 0)
    if mode > 1:
        raise ConfigError(f"parameter 'execution_mode' must be 0 (sequential) or 1 (parallel), not '{mode}'.")
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if mode else ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = _flag(parameters, "enable_mem_arena", True)
    options.enable_mem_pattern = _flag(parameters, "enable_mem_pattern", True)
    if _DEVICE_INITIALIZERS in parameters:
        entry = "1" if _flag(parameters, _DEVICE_INITIALIZERS, False) else "0"
        options.add_session_config_entry(_DEVICE_INITIALIZERS, entry)
    if _SHRINKAGE in parameters:
        run_options.add_run_config_entry(_SHRINKAGE, parameters.pop(_SHRINKAGE))
    if _flag(parameters, "share_session_between_instances", False):
        raise ConfigError("parameter 'share_session_between_instances' cannot be 1: each instance is its own process.")
    if parameters:
        names = ", ".join(f"'{name}'" for name in sorted(parameters))
        raise ConfigError(f"parameter {names} is not supported by the Python onnxruntime backend; remove it.")
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    if level not in _GRAPH_LEVELS:
        raise ConfigError(f"optimization.graph.level must be one of {sorted(_GRAPH_LEVELS)}, not {level}.")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _GRAPH_LEVELS[level])
    return options, run_options


def rows_per_run(config: Config) -> int:
    """Read how many rows of a batch may go into one run from the parameter of that name; 0, the default: all.

    A graph whose activations fill the caches runs faster row by row, and its memory does not grow with the batch. The
    parts of a batch then run side by side, each on one thread, which is worth more than threads inside an operator. A
    single part gets all threads when the machine has cores to spare (`others_leave_cores`), otherwise one.

    Raises:
        ConfigError: it is not a whole number of at least 0.
    """
    return _own_number(config, _ROWS, 0)


def least_lanes(config: Config) -> int:
    """Read how many parts of a batch run side by side at least, whatever threads a run has; 1, the default.

    For a network that is most of its pipeline: on two cores, where a run has one thread, it would leave one idle.

    Raises:
        ConfigError: it is not a whole number of at least 0.
    """
    return _own_number(config, _LANES, 1)


def idle_lanes(config: Config) -> int:
    """Read into how many parts side by side the rows of one request go while a core is idle; 1, the default: one.

    For requests of several rows, a pair or the photographs of one person, where a run has one thread. While others want
    every core, rows that stay together are cheaper.

    Raises:
        ConfigError: it is not a whole number of at least 0.
    """
    return _own_number(config, _IDLE_LANES, 1)


def most_rows_together(config: Config) -> int:
    """Read how many rows of several requests go into one run at most; 0, the default: as many as a batch has.

    The memory of a process stays that of its largest run. Where four rows are as fast a row as eight, half of it is
    enough, and the first four are answered earlier. Unlike `rows_per_run` it puts requests together, and leaves the
    rows of one request together.

    Raises:
        ConfigError: it is not a whole number of at least 0.
    """
    return _own_number(config, _MOST, 0)


def most_rows(config: Config) -> int:
    """Return how many rows of several requests go into one run at most, by all of the configuration; at least 1.

    Raises:
        ConfigError: a parameter is not a whole number of at least 0.
    """
    most = max(1, int(config.get("max_batch_size", 0)))
    return rows_per_run(config) or most_rows_together(config) or most


def gathering_milliseconds(config: Config) -> int:
    """Read how long a process may pause after a run of one row (`Gathering`); 0, the default: not at all.

    Raises:
        ConfigError: it is not a whole number of at least 0.
    """
    return _own_number(config, _GATHERING, 0)


def load_on_first_use(config: Config) -> bool:
    """Read whether the weights are left on the disk until somebody asks for them (`LateModel`); no, the default.

    Raises:
        ConfigError: it is not 0 or 1.
    """
    return _flag(_own(config, _LATE), _LATE, False)


def _own_number(config: Config, name: str, default: int) -> int:
    return _number(_own(config, name), name, default)


def _own(config: Config, name: str) -> dict[str, str]:
    entries = config.get("parameters", {})
    return {name: str(entries[name].get("string_value", ""))} if name in entries else {}


def refuse_unsupported(config: Config) -> None:
    """Raise ConfigError for what the C++ backend does with a configuration and this one does not."""
    if any(group.get("kind") == "KIND_GPU" for group in config.get("instance_group", [])):
        raise ConfigError("instance_group KIND_GPU needs the NGC container's onnxruntime backend; use KIND_CPU.")
    if config.get("optimization", {}).get("execution_accelerators"):
        raise ConfigError("optimization.execution_accelerators is not supported by the Python onnxruntime backend.")
    for key in ("sequence_batching", "batch_input", "batch_output"):
        if config.get(key):
            raise ConfigError(f"{key} is not supported by the Python onnxruntime backend.")
    if config.get("model_transaction_policy", {}).get("decoupled"):
        raise ConfigError("a decoupled model is not supported by the onnxruntime backend.")
    for tensor in (*config.get("input", []), *config.get("output", [])):
        for key in ("reshape", "optional", "allow_ragged_batch", "is_shape_tensor"):
            if tensor.get(key):
                raise ConfigError(f"'{key}' of tensor '{tensor['name']}' is not supported by the Python backend.")


def _spec(tensor: Config, provided: Mapping[str, Any], kind: str, batched: bool) -> TensorSpec:
    """Hold one tensor of the configuration against the model's; ``provided``: the model's tensors by name."""
    name, data_type = str(tensor["name"]), str(tensor["data_type"])
    if data_type not in _DTYPES:
        raise ConfigError(f"{kind} '{name}' is {data_type}, which the Python onnxruntime backend does not support.")
    if name not in provided:
        raise ConfigError(f"{kind} '{name}' is in the configuration but the model has only {sorted(provided)}.")
    dtype, onnx_type = _DTYPES[data_type]
    if provided[name].type != onnx_type:
        raise ConfigError(
            f"{kind} '{name}' is {data_type} in the configuration and {provided[name].type} in the model."
        )
    has = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in provided[name].shape)
    want = tuple(int(dim) for dim in tensor["dims"])
    if batched:
        if not has or has[0] != -1:
            raise ConfigError(
                f"{kind} '{name}' has shape {list(has)} in the model, but max_batch_size > 0 needs a symbolic first "
                "dimension."
            )
        want = (-1, *want)
    # Inputs: what the model leaves open the configuration may fix. Outputs: exactly, as on the C++ backend.
    open_ok = kind == "input"
    if len(has) != len(want) or any(h != w and not (open_ok and h == -1) for h, w in zip(has, want, strict=True)):
        raise ConfigError(
            f"{kind} '{name}' has shape {list(want)} in the configuration (batch first) and {list(has)} in the model."
        )
    return TensorSpec(name, np.dtype(dtype), want)


def read_specs(session: Session, config: Config) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Hold a model's inputs and outputs against its configuration, in Triton's JSON form, and return both.

    Raises:
        ConfigError: with one sentence that names what does not fit.
    """
    batched = int(config.get("max_batch_size", 0)) > 0
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    if missing := sorted(set(inputs) - {str(tensor["name"]) for tensor in config["input"]}):
        raise ConfigError(f"input {missing} of the model is not in the configuration.")
    return (
        [_spec(tensor, inputs, "input", batched) for tensor in config["input"]],
        [_spec(tensor, outputs, "output", batched) for tensor in config["output"]],
    )


def plain_session(path: Path, options: ort.SessionOptions) -> Session:
    """Open a session by ONNX Runtime itself."""
    import onnxruntime as ort

    session: Session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session


def trial_session(path: Path, opener: Opener = plain_session) -> Session:
    """Load a graph as quickly as it goes, only to see that it loads and what it has.

    Raises:
        ConfigError: ONNX Runtime cannot load it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # what is wrong stands in the error
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _opened(opener, path, options)


class OnnxModel:
    """A loaded model that runs batches of requests.

    Attributes:
        inputs, outputs: of the model.

    Args:
        path: the ``model.onnx`` file.
        config: the model configuration in Triton's JSON form.
        opener: makes the sessions.
        violation: says which value of a request's inputs is out of range, half a sentence; None where all are within.

    Raises:
        ConfigError: with one sentence that names what does not fit.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        opener: Opener = plain_session,
        violation: Callable[[Mapping[str, Array]], str | None] = lambda _: None,
    ) -> None:
        refuse_unsupported(config)
        options, self._run_options = session_options(config)
        if not path.is_file():
            raise ConfigError(f"{path} is missing: run `make export`.")
        self._batched = int(config.get("max_batch_size", 0)) > 0
        self._rows = rows_per_run(config) if self._batched else 0
        self._most = most_rows_together(config)
        self._lanes = min(max(options.intra_op_num_threads, least_lanes(config)), int(config.get("max_batch_size", 0)))
        # Threads inside a run use what is idle already.
        idle = idle_lanes(config) if options.intra_op_num_threads == 1 else 1
        self._idle_lanes = min(idle, int(config.get("max_batch_size", 0)))
        self._violation = violation
        self._open_sessions(opener, path, options)
        self.inputs, self.outputs = read_specs(self._session, config)

    def _open_sessions(self, opener: Opener, path: Path, options: ort.SessionOptions) -> None:
        session = lane = _opened(opener, path, options)
        if self._rows and self._lanes > 1 and options.intra_op_num_threads > 1:
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            lane = _opened(opener, path, options)
        self._session, self._lane = session, lane
        # A session whose outputs differ in size from row to row says how they are joined.
        self._concatenate: Callable[[list[Array]], Array] = getattr(session, "concatenate", np.concatenate)
        lanes = max(self._lanes if self._rows else 1, self._idle_lanes)
        if lanes > 1:
            self._pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")

    def run(
        self, requests: Sequence[Mapping[str, Array]], wanted: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, Answer]]:
        """Run requests together: once for each combination of shapes among them, or in parts (`rows_per_run`).

        Args:
            requests: per request the inputs by name, batch first when the model is batched.
            wanted: per request the names of the outputs asked for; the model computes their union, each gets its own.

        Yields:
            Each request's number with its outputs by name, or with the exception that concerns it alone, as soon as it
            is known: in parts, the first requests of a batch are done long before the last.
        """
        checked: list[int] = []
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for index, request in enumerate(requests):
            try:
                values = [self._checked(request, spec) for spec in self.inputs]
                if (violation := self._violation(request)) is not None:
                    raise RequestError(f"{violation}: {_AS_GIVEN}.")
                if self._batched and len({value.shape[0] for value in values}) > 1:
                    raise RequestError("the inputs differ in their batch dimension.")
            except RequestError as error:
                yield index, error
                continue
            checked.append(index)
            # Without a batch dimension nothing can be put together: every request is a group of its own.
            key = tuple(value.shape[1:] for value in values) if self._batched else ((index,),)
            groups.setdefault(key, []).append(index)
        if self._rows:
            yield from self._run_in_parts({i: requests[i] for i in checked}, wanted)
            return
        for group in groups.values():
            for members in self._runs(group, requests):
                outcomes = self._run_group([requests[i] for i in members], [wanted[i] for i in members])
                yield from zip(members, outcomes, strict=True)

    def _runs(self, group: list[int], requests: Sequence[Mapping[str, Array]]) -> Iterator[list[int]]:
        """Split requests of one shape into runs of `most_rows_together`, in their order."""
        members: list[int] = []
        total = 0
        for index in group:
            rows = len(requests[index][self.inputs[0].name]) if self._most else 0
            if members and total + rows > self._most:
                yield members
                members, total = [], 0
            members.append(index)
            total += rows
        yield members

    @staticmethod
    def _checked(request: Mapping[str, Array], spec: TensorSpec) -> Array:
        if spec.name not in request:
            raise RequestError(f"input '{spec.name}' is missing.")
        spec.check(request[spec.name])
        return request[spec.name]

    def _run_in_parts(
        self, requests: Mapping[int, Mapping[str, Array]], wanted: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, Answer]]:
        """Run each request by itself, at most `rows_per_run` of its rows at once, side by side where they may."""
        parts: list[tuple[int, Mapping[str, Array]]] = []
        counts: dict[int, int] = {}
        for index, request in requests.items():
            rows = next(iter(request.values())).shape[0]
            firsts = range(0, rows, self._rows) if rows > self._rows else (0,)
            parts += [(index, {name: v[i : i + self._rows] for name, v in request.items()}) for i in firsts]
            counts[index] = len(firsts)

        side_by_side = len(parts) > 1 and (self._lanes > 1 or self._may_use_idle_cores())
        wide = self._lanes < 2 or (not side_by_side and others_leave_cores(self._lanes))
        session = self._session if wide else self._lane

        def run(part: tuple[int, Mapping[str, Array]]) -> Answer:
            index, feed = part
            return self._run_once(session, feed, [spec.name for spec in self.outputs if spec.name in wanted[index]])

        outcomes = iter(self._pool.map(run, parts) if side_by_side else map(run, parts))
        for index, count in counts.items():
            yield index, _joined(list(itertools.islice(outcomes, count)), self._concatenate)

    def _run_once(self, session: Session, feed: Mapping[str, Array], names: list[str]) -> Answer:
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        if not names:
            return {}
        try:
            return dict(zip(names, session.run(names, feed, self._run_options), strict=True))
        except (InvalidArgument, ValueError) as error:
            # What an operator says of an index, a shape or a size: it follows from the values that came.
            return RequestError(f"the model failed on these values ({_reason(error)}): {_AS_GIVEN}.")
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            return RuntimeError(f"the model failed: {error}")

    def _run_group(self, requests: list[Mapping[str, Array]], wanted: list[Sequence[str]]) -> list[Answer]:
        names = [spec.name for spec in self.outputs if any(spec.name in w for w in wanted)]
        if len(requests) == 1:
            return [self._run_alone(requests[0], names)]
        if not names:
            return [{} for _ in requests]
        outcome = self._run_once(
            self._session, {spec.name: np.concatenate([r[spec.name] for r in requests]) for spec in self.inputs}, names
        )
        if isinstance(outcome, Exception):
            # One of them spoils the batch: alone, each meets its own fate.
            return [self._run_group([r], [w])[0] for r, w in zip(requests, wanted, strict=True)]
        ends = np.cumsum([next(iter(r.values())).shape[0] for r in requests])[:-1]
        pieces = {name: np.split(value, ends) for name, value in outcome.items()}
        return [{name: piece[i] for name, piece in pieces.items() if name in w} for i, w in enumerate(wanted)]

    def _run_alone(self, request: Mapping[str, Array], names: list[str]) -> Answer:
        """Run one request: its rows together, or side by side where cores are idle (`idle_lanes`)."""
        rows = next(iter(request.values())).shape[0] if self._batched else 1
        if rows < 2 or not self._may_use_idle_cores():
            return self._run_once(self._session, request, names)
        lanes = min(self._idle_lanes, rows)
        split = {name: np.array_split(value, lanes) for name, value in request.items()}
        parts = [{name: pieces[lane] for name, pieces in split.items()} for lane in range(lanes)]
        answers = self._pool.map(lambda part: self._run_once(self._session, part, names), parts)
        return _joined(list(answers), self._concatenate)

    def _may_use_idle_cores(self) -> bool:
        return self._idle_lanes > 1 and not every_core_is_wanted()


def _joined(parts: list[Answer], concatenate: Callable[[list[Array]], Array]) -> Answer:
    """Return the answer to a request from those to its parts; the first that failed is the request's own."""
    outputs: list[dict[str, Array]] = []
    for part in parts:
        if isinstance(part, Exception):
            return part
        outputs.append(part)
    return outputs[0] if len(outputs) == 1 else {n: concatenate([o[n] for o in outputs]) for n in outputs[0]}


def _reason(error: Exception) -> str:
    """Return what an operator said, without the paths and numbers of the library's sources before it."""
    said = str(error).rpartition("Status Message: ")[2].strip()
    return " ".join(re.sub(r"\S*/\S+\s?", "", said).split())[:_LONGEST_REASON]


def _opened(opener: Opener, path: Path, options: ort.SessionOptions) -> Session:
    try:
        return opener(path, options)
    except ConfigError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        raise ConfigError(f"{path} is not a model that ONNX Runtime can load: {error}") from error
