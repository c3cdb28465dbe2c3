"""`python check_graph.py PATH < config.json`: does this graph load here, and is it what its configuration says?

Writes one line of JSON: ``{"refused": null}``, or the sentence that says what does not fit. The graph is loaded as
quickly as it goes, unoptimised.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from integer_products import ProcessorError, open_graph
from onnx_session import Config, ConfigError, read_specs, refuse_unsupported, session_options, trial_session


def refusal(path: Path, config: Config) -> str | None:
    """Say in one sentence why the graph cannot be served with this configuration; None where it can."""
    try:
        refuse_unsupported(config)
        session_options(config)
        if not path.is_file():
            raise ConfigError(f"{path} is missing: run `make export`.")
        read_specs(trial_session(path, open_graph), config)
    except (ConfigError, ProcessorError) as error:
        return str(error)
    return None


def main() -> None:
    """Check the graph that the command names."""
    config: dict[str, Any] = json.load(sys.stdin)
    json.dump({"refused": refusal(Path(sys.argv[1]), config)}, sys.stdout)


if __name__ == "__main__":
    main()
