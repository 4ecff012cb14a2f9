"""What the server answers: the predictor's own answer, and one sentence to whatever else is asked."""

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe import Predictor
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.serve.app import application
from hmnet_pipe.pipeline.serve.body import asked_of
from hmnet_pipe.pipeline.serve.examples import Example, examples_of
from hmnet_pipe.pipeline.serve.limits import DEFAULT_LIMITS, Limits
from hmnet_pipe.pipeline.serve.refusal import Refusal
from starlette.requests import Request
from starlette.testclient import TestClient

from ...running import Demos, wait_until
from ...serving import bomb

pytestmark = pytest.mark.slow

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def model(demos: Demos, tiny_encoder: Path) -> Path:
    return RunFolder(demos.trained(tiny_encoder)).model(Trial("hmnet"))


@pytest.fixture(scope="module")
def find(model: Path) -> Predictor:
    return Predictor.from_pretrained(model, device="cpu")


@pytest.fixture(scope="module")
def examples(model: Path) -> list[Example]:
    return examples_of(model)


def client_of(find: Any, examples: list[Example], limits: Limits = DEFAULT_LIMITS) -> TestClient:
    app = application(find, examples, limits, name="a model", complain=said.append)
    return TestClient(app, base_url=ADDRESS, raise_server_exceptions=False)


said: list[str] = []


@pytest.fixture
def client(find: Predictor, examples: list[Example]) -> Iterator[TestClient]:
    said.clear()
    yield client_of(find, examples)
    assert said == []  # nothing has failed that should not


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_an_answer_is_that_of_the_predictor(
    client: TestClient, find: Predictor, examples: list[Example]
) -> None:
    text, (image, _) = f"🙂 {examples[0].text}", examples[0].image()
    wanted = find(text, image=image, explain=True).to_json()
    assert wanted["image_status"] == "used"
    assert wanted["explanation"]["regions"]
    as_json = client.post("/predict", json={"text": text, "image": encoded(image)})
    assert (as_json.status_code, as_json.json()) == (200, wanted)
    form = client.post("/predict", data={"text": text}, files={"image": ("../../etc/passwd", image)})
    assert (form.status_code, form.json()) == (200, wanted)
    plain = client.post("/predict", json={"text": text, "image": encoded(image), "explain": False}).json()
    assert {**plain, "explanation": wanted["explanation"]} == wanted
    alone = client.post("/predict", data={"text": text, "id": "7"}, files={"image": ("a.png", b"")}).json()
    assert alone == find({"text": text, "id": "7"}, explain=True).to_json()
    tokens = text.split()
    words = client.post("/predict", json={"tokens": tokens, "image": encoded(image)}).json()
    assert words == find({"tokens": tokens, "image": image}, explain=True).to_json()


def test_a_long_text_is_explained_as_far_as_the_model_reads_it_at_once(
    client: TestClient, examples: list[Example]
) -> None:
    text = "Ada in Oslo " * 400
    found = client.post(
        "/predict", data={"text": text}, files={"image": ("a", examples[0].image()[0])}
    ).json()
    assert not found["truncated"]
    spans = found["explanation"]["spans"]
    assert 3 < len(spans) < 1200
    assert text[slice(*spans[3])] == "Ada"


def test_lines_of_a_form_end_as_they_were_typed(client: TestClient, find: Predictor) -> None:
    found = client.post("/predict", files={"text": (None, "Ada\r\nin Oslo")}).json()
    assert found == find("Ada\nin Oslo").to_json()


def typed(content: bytes, kind: str) -> dict[str, Any]:
    return {"content": content, "headers": {"content-type": kind}}


def as_json(content: bytes) -> dict[str, Any]:
    return typed(content, "application/json")


def image_of(data: bytes) -> dict[str, Any]:
    return {"json": {"text": "a", "image": encoded(data)}}


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "no JSON": (as_json(b'{"text": '), 400, "JSON"),
    "not UTF-8": (as_json(b'{"text": "\xff"}'), 400, "JSON"),
    "nested": (as_json(b"[" * 10**6), 400, "JSON"),
    "a long number": (as_json(b'{"id": ' + b"9" * 9999 + b"}"), 400, "JSON"),
    "many values": (as_json(b"[" + b"[]," * 200_000 + b"1]"), 413, "values"),
    "a list": ({"json": ["text"]}, 400, "object"),
    "nothing": ({"json": {}}, 400, "text or tokens"),
    "an unknown key": ({"json": {"text": "a", "images": "b"}}, 400, "'images' is not one of"),
    "text and tokens": ({"json": {"text": "a", "tokens": ["a"]}}, 400, "either"),
    "a number as text": ({"json": {"text": 5}}, 400, "text must be"),
    "numbers as tokens": ({"json": {"tokens": [5]}}, 400, "tokens must be"),
    "empty tokens": ({"json": {"tokens": [""]}}, 422, "tokens"),
    "white space": ({"json": {"text": " \n"}}, 422, "white space"),
    "half a character": ({"json": {"text": "a \ud83d"}}, 422, "surrogate"),
    "a long text": ({"json": {"text": "a" * 20_001}}, 413, "20000 characters"),
    "a path": ({"json": {"text": "a", "image": "/etc/hostname"}}, 400, "paths and addresses are not opened"),
    "an address": ({"json": {"text": "a", "image": "http://127.0.0.1/a.png"}}, 400, "are not opened"),
    "an object as image": ({"json": {"text": "a", "image": {"path": "/etc/hostname"}}}, 400, "base64"),
    "no image": (image_of(b"<html>"), 422, "an HTML page"),
    "an empty image": ({"json": {"text": "a", "image": ""}}, 422, "empty file"),
    "a bomb": (image_of(bomb()), 422, "too large: 20000 x 20000 pixels"),
    "a cut image": (image_of(bomb(1500, 1500)[:900]), 422, "The image cannot be used"),
    "a wrong span": ({"json": {"text": "a", "head": "0-3"}}, 400, "head must be"),
    "explain": ({"json": {"text": "a", "explain": "yes"}}, 400, "explain"),
    "a long id": ({"json": {"text": "a", "id": "a" * 201}}, 400, "id must be"),
    "a path in a form": ({"files": {"text": (None, "a"), "image": (None, "/etc/hosts")}}, 400, "not opened"),
    "another file": ({"files": {"text": ("a.txt", b"a")}}, 400, "a file of the form"),
    "two files": ({"files": [("image", b"a"), ("image", b"b")]}, 400, "Too many files"),
    "a field twice": ({"files": [("text", (None, "a")), ("text", (None, "b"))]}, 400, "more than once"),
    "a long field": ({"files": {"text": (None, "a" * (2**20 + 1))}}, 400, "exceeded maximum size"),
    "a form without a border": (typed(b"a", "multipart/form-data"), 400, "boundary"),
    "another type": (typed(b"text=a", "application/x-www-form-urlencoded"), 415, "Send JSON"),
    "no type": ({"content": b"a"}, 415, "Send JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_sentence(client: TestClient, name: str) -> None:
    sent, status, words = WRONG[name]
    if "json" in sent:  # in letters that can all be written
        sent = as_json(json.dumps(sent["json"]).encode())
    answer = client.post("/predict", **sent)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    sentence = answer.json()["error"]
    assert words in sentence
    assert sentence[0].isupper() or sentence.startswith(
        ("text", "tokens", "image", "id", "head", "explain", "'")
    )
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_a_form_that_is_cut_off_is_not_answered_without_its_image(client: TestClient) -> None:
    whole = (
        b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nAda in Oslo\r\n'
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n\x89PNG\r\n--x--\r\n'
    )
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for length in range(100, len(whole) - 4, 7):
        answer = client.post("/predict", content=whole[:length], headers=kind)
        assert (answer.status_code, answer.json()) == (400, {"error": "The form is cut off before its end."})
    assert client.post("/predict", content=whole, headers=kind).status_code == 422


def test_a_body_is_refused_before_it_is_whole() -> None:
    given: list[int] = []

    async def receive() -> dict[str, Any]:
        given.append(1)
        return {"type": "http.request", "body": b" " * 10_000, "more_body": len(given) < 1000}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(Refusal, match="at most"):
        asyncio.run(asked_of(Request(scope, receive), Limits(body=100_000)))
    assert len(given) == 11


def test_a_body_is_counted_with_and_without_its_length(find: Predictor) -> None:
    client = client_of(find, [], Limits(body=100_000))
    kind = {"content-type": "application/json"}

    def pieces() -> Iterator[bytes]:  # without Content-Length
        yield b'{"text": "Ada in Oslo"'
        for _ in range(1000):
            yield b" " * 10_000
        yield b"}"

    for content in (b" " * 100_001, pieces()):
        answer = client.post("/predict", content=content, headers=kind)
        assert answer.status_code == 413
        assert "at most" in answer.json()["error"]
    fitting = b'{"text": "Ada in Oslo"}'.ljust(100_000)
    assert client.post("/predict", content=fitting, headers=kind).status_code == 200


def test_beyond_the_line_the_model_is_busy(find: Predictor) -> None:
    entered, leave = threading.Event(), threading.Event()
    at_once = []

    class Slow:
        """The predictor, which takes its time."""

        working = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(find, name)

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            Slow.working += 1
            at_once.append(Slow.working)
            entered.set()
            leave.wait(20)
            Slow.working -= 1
            return find(*arguments, **options)

    answers: list[Any] = []
    with client_of(Slow(), [], Limits(line=3)) as client:

        def post() -> None:
            answers.append(client.post("/predict", json={"text": "Ada in Oslo"}))

        threads = [threading.Thread(target=post) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert entered.wait(20)
        wait_until(lambda: client.get("/health").json()["waiting"] == 3, 20)
        refused = client.post("/predict", json={"text": "Ada in Oslo"})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "busy" in refused.json()["error"]
        leave.set()
        for thread in threads:
            thread.join(20)
        assert [answer.json() for answer in answers] == [find("Ada in Oslo").to_json()] * 3
        assert set(at_once) == {1}
        assert client.get("/health").json()["waiting"] == 0


def test_what_takes_too_long_is_given_up(find: Predictor) -> None:
    leave = threading.Event()

    class Stuck:
        def __getattr__(self, name: str) -> Any:
            return getattr(find, name)

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            leave.wait(20)

    with client_of(Stuck(), [], Limits(seconds=0.1)) as client:
        answer = client.post("/predict", json={"text": "Ada in Oslo"})
        assert (answer.status_code, client.get("/health").json()["waiting"]) == (504, 0)
        leave.set()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::1", ""])
def test_another_name_is_refused_as_dns_may_be_rebound(client: TestClient, host: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/examples"), ("POST", "/predict")):
        assert client.request(method, path, headers={"host": host}).status_code == 421


def test_the_names_of_this_machine_are_taken(find: Predictor, client: TestClient) -> None:
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "192.168.1.7:8000"):
        assert client.get("/health", headers={"host": host}).status_code == 200
    named = application(find, [], DEFAULT_LIMITS, name="", host="Box.local")
    assert TestClient(named, base_url="http://box.local:8000").get("/health").status_code == 200


def test_no_other_origin_may_use_or_read_it(client: TestClient) -> None:
    post = {"text": "Ada in Oslo"}
    for foreign in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://[::1"},
        {"origin": "http://127.0.0.1:9000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        assert client.post("/predict", json=post, headers=foreign).status_code == 403
    own = {"origin": ADDRESS, "sec-fetch-site": "same-origin"}
    answers = [
        client.post("/predict", json=post, headers=own),
        client.post("/predict", json=post, headers={"origin": "http://evil.example"}),
        client.options("/predict", headers={"origin": "http://evil.example"}),
        *(client.get(path) for path in ("/", "/page.js", "/health", "/examples", "/examples/0/image", "/no")),
        client.get("/", headers={"host": "evil.example"}),
    ]
    assert answers[0].status_code == 200
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_examples_are_the_runs_test_posts_and_no_path_is_one(
    client: TestClient, examples: list[Example]
) -> None:
    listed = client.get("/examples").json()["examples"]
    assert [one["text"] for one in listed] == [one.text for one in examples]
    assert examples
    for one, example in zip(listed, examples, strict=True):
        answer = client.get(one["image"])
        assert answer.content == example.path.read_bytes()
        assert answer.headers["content-type"].startswith("image/")
    for number in (len(examples), "-1", "9" * 5000, "..%2f..%2frun.toml", "٣", "0x0"):
        assert client.get(f"/examples/{number}/image").status_code == 404
    for path in ("/page/../app.py", "/..%2fapp.py", "/page.html", "/docs"):
        assert client.get(path).status_code == 404
    refused = client.get("/predict")
    assert (refused.status_code, refused.json()) == (405, {"error": "This address takes POST alone."})


def test_a_model_outside_a_run_has_no_examples(model: Path, tmp_path: Path) -> None:
    assert examples_of(tmp_path / "model", 10**9) == []
    assert examples_of(model, 10) == []  # no image is as small


def test_what_should_not_fail_is_said_in_the_terminal_alone(find: Predictor) -> None:
    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(find, name)

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            raise RuntimeError("a secret")

    said.clear()
    answer = client_of(Failing(), []).post("/predict", json={"text": "Ada in Oslo"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert said[-1] == "RuntimeError: a secret"
