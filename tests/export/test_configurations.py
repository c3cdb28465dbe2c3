"""The configurations of the three networks: both flavours agree, and both agree with what the exporter writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.models import MODEL_NAMES, get_model

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


def _config(name: str, file: str) -> Any:
    return text_format.Parse((REPOSITORY / name / file).read_text(), model_config_pb2.ModelConfig())


@pytest.fixture(params=sorted(MODEL_NAMES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_both_flavours_declare_the_same_tensors(name: str) -> None:
    portable, gpu = _config(name, "config.pbtxt"), _config(name, "configs/tensorrt.pbtxt")
    for field in ("input", "output"):
        assert list(getattr(portable, field)) == list(getattr(gpu, field))


def test_inputs_and_outputs_are_those_the_exporter_names(name: str) -> None:
    config = _config(name, "config.pbtxt")
    assert tuple(tensor.name for tensor in config.input) == get_model(name).inputs
    assert tuple(tensor.name for tensor in config.output) == get_model(name).outputs


@pytest.mark.parametrize("file", ["config.pbtxt", "configs/tensorrt.pbtxt"])
def test_a_model_is_warmed_up_with_real_data_at_one_and_at_the_largest_batch(name: str, file: str) -> None:
    config = _config(name, file)
    # On a CPU the detector's rows run side by side in at most eight lanes: more of them allocate nothing. A run of the
    # regressor has no more rows than its parameter says, and what is loaded late is not warmed up.
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    lanes = 8 if (name, file) == ("detector", "config.pbtxt") else 0
    most = lanes or int(parameters.get("most_rows_together", config.max_batch_size))
    late = parameters.get("load_on_first_use") == "1"
    assert [warmup.batch_size for warmup in config.model_warmup] == ([] if late else [1, most])
    for warmup in config.model_warmup:
        assert set(warmup.inputs) == set(get_model(name).inputs)
        for key, value in warmup.inputs.items():
            assert value.input_data_file == key


@pytest.mark.parametrize("file", ["config.pbtxt", "configs/tensorrt.pbtxt"])
def test_networks_form_batches(name: str, file: str) -> None:
    assert _config(name, file).HasField("dynamic_batching")


def test_every_number_has_its_reason_beside_it(name: str) -> None:
    for file in ("config.pbtxt", "configs/tensorrt.pbtxt"):
        lines = (REPOSITORY / name / file).read_text().splitlines()
        for index, line in enumerate(lines):
            key = line.split(":")[0].strip()
            if key in {"max_batch_size", "max_queue_size", "max_queue_delay_microseconds", "batch_size"}:
                above = lines[index - 1].strip()
                assert "#" in line or above.startswith("#"), f"{name}/{file}:{index + 1}: {line}"


def test_the_gpu_flavour_names_a_plan_for_each_gpu_and_none_by_default(name: str) -> None:
    config = _config(name, "configs/tensorrt.pbtxt")
    assert config.platform == "tensorrt_plan"
    assert not config.default_model_filename
    for capability, file in config.cc_model_filenames.items():
        assert file == f"model.cc{capability.replace('.', '')}.plan"
