"""Several runs become one: the mean of their weights, and the sum of what they have seen since they began."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from training import average
from training.average import averaged


def checkpoint(path: Path, value: float, samples: int, width: int = 3) -> Path:
    state = {"weight": torch.full((width,), value), "count": torch.tensor(7)}
    torch.save({"net": {}, "average": state, "optimiser": {}, "samples": samples}, path)
    return path


def test_weights_are_the_mean_and_samples_count_once(tmp_path: Path) -> None:
    runs = [checkpoint(tmp_path / "a.pt", 1.0, 130), checkpoint(tmp_path / "b.pt", 4.0, 150)]
    weights, samples = averaged(runs, checkpoint(tmp_path / "before.pt", 0.0, 100))
    torch.testing.assert_close(weights["weight"], torch.full((3,), 2.5))
    assert weights["count"] == 7
    assert samples == 180


def test_the_command_writes_them_with_their_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(checkpoint(tmp_path / f"{name}.pt", value, 10)) for name, value in (("a", 1.0), ("b", 3.0))]
    average.main([str(tmp_path / "out.safetensors"), *runs])
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata()["samples"] == "20"
        assert "MediaPipe" in file.metadata()["sources"]
        assert file.get_tensor("weight").dtype == torch.float16
        assert file.get_tensor("weight").tolist() == [2.0] * 3
    assert "the mean of 2 runs, 20 samples in all" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("width", "samples", "says"), [(4, 130, "different networks"), (3, 90, "did not begin at 100")]
)
def test_runs_that_do_not_belong_together_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], width: int, samples: int, says: str
) -> None:
    runs = [checkpoint(tmp_path / "a.pt", 1.0, 130), checkpoint(tmp_path / "b.pt", 4.0, samples, width)]
    origin = str(checkpoint(tmp_path / "before.pt", 0.0, 100))
    with pytest.raises(SystemExit):
        average.main([str(tmp_path / "out.safetensors"), *map(str, runs), "--origin", origin])
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()
