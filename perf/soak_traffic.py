"""`python -m perf.soak_traffic`: the traffic of perf/locustfile.py on a server of its own, headless; status 0 or 1."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from perf import store
from server.arguments import whole_number
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports

LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run locust and return its exit status; its CSV files go beside the other measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=whole_number(1, 1000), default=16)
    parser.add_argument("--seconds", type=whole_number(1, 86400), default=60)
    options = parser.parse_args(arguments)
    store.FOLDER.mkdir(parents=True, exist_ok=True)
    with EmbeddedServer(on_free_ports(ServerOptions())) as server:
        variables = {**os.environ, "FACE3D_HTTP": server.http, "FACE3D_GRPC": server.grpc}
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
        command += ["-u", str(options.users), "-r", str(options.users), "-t", f"{options.seconds}s"]
        command += ["--csv", str(store.FOLDER / "locust"), "--host", f"http://{server.http}"]
        return subprocess.run(command, env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
