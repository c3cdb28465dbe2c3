"""Two whole servers on one machine, as two pods would be: one is killed, and nobody notices but the survivor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from face3d_client.balance import BalancedFace3DClient

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.deploy.history import only
from tests.deploy.promql import Database


@pytest.mark.soak
def test_no_photograph_is_lost_when_one_of_two_replicas_dies(tmp_path: Path, portrait_jpeg: bytes) -> None:
    # (tests/client/test_balance.py does the same with quick stand-ins for the models.)
    one, two = (
        EmbeddedServer(on_free_ports(ServerOptions(log_file=tmp_path / f"{name}.log"))) for name in ("one", "two")
    )
    with one, two, BalancedFace3DClient([one.grpc, two.grpc], timeout=120) as client:
        client.wait_ready()

        def ask(index: int) -> int:
            if index == 30:
                one.kill()
            face = client.reconstruct(portrait_jpeg)
            return len(face.vertices)

        with ThreadPoolExecutor(6) as pool:
            vertices = list(pool.map(ask, range(80)))
        assert len(vertices) == 80
        assert len(set(vertices)) == 1


def test_what_two_replicas_show_adds_up() -> None:
    """The dashboard's formulas sum over servers and take the worst quantile."""
    database = Database()
    for step in range(5):
        for index, instance in enumerate(("a:8002", "b:8002")):
            labels = {"model": "face3d", "version": "1", "job": "triton", "instance": instance}
            count = 15.0 * step * (index + 1)
            database.add({"__name__": "nv_inference_request_success", **labels}, 15.0 * step, count)
            summary = {"__name__": "nv_inference_request_summary_us", "quantile": "0.99", **labels}
            database.add(summary, 15.0 * step, 1e6 * (index + 1))
    assert only(database.query("sum by (model) (rate(nv_inference_request_success[1m]))", 60)) == pytest.approx(3.0)
    assert only(database.query("max by (model, quantile) (nv_inference_request_summary_us) / 1e6", 60)) == 2.0
