"""How plans are built, held without a GPU: the calls that reach TensorRT, Polygraphy's own parser, the names."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from export.tensorrt.profile import MAX_VERTICES, Shapes, profile

ROOT = Path(__file__).resolve().parents[3]
BUILD = """
import json, sys
from pathlib import Path
from export.tensorrt.builder import build_plan
from export.tensorrt.gpu import Gpu
from export.tensorrt.profile import profile
shapes = profile({"crop_hd": ["batch", 3, 8, 8], "shapes": ["batch", 3, "vertices", 3]}, 8, 100)
plan = build_plan(Path(sys.argv[1]), shapes, Gpu("NVIDIA L4", "8.9"), Path(sys.argv[2]))
print(plan.tensorrt, plan.data.decode())
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Build a graph with both kinds of free axes."""
    inputs = [
        helper.make_tensor_value_info("crop_hd", TensorProto.UINT8, ["batch", 3, 8, 8]),
        helper.make_tensor_value_info("shapes", TensorProto.FLOAT, ["batch", 3, "vertices", 3]),
    ]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 3, "vertices", 3])]
    nodes = [helper.make_node("Relu", ["shapes"], ["out"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def _build(model: Path, version: str) -> tuple[subprocess.CompletedProcess[str], list[list[Any]]]:
    record = model.with_name("calls.jsonl")
    record.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{Path(__file__).parent / 'double'}{os.pathsep}{ROOT}",
        "TENSORRT_DOUBLE_VERSION": version,
        "TENSORRT_DOUBLE_RECORD": str(record),
    }
    result = subprocess.run(
        [sys.executable, "-c", BUILD, str(model), str(model.with_name("cache"))],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    calls = [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []
    return result, calls


@pytest.mark.parametrize("version", ["10.12.0.36", "11.1.0.106"])
def test_a_plan_is_built_strongly_typed_with_one_profile_and_a_timing_cache(model: Path, version: str) -> None:
    result, calls = _build(model, version)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"{version} a plan"
    names = [call[0] for call in calls]
    [network] = [call for call in calls if call[0] == "create_network"]
    assert network[1] & (1 << 1), "STRONGLY_TYPED"
    assert names.count("add_optimization_profile") == names.count("build_serialized_network") == 1
    assert ["set_shape", "crop_hd", [1, 3, 8, 8], [4, 3, 8, 8], [8, 3, 8, 8]] in calls
    assert ["set_shape", "shapes", [1, 3, 100, 3], [4, 3, 100, 3], [8, 3, MAX_VERTICES, 3]] in calls
    # Weak typing is gone from TensorRT 11: no precision flag is set on 10 either. TF32 would blur the parity gate.
    assert [call[1] for call in calls if call[0] == "set_flag"] == []
    assert ["clear_flag", "TF32"] in calls
    assert ["set_timing_cache", False] in calls


def test_the_timing_cache_is_kept_for_this_gpu_and_tensorrt_and_used_again(model: Path) -> None:
    _build(model, "11.1.0.106")
    [cache] = model.with_name("cache").glob("*.cache")
    assert cache.name == "timing.NVIDIA_L4.cc8.9.trt11.1.0.106.cache"
    assert cache.read_bytes() == b"timings"
    _, calls = _build(model, "11.1.0.106")
    assert ["create_timing_cache", len(b"timings")] in calls


def test_a_tensorrt_without_strong_typing_of_this_kind_is_refused(model: Path) -> None:
    result, calls = _build(model, "10.11.0.33")
    assert "TensorRT 10.11.0.33 is too old: 10.12 or later" in result.stderr
    assert not calls


def test_polygraphys_own_argument_parser_accepts_the_build_and_writes_its_script(model: Path, tmp_path: Path) -> None:
    script = tmp_path / "build.py"
    command = [
        *(sys.executable, "-c", "import sys; from polygraphy.tools import main; sys.exit(main())", "run", str(model)),
        *("--trt", "--onnxrt", "--strongly-typed"),
        *("--trt-min-shapes", "crop_hd:[1,3,8,8]", "shapes:[1,3,100,3]"),
        *("--trt-opt-shapes", "crop_hd:[4,3,8,8]", "shapes:[4,3,100,3]"),
        *("--trt-max-shapes", "crop_hd:[8,3,8,8]", "shapes:[8,3,40000,3]"),
        *("--load-timing-cache", str(tmp_path / "t.cache"), "--save-engine", str(tmp_path / "model.plan")),
        *("--rtol", "5e-3", "--atol", "5e-3", "--gen-script", str(script)),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    source = script.read_text()
    ast.parse(source)
    assert "strongly_typed=True" in source
    assert re.search(r"\.add\('?\"?crop_hd", source.replace("Profile()", ""))


def test_no_name_that_tensorrt_11_removed_stands_in_export() -> None:
    removed = (
        r"BuilderFlag\.(FP16|INT8|BF16|FP8)|IInt8|int8_calibrator|Calibrator\(|platform_has_fast|set_output_type|"
        r"build_engine\b|execute_async_v2|enqueueV2|get_binding|set_binding|num_bindings|EXPLICIT_BATCH|"
        r"max_workspace_size|\bfp16=True|\bint8=True|set_dynamic_range|--fp16|--int8|--best"
    )
    for path in sorted((ROOT / "export").rglob("*.py")):
        assert not re.search(removed, path.read_text()), path


def test_a_profile_frees_the_batch_and_the_vertices_and_nothing_else() -> None:
    shapes = profile({"x": ["batch", 3, 512, 512], "y": ["batch", 3, "vertices", 3]}, max_batch=1, vertices=10)
    assert shapes["x"] == Shapes((1, 3, 512, 512), (1, 3, 512, 512), (1, 3, 512, 512))
    assert shapes["y"] == Shapes((1, 3, 10, 3), (1, 3, 10, 3), (1, 3, MAX_VERTICES, 3))
