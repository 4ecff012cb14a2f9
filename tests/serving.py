"""`hmnet-pipe serve` as a process of its own, for the tests that talk to it, and what they send."""

import multiprocessing
import os
import signal
import struct
import tempfile
import zlib
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from hmnet_pipe.pipeline.predict.part import Models
from hmnet_pipe.pipeline.predict.predictor import PredictOptions
from hmnet_pipe.pipeline.serve.command import serve_models
from hmnet_pipe.pipeline.serve.limits import Limits
from hmnet_pipe.pipeline.serve.port import hold_port

__all__ = ["Serving", "bomb"]


class Serving:
    """A server in a process, which is killed at the end. address: of the page, once it is ready.

    The process is forked from one that has loaded torch; test_server.py starts the command itself, too.
    model, relations: their folders. limits: those that differ from the command's own. temporary: the folder
    in the place of the system's for temporary files.
    """

    def __init__(
        self,
        model: Path,
        relations: Path | None = None,
        *,
        limits: Mapping[str, Any] | None = None,
        temporary: Path | None = None,
    ) -> None:
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload([__name__])
        self._address, other = forks.Pipe(duplex=False)
        descriptor, name = tempfile.mkstemp()
        os.close(descriptor)
        self._said = Path(name)
        paths = [None if path is None else str(path) for path in (model, relations, temporary)]
        self.process = forks.Process(target=_serve, args=(*paths, dict(limits or {}), name, other))

    def __enter__(self) -> Self:
        self.process.start()
        while True:
            assert self._address.poll(120), self.said()
            line: str = self._address.recv()
            if " is at http://" in line:
                self.address = line.partition(" is at ")[2].split()[0]
                return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.join()
        self._said.unlink(missing_ok=True)

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port is not None
        return port

    def said(self) -> str:
        """Return what it said on stderr."""
        return self._said.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        pid = self.process.pid
        assert pid is not None
        os.kill(pid, number)
        self.process.join(20)
        code = self.process.exitcode
        assert code is not None, "it goes on"
        return code


def _serve(
    model: str,
    relations: str | None,
    temporary: str | None,
    limits: dict[str, Any],
    said: str,
    address: Connection,
) -> None:
    """Serve, as the command does, with stderr in a file."""
    os.dup2(os.open(said, os.O_WRONLY), 2)
    if temporary is not None:
        tempfile.tempdir = temporary
    models = Models(model, relations, "", "", "", "cpu", "auto", PredictOptions())
    host = "127.0.0.1"
    held = hold_port(host, 0)

    def complain(line: str) -> None:
        os.write(2, f"{line}\n".encode())

    serve_models(
        models, held, name=model, host=host, say=address.send, complain=complain, limits=Limits(**limits)
    )


def bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """Return a small PNG that says that it holds 400 million pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(3 * 10**6), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
