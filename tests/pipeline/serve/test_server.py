"""The server as a process: many clients at once, hostile ones among them, and its end by a signal."""

import base64
import http.client
import json
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from hmnet_pipe import Predictor
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.serve.examples import examples_of

from ...running import Demos, hmnet_words, wait_until
from ...serving import Serving, bomb

pytestmark = pytest.mark.slow

CLIENTS, REQUESTS = 16, 200
HASTY = {"header_seconds": 1.0, "body_seconds": 1.5, "seconds": 3.0}
# Many at once may wait for the event loop.
BUSY = {"header_seconds": 4.0, "body_seconds": 4.0}


@pytest.fixture(scope="module")
def model(demos: Demos, tiny_encoder: Path) -> Path:
    return RunFolder(demos.trained(tiny_encoder)).model(Trial("hmnet"))


def answered(port: int, body: bytes, kind: str) -> tuple[int, Any]:
    """Post a body, again and again while the model is busy, and return the status and the JSON."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/predict", body, {"Content-Type": kind})
            answer = connection.getresponse()
            found = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 503:
            return answer.status, found
        time.sleep(0.05 * float(answer.headers["Retry-After"]))


def waiting(server: Serving) -> int:
    """Return how many requests are at work or wait."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/health")
    found = json.loads(connection.getresponse().read())["waiting"]
    connection.close()
    return int(found)


def as_json(text: str, image: bytes | None) -> tuple[bytes, str]:
    values = {"text": text, **({} if image is None else {"image": base64.b64encode(image).decode()})}
    return json.dumps(values).encode(), "application/json"


def as_form(text: str, image: bytes | None) -> tuple[bytes, str]:
    parts = [f'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n{text}\r\n'.encode()]
    if image is not None:
        head = '--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        parts += [head.encode(), image, b"\r\n"]
    return b"".join([*parts, b"--x--\r\n"]), "multipart/form-data; boundary=x"


def raw(port: int, *pieces: bytes, pause: float = 0.001) -> bytes:
    """Send pieces of a request with pauses, and return what comes back until the server closes."""
    received = b""
    left = list(pieces)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while True:
            try:
                connection.settimeout(30)
                if left:
                    connection.sendall(left.pop(0))
                connection.settimeout(pause if left else 30)
                part = connection.recv(2**16)
            except TimeoutError:
                assert left, "it waits for ever"
                continue
            except (ConnectionResetError, BrokenPipeError):
                return received
            if not part:
                return received
            received += part


HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
)
SLOWLY: dict[str, tuple[tuple[bytes, ...], bytes]] = {
    "nothing": ((), b""),
    "half a head": ((HEAD % 100,), b""),
    "a head letter by letter": (tuple(bytes([letter]) for letter in HEAD % 100) * 5, b""),
    "no body": ((HEAD % 100 + b"\r\n",), b"HTTP/1.1 408 "),
    "a body letter by letter": ((HEAD % 100 + b"\r\n", *[b" "] * 99), b"HTTP/1.1 408 "),
    "a body without an end": (
        (
            HEAD.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked") + b"\r\n",
            *[b"1\r\n \r\n"] * 100,
        ),
        b"HTTP/1.1 408 ",
    ),
}


@pytest.fixture(scope="module")
def hasty(model: Path) -> Iterator[Serving]:
    with Serving(model, limits=HASTY) as server:
        yield server


def test_whoever_sends_slowly_is_cut_off(hasty: Serving) -> None:
    found: dict[str, tuple[bytes, float]] = {}

    def send(name: str) -> None:
        begun = time.monotonic()
        received = raw(hasty.port, *SLOWLY[name][0], pause=0.05)
        found[name] = received, time.monotonic() - begun

    threads = [threading.Thread(target=send, args=[name]) for name in SLOWLY]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name, (_, start) in SLOWLY.items():
        received, seconds = found[name]
        assert received.startswith(start), name
        assert start or not received, name
        # A letter goes out each 0.05 s, and the connection may be lost only at the next ones.
        assert seconds < 10, name
    assert answered(hasty.port, *as_json("Ada in Oslo", None))[0] == 200


def test_a_body_that_goes_on_after_its_answer_is_cut_off(hasty: Serving) -> None:
    begun = time.monotonic()
    endless = [b" " * 10_000] * 2000
    received = raw(hasty.port, HEAD % 10**9 + b"\r\n", *endless, pause=0.01)
    assert received.startswith(b"HTTP/1.1 413 ") or not received
    assert time.monotonic() - begun < 10


def test_whoever_does_not_take_the_answers_is_cut_off(hasty: Serving) -> None:
    process = psutil.Process(hasty.process.pid)
    with socket.create_connection(("127.0.0.1", hasty.port)) as connection:
        own = connection.getsockname()[1]

        def held() -> bool:
            return any(each.raddr and each.raddr.port == own for each in process.net_connections("tcp"))

        wait_until(held, 10)
        with suppress(ConnectionError):  # where it is cut off before all is sent
            connection.sendall(b"GET /page.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 2000)
        wait_until(lambda: not held(), 30)


def test_good_requests_among_hostile_ones_are_answered_right(model: Path, tmp_path: Path) -> None:
    find = Predictor.from_pretrained(model, device="cpu")
    posts: list[tuple[str, bytes | None]] = [(one.text, one.image()[0]) for one in examples_of(model)[:2]]
    posts += [(posts[0][0], posts[1][1]), ("Ada Lovelace in Oslo 🙂", None)]
    posts += [(one.text, None) for one in examples_of(model)[:10]]  # which cost a third of those with images
    wanted = [find(text, image=image, explain=True).to_json() for text, image in posts]
    assert len({json.dumps(one) for one in wanted}) == len(posts)
    draw = random.Random(1)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    wrong: list[object] = []
    good = 0

    def ask(port: int, number: int) -> None:
        nonlocal good
        form = as_form if number % 2 else as_json
        found = answered(port, *form(*posts[number % len(posts)]))
        if found != (200, wanted[number % len(posts)]):
            wrong.append((number, found))
        good += 1

    def refused(status: int, body: bytes, kind: str) -> Callable[[int], None]:
        def send(port: int) -> None:
            found = answered(port, body, kind)
            if found[0] != status or list(found[1]) != ["error"]:
                wrong.append(found)

        return send

    cut_form, form_kind = as_form(posts[0][0], posts[0][1])
    half = HEAD % 1000 + b'\r\n{"text": "Ada in'

    def hang_up(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(half)

    hostile: list[Callable[[int], Any]] = [
        *[hang_up] * 3,
        *[refused(400, cut_form[:-9], form_kind)] * 3,
        *[refused(422, *as_json("a", bomb()))] * 3,
        *[refused(422, *as_form("a", bomb(10_000, 8_000)))] * 2,
        *[refused(400, b'{"text": 5}', "application/json")] * 2,
        *[refused(415, b"a", "text/plain")] * 2,
        *[lambda port: raw(port, *SLOWLY["a body letter by letter"][0], pause=0.1)] * 3,
        *[lambda port: raw(port, HEAD % 30_000_000 + b"\r\n", *[b" " * 10**6] * 30)] * 2,
    ]
    assert len(hostile) == 20
    work: queue.SimpleQueue[Callable[[int], Any]] = queue.SimpleQueue()
    everything = [*hostile, *[lambda port, i=i: ask(port, i) for i in range(REQUESTS - len(hostile))]]
    draw.shuffle(everything)
    for one in everything:
        work.put(one)

    with Serving(model, limits=BUSY, temporary=temporary) as server:
        process = psutil.Process(server.process.pid)
        before = most = process.memory_info().rss

        def client() -> None:
            while True:
                try:
                    one = work.get_nowait()
                except queue.Empty:
                    return
                try:
                    one(server.port)
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most = max(most, process.memory_info().rss)
            time.sleep(0.02)
        assert wrong == []
        assert good == REQUESTS - len(hostile)
        assert most - before < 600e6, f"{(most - before) / 1e6:.0f} MB more"
        assert waiting(server) == 0

        # A request is at work and another one waits when the signal comes.
        ends: list[BaseException] = []

        def cut() -> None:
            try:
                answered(server.port, *as_json(posts[0][0], posts[0][1]))
            except (OSError, http.client.HTTPException) as error:
                ends.append(error)

        late = [threading.Thread(target=cut) for _ in range(4)]
        for thread in late:
            thread.start()
        wait_until(lambda: waiting(server) >= 2, 20)
        begun = time.monotonic()
        code = server.end()
        assert time.monotonic() - begun < 2
        for thread in late:
            thread.join(20)
        assert ends
        assert code == 143
        assert server.said() == "\nStopped by SIGTERM: the page is gone, and its port is free.\n"
        with socket.create_server(("127.0.0.1", server.port)):
            pass
    assert list(temporary.iterdir()) == []  # no picture is left


def test_a_port_in_use_and_an_address_of_another_machine_are_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = CliRunner().invoke(main, ["serve", "nowhere", "--port", str(port)])
    assert (done.exit_code, done.output) == (
        1,
        f"Error: port {port} of 127.0.0.1 is in use; give another with --port, or --port 0 for one that is "
        "free\n",
    )
    done = CliRunner().invoke(main, ["serve", "nowhere", "--host", "192.0.2.1", "--port", "0"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: 192.0.2.1 is no address of this machine (")
    assert done.output.endswith("; give one with --host\n")


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "python_multipart"])
def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = CliRunner().invoke(main, ["serve", "nowhere"])
    assert done.exit_code == 2
    assert f"serve needs {package}, " in done.output
    assert "pip install 'hmnet-pipe[serve]'" in done.output


def test_the_command_serves_a_relative_run_until_ctrl_c(demos: Demos, tiny_encoder: Path) -> None:
    run = demos.trained(tiny_encoder)
    words = hmnet_words("serve", run.name, "--port", 0, "--device", "cpu")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Tests that a shell runs in the background ignore Ctrl-C, and so would what they start.
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(words, cwd=run.parent, **pipes) as process:
        try:
            line = process.stdout.readline()
            address = re.fullmatch(rf"{run.name} is at http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line)
            assert address, line + process.stderr.read()
            assert answered(int(address[1]), *as_json("Ada in Oslo", None))[0] == 200
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, output) == (130, "")
    assert errors.endswith("\nInterrupted: the page is gone, and its port is free.\n")
