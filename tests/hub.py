"""A hub on this machine: the few endpoints of the Hugging Face hub that sending and fetching a model need."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from unittest import mock
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants


@dataclass
class Hub:
    """What lies on the hub, and what was asked of it.

    files: by "user/name@branch". refused: the hub's errors by the name of a repository. created: what was
    asked for in each new one. asked: the paths of all requests. tokens: those that came with them. commits:
    the headers of all commits.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    commits: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""

    def sha(self, place: str) -> str:
        return hashlib.sha1(place.encode(), usedforsecurity=False).hexdigest()

    def at(self, sha: str) -> dict[str, bytes]:
        return next(files for place, files in self.files.items() if self.sha(place) == sha)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self._parts()
        if parts[:2] == ["api", "models"]:
            name, (what, revision) = "/".join(parts[2:4]), [*map(unquote, parts[4:6]), "revision", "main"][:2]
            if name in self.hub.refused:
                self._refuse(*self.hub.refused[name])
            elif not any(place.startswith(f"{name}@") for place in self.hub.files):
                self._refuse(404, "RepoNotFound")
            elif what == "tree":
                found = self.hub.at(revision)
                self._answer(
                    [{"type": "file", "path": p, "size": len(c), "oid": "0"} for p, c in found.items()]
                )
            elif f"{name}@{revision}" not in self.hub.files:
                self._refuse(404, "RevisionNotFound")
            else:
                sha = self.hub.sha(f"{name}@{revision}")
                self._answer({"id": name, "sha": sha, "siblings": []})
        elif parts[2:3] != ["resolve"]:
            self._refuse(404, "EntryNotFound")
        else:
            sha, path = parts[3], "/".join(parts[4:])
            content = self.hub.at(sha)[path]
            etag = hashlib.sha256(content).hexdigest()
            self._send(content, {"X-Repo-Commit": sha, "ETag": f'"{etag}"'})

    def do_POST(self) -> None:
        parts, body = self._parts(), self.rfile.read(int(self.headers["Content-Length"]))
        if parts[1] == "repos":
            values = json.loads(body)
            name = f"{values['organization']}/{values['name']}"
            if name in self.hub.refused:
                self._refuse(*self.hub.refused[name])
                return
            self.hub.created.append(values)
            self.hub.files.setdefault(f"{name}@main", {})
            self._answer({"url": f"{self.hub.address}/{name}"})
        elif parts[1] == "validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif parts[4] == "branch":
            self.hub.files.setdefault(f"{parts[2]}/{parts[3]}@{unquote(parts[5])}", {})
            self._answer({})
        elif parts[4] == "preupload":
            asked = json.loads(body)["files"]
            self._answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
                    ]
                }
            )
        elif parts[4] == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            place = f"{parts[2]}/{parts[3]}@{unquote(parts[5])}"
            for line in lines:
                if line["key"] == "header":
                    self.hub.commits.append(line["value"])
                else:
                    content = base64.b64decode(line["value"]["content"])
                    self.hub.files[place][line["value"]["path"]] = content
            sha = self.hub.sha(place)
            url = f"{self.hub.address}/{parts[2]}/{parts[3]}/commit/{sha}"
            self._answer({"success": True, "commitOid": sha, "commitUrl": url})

    def _parts(self) -> list[str]:
        self.hub.asked.append(f"{self.command} {self.path}")
        self.hub.tokens.add(self.headers.get("Authorization"))
        return urlsplit(self.path).path.strip("/").split("/")

    def _refuse(self, status: int, code: str) -> None:
        self._send(b"{}", {"X-Error-Code": code}, status)

    def _answer(self, values: Any) -> None:
        self._send(json.dumps(values).encode(), {"Content-Type": "application/json"})

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def local_hub() -> Iterator[Hub]:
    """Let the hub's client speak to a hub on this machine, which holds nothing yet."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        with at_address(hub.address):
            yield hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def at_address(address: str) -> Iterator[None]:
    """Let the hub's client speak to what listens at an address, and find no token here."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    with (
        mock.patch.object(constants, "ENDPOINT", address),
        mock.patch.object(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template),
        mock.patch.object(constants, "HF_HUB_OFFLINE", False),
    ):
        yield
