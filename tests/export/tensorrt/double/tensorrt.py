"""Stands for the module `tensorrt` where none can be installed: has the names of one version, records what is called.

TENSORRT_DOUBLE_VERSION says which version (what 11 removed is missing then), TENSORRT_DOUBLE_RECORD where the calls
are written as JSON lines. Polygraphy itself is real: what is held here is what it asks of TensorRT.
"""

from __future__ import annotations

import enum
import json
import os
from pathlib import Path
from typing import Any

import onnx

__version__ = os.environ.get("TENSORRT_DOUBLE_VERSION", "11.1.0.106")
_ELEVEN = int(__version__.split(".")[0]) >= 11


def _record(name: str, *values: object) -> None:
    with Path(os.environ["TENSORRT_DOUBLE_RECORD"]).open("a") as stream:
        stream.write(json.dumps([name, *values]) + "\n")


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


_FLAGS = ["TF32", "REFIT", "VERSION_COMPATIBLE", "STRIP_PLAN", "SPARSE_WEIGHTS"]
_FLAGS += [] if _ELEVEN else ["FP16", "INT8", "BF16", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"]
BuilderFlag = enum.IntEnum("BuilderFlag", _FLAGS, start=0)  # type: ignore[misc]  # names by version
ProfilingVerbosity = enum.IntEnum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "NONE", "DETAILED"], start=0)
MemoryPoolType = enum.IntEnum("MemoryPoolType", ["WORKSPACE"], start=0)
TacticSource = enum.IntEnum("TacticSource", ["EDGE_MASK_CONVOLUTIONS"], start=0)
DeviceType = enum.IntEnum("DeviceType", ["GPU", "DLA"], start=0)
LayerType = enum.IntEnum("LayerType", ["QUANTIZE", "DEQUANTIZE", "SHAPE"], start=0)
PreviewFeature = enum.IntEnum("PreviewFeature", ["PROFILE_SHARING_0806"], start=0)
QuantizationFlag = enum.IntEnum("QuantizationFlag", ["CALIBRATE_BEFORE_FUSION"], start=0)
EngineCapability = enum.IntEnum("EngineCapability", ["STANDARD"], start=0)
HardwareCompatibilityLevel = enum.IntEnum("HardwareCompatibilityLevel", ["NONE"], start=0)


class ILogger:
    def __init__(self) -> None:
        pass


class Logger(ILogger):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class _Input:
    is_shape_tensor = False
    dtype = "float32"

    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name = value.name
        self.shape = tuple(-1 if dim.dim_param else dim.dim_value for dim in value.type.tensor_type.shape.dim)


class _Network:
    def __init__(self) -> None:
        self.inputs: list[_Input] = []
        self.num_layers = self.num_outputs = 0

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> _Input:
        return self.inputs[index]

    def __iter__(self) -> Any:
        return iter(())


class OnnxParser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self.network = network
        self.num_errors = 0

    def parse_from_file(self, path: str) -> bool:
        _record("parse_from_file", path)
        model = onnx.load(path)
        self.network.inputs = [_Input(value) for value in model.graph.input]
        return True


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def __bool__(self) -> bool:
        return True

    def set_shape(self, name: str, smallest: Any, usual: Any, largest: Any) -> None:
        _record("set_shape", name, list(smallest), list(usual), list(largest))


class _Cache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def combine(self, other: _Cache, ignore_mismatch: bool) -> bool:
        _record("combine_timing_caches")
        return True

    def serialize(self) -> memoryview:
        return memoryview(b"timings")


class _Config:
    DLA_core = -1
    default_device_type = DeviceType.GPU
    num_optimization_profiles = 1

    def set_flag(self, flag: enum.IntEnum) -> None:
        _record("set_flag", flag.name)

    def clear_flag(self, flag: enum.IntEnum) -> None:
        _record("clear_flag", flag.name)

    def get_flag(self, flag: enum.IntEnum) -> bool:
        return False

    def add_optimization_profile(self, profile: _Profile) -> int:
        _record("add_optimization_profile")
        return 0

    def create_timing_cache(self, data: bytes) -> _Cache:
        _record("create_timing_cache", len(data))
        return _Cache(bytes(data))

    def set_timing_cache(self, cache: _Cache, ignore_mismatch: bool) -> bool:
        _record("set_timing_cache", ignore_mismatch)
        return True

    def get_timing_cache(self) -> _Cache:
        return _Cache(b"")

    def get_memory_pool_limit(self, pool: enum.IntEnum) -> int:
        return 0

    def get_tactic_sources(self) -> int:
        return 0


class Builder:
    def __init__(self, logger: ILogger) -> None:
        pass

    def create_network(self, flags: int = 0) -> _Network:
        _record("create_network", flags)
        return _Network()

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes:
        _record("build_serialized_network")
        return b"a plan"


def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
    _record("init_libnvinfer_plugins")
    return True
