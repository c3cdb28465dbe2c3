"""A visitor of the page of `face3d ui`: the requests that a browser makes, one by one, so that a test can bend them."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import httpx

API = "gradio_api"


class Visitor:
    """One session with a page.

    Args:
        address: of the page.
    """

    def __init__(self, address: str) -> None:
        # Ten of them share a core in some tests.
        self.http = httpx.Client(base_url=address, timeout=120)
        self.session = secrets.token_hex(8)
        config = self.http.get("/config").json()
        self.parts = {part["id"]: part for part in config["components"]}
        self.events = config["dependencies"]

    def upload(self, file: Path, name: str | None = None) -> str:
        """Send a file; where the page keeps it."""
        answer = self.http.post(f"{API}/upload", files={"files": (name or file.name, file.read_bytes())})
        answer.raise_for_status()
        path: str = answer.json()[0]
        return path

    def number(self, elem_id: str, event: str) -> int:
        """The number of the function behind an event of a part."""
        return next(
            int(number["id"])
            for number in self.events
            for part, name in number["targets"]
            if name == event and part is not None and self.parts[part]["props"].get("elem_id") == elem_id
        )

    def join(self, number: int, data: list[Any], **more: Any) -> httpx.Response:
        """Ask for an event as the page does."""
        body = {"data": data, "fn_index": number, "session_hash": self.session, "event_data": None, "trigger_id": None}
        return self.http.post(f"{API}/queue/join", json=body | more)

    def outcome(self, joined: httpx.Response) -> dict[str, Any]:
        """What comes of an event that was let in: ``success``, and ``output`` with ``data`` or an ``error``."""
        joined.raise_for_status()
        wanted = joined.json()["event_id"]
        with self.http.stream("GET", f"{API}/queue/data", params={"session_hash": self.session}) as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    told = json.loads(line[5:])
                    if told.get("event_id") == wanted and told["msg"] == "process_completed":
                        done: dict[str, Any] = told
                        return done
        raise AssertionError("the page went silent")

    def event(self, elem_id: str, event: str, data: list[Any], **more: Any) -> list[Any]:
        """What the page's parts become after an event."""
        done = self.outcome(self.join(self.number(elem_id, event), data, **more))
        assert done["success"], done
        values: list[Any] = done["output"]["data"]
        return values

    def close(self) -> None:
        """Leave."""
        self.http.close()


def photograph(path: str, **more: Any) -> dict[str, Any]:
    """A file as the page's own script names it in an event."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}
