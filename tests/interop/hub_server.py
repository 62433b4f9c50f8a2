"""A hub of one folder, for huggingface_hub's own client: commits are written, files are served."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import unquote

import softprompts as sp


class _Hub(BaseHTTPRequestHandler):
    """Speaks as much of the hub's protocol as pushing and loading a folder takes."""

    root: ClassVar[Path]
    asked: ClassVar[list[str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(f"POST {self.path}")
        if self.path.endswith("/repos/create"):
            return self._say({"url": f"{self._own}/{self._repo(json.loads(body))}"})
        if not self.path.startswith("/api/models/"):  # such as a check of the card
            return self._say({"errors": [], "warnings": []})
        _, _, _, owner, name, what, *_ = self.path.split("/")
        if what == "preupload":
            files = json.loads(body)["files"]
            kept = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            return self._say({"files": kept})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                path = self.root / owner / name / line["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(line["value"]["content"]))
        commit = f"{self._own}/{owner}/{name}/commit/{'0' * 40}"
        return self._say({"commitUrl": commit, "commitOid": "0" * 40})

    def do_GET(self) -> None:
        self.asked.append(f"GET {self.path}")
        parts = unquote(self.path.split("?")[0]).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            folder = self.root / parts[2] / parts[3]
            if not folder.is_dir():
                return self._say({"error": "Repository not found"}, 404)
            files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
            if "tree" in parts:
                tree = [
                    {
                        "type": "file",
                        "path": str(p.relative_to(folder)),
                        "size": p.stat().st_size,
                        "oid": hashlib.sha1(p.read_bytes()).hexdigest(),
                    }
                    for p in files
                ]
                return self._say(tree)
            siblings = [{"rfilename": str(p.relative_to(folder))} for p in files]
            return self._say({"id": "/".join(parts[2:4]), "sha": "0" * 40, "siblings": siblings})
        path = self.root.joinpath(*parts[:2], *parts[4:])
        return self._send(path) if path.is_file() else self._say({"error": "Entry not found"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    @property
    def _own(self) -> str:
        host, port = self.server.server_address[:2]
        return f"http://{host}:{port}"

    def _repo(self, asked: dict[str, Any]) -> str:
        owner, _, name = asked["name"].rpartition("/")
        return f"{asked.get('organization') or owner}/{name}"

    def _say(self, content: Any, status: int = 200) -> None:
        self._answer(json.dumps(content).encode(), status, "application/json", {})

    def _send(self, path: Path) -> None:
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        self._answer(content, 200, "text/plain", {"ETag": f'"{etag}"', "X-Repo-Commit": "0" * 40})

    def _answer(self, body: bytes, status: int, kind: str, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **({"X-Error-Code": "RepoNotFound"} if status == 404 else {}),
            **more,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def hub(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder of `owner/name` folders; yield its address and what was asked of it."""
    asked: list[str] = []
    handler = type("Hub", (_Hub,), {"root": root, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


LOOP = """
import contextlib, io, json, sys, traceback

for line in sys.stdin:
    code, *sys.argv[1:] = json.loads(line)
    out, error = io.StringIO(), ""
    with contextlib.redirect_stdout(out):
        try:
            exec(code, {})
        except Exception:
            error = traceback.format_exc()
    print(json.dumps([out.getvalue(), error]), flush=True)
"""


@dataclass(frozen=True)
class Elsewhere:
    """A hub of one folder, and a process that knows no other.

    `root` has `owner/name` folders, `address` is the hub's, `asked` what was asked of it; `run`
    sends code and its arguments to the process, and returns what it printed and its traceback.
    """

    root: Path
    address: str
    asked: list[str]
    process: subprocess.Popen[str]

    def run(self, code: str, *arguments: str) -> tuple[str, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([code, *arguments]) + "\n")
        self.process.stdin.flush()
        printed, error = json.loads(self.process.stdout.readline())
        return printed, error


@contextmanager
def elsewhere(folder: Path) -> Iterator[Elsewhere]:
    """Serve a hub in a folder to a process of its own."""
    environment = {
        **os.environ,
        **{"HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"},
        **{"PYTHONPATH": str(Path(sp.__file__).parents[1]), "NO_PROXY": "*", "no_proxy": "*"},
    }
    with (
        hub(folder / "hub") as (address, asked),
        subprocess.Popen(
            [sys.executable, "-c", LOOP],
            env=environment | {"HF_ENDPOINT": address},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        yield Elsewhere(folder / "hub", address, asked, process)
