"""The page in a real browser: what a person does with it, by mouse and by keyboard."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hmnet_pipe import Predictor
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.serve.examples import Example, examples_of
from playwright.sync_api import Browser, Page, expect

from ...browser import Visit, serious_faults, visit
from ...running import Demos, bring_up_to_date, configure, model_of
from ...serving import Serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(demos: Demos, tiny_encoder: Path) -> Path:
    return demos.trained(tiny_encoder)


@pytest.fixture(scope="module")
def relations(demos: Demos, tiny_encoder: Path) -> Path:
    return demos.trained(tiny_encoder, "re")


@pytest.fixture(scope="module")
def server(run: Path, relations: Path) -> Iterator[Serving]:
    with Serving(model_of(run), model_of(relations)) as server:
        yield server


@pytest.fixture(scope="module")
def find(run: Path, relations: Path) -> Predictor:
    return Predictor.from_pretrained(model_of(run), relations=model_of(relations), device="cpu")


@pytest.fixture(scope="module")
def example(run: Path) -> Example:
    return examples_of(model_of(run))[0]


@pytest.fixture
def seen(chromium: Browser, server: Serving) -> Iterator[Visit]:
    """Yield a visit of the page, which complains of nothing and asks for nothing elsewhere."""
    with visit(chromium, server.address) as seen:
        expect(seen.page.locator("#model")).to_contain_text("hmnet")
        yield seen
    assert seen.errors == []
    assert seen.elsewhere("127.0.0.1") == []
    assert seen.requests


def ask(page: Page, text: str, image: Path | None = None) -> None:
    """Type a text, choose an image, and wait for the answer."""
    page.locator("#text").fill(text)
    if image is not None:
        page.locator("#image").set_input_files(image)
        expect(page.locator("#preview")).to_be_visible()
    page.locator("#run").click()
    expect(page.locator("#status")).to_contain_text("Found ")


def test_a_typed_text_and_a_chosen_image_are_answered_as_the_predictor_does(
    seen: Visit, find: Predictor, example: Example
) -> None:
    page, text = seen.page, f"🙂🙂 {example.text} <b>&amp;</b>"
    ask(page, text, example.path)
    wanted = find(text, image=example.path, explain=True)
    marks = page.locator(".text mark")
    assert marks.count() == len(wanted.entities) > 0
    for number, one in enumerate(wanted.entities):
        mark = marks.nth(number)
        assert mark.get_attribute("data-type") == one.entity_group
        # The offsets count an emoji as one character, and JavaScript as two.
        assert mark.inner_text().startswith(one.word)
        assert f"{one.entity_group} {100 * one.score:.1f} %" in mark.inner_text()
    assert page.locator(".box span").count() == len(wanted.objects)
    said = page.locator(".side li").all_inner_texts()
    for relation in wanted.relations:
        assert any(f": {relation.relation}, {100 * relation.score:.1f} %" in line for line in said)
    assert page.locator(".text b").count() == 0
    page.locator(".text .type").evaluate_all("labels => labels.forEach(one => one.remove())")
    assert page.locator(".text").text_content() == text


def test_an_example_that_cannot_be_fetched_is_one_sentence(chromium: Browser, server: Serving) -> None:
    with visit(chromium, server.address) as seen:
        page = seen.page
        expect(page.locator("#examples option")).not_to_have_count(1)
        page.route("**/examples/0/image", lambda route: route.abort())
        page.locator("#examples").select_option("0")
        expect(page.locator("#problem")).to_contain_text("The server does not answer")
        # The browser's own line about the request, and no rejection that nobody takes.
        assert [line for line in seen.errors if "Failed to load" not in line] == []


def test_a_word_lights_up_what_it_looks_at(seen: Visit, find: Predictor, example: Example) -> None:
    page = seen.page
    ask(page, example.text, example.path)
    explanation = find(example.text, image=example.path, explain=True).to_json()["explanation"]
    lit = page.locator(".lit")
    assert lit.count() == len(explanation["regions"])

    def share(word: int, region: int) -> float:
        layers = explanation["attention"]
        return float(sum(layer[word][region] for layer in layers) / len(layers))

    def light() -> list[float]:
        return [float(one) for one in lit.evaluate_all("all => all.map(one => one.style.opacity)")]

    assert light() == [0] * lit.count()
    words = page.locator(".word")
    assert words.count() == len(explanation["spans"])
    words.nth(1).hover()
    hovered = light()
    regions = range(len(explanation["regions"]))
    assert max(hovered) > 0
    shown = page.locator(".regions .share").all_inner_texts()
    assert shown == [f"{100 * share(1, region):.1f} %" for region in regions]
    # By keyboard: one stop for the whole text, and the arrow keys from word to word.
    page.mouse.move(0, 0)
    words.nth(0).focus()
    assert light() != hovered
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == words.nth(1).inner_text()
    assert light() == hovered
    expect(page.locator("#looking")).to_contain_text(words.nth(1).inner_text())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") != "word"
    assert light() == [0] * lit.count()


def test_the_switch_shows_both_sides(seen: Visit, find: Predictor, example: Example) -> None:
    page = seen.page
    page.evaluate(
        """() => {
          window.withImage = [];
          const real = window.fetch;
          window.fetch = (...given) => (window.withImage.push(given[1].body.has("image")), real(...given));
        }"""
    )
    ask(page, example.text, example.path)
    assert page.locator(".side").count() == 1
    assert page.evaluate("withImage") == [True]
    page.get_by_role("switch", name="Also without the image").check()
    expect(page.locator(".side")).to_have_count(2)
    assert page.locator(".side h2").all_inner_texts() == ["With the image", "Without the image"]
    assert page.evaluate("withImage") == [True, True, False]
    for side, image in enumerate((example.path, None)):
        wanted = find(example.text, image=image)
        marks = page.locator(".side").nth(side).locator("mark .type").all_inner_texts()
        assert marks == [f"{one.entity_group} {100 * one.score:.1f} %" for one in wanted.entities]
    page.get_by_role("switch").uncheck()
    expect(page.locator(".side")).to_have_count(1)


def test_a_test_post_is_picked(seen: Visit, example: Example) -> None:
    page = seen.page
    page.get_by_label("Or a test post").select_option("0")
    expect(page.locator("#status")).to_contain_text("Found ")
    assert page.locator("#text").input_value() == example.text
    assert page.locator("#photo").is_visible()
    page.get_by_role("button", name="Remove the image").click()
    page.locator("#run").click()
    expect(page.locator("#photo")).to_be_hidden()


def test_an_image_is_pasted_and_dropped(seen: Visit, example: Example) -> None:
    page = seen.page
    given = """([bytes, kind]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, {type: "image/png"}));
      const options = {bubbles: true, cancelable: true};
      const event = kind === "paste" ? new ClipboardEvent(kind, {...options, clipboardData: data})
                                     : new DragEvent(kind, {...options, dataTransfer: data});
      document.body.dispatchEvent(event);
    }"""
    for kind in ("paste", "drop"):
        page.evaluate(given, [list(example.path.read_bytes()), kind])
        expect(page.locator("#filename")).to_contain_text(f"{kind}.png")
    ask(page, example.text)
    assert page.locator("#photo").is_visible()


def test_a_wrong_file_and_a_large_one_are_one_sentence(seen: Visit, example: Example, tmp_path: Path) -> None:
    page, problem = seen.page, seen.page.get_by_role("alert")
    (tmp_path / "large.jpg").write_bytes(example.path.read_bytes().ljust(30_000_000))
    (tmp_path / "notes.png").write_text("<html>no image</html>")
    page.locator("#text").fill(example.text)
    page.locator("#image").set_input_files(tmp_path / "large.jpg")
    expect(problem).to_have_text("large.jpg has 30.0 MB, and at most 19.8 MB can be sent.")
    page.locator("#image").set_input_files(tmp_path / "notes.png")
    expect(problem).to_be_hidden()
    page.locator("#run").click()
    expect(problem).to_have_text("The image cannot be used: not an image that is read: an HTML page.")
    expect(page.locator("#results")).to_be_hidden()
    # The browser itself writes each answer of 4xx into its console.
    assert [error for error in seen.errors if "422" not in error] == []
    seen.errors.clear()
    ask(page, example.text, example.path)
    expect(problem).to_be_hidden()


def test_two_tabs_at_once(chromium: Browser, server: Serving, find: Predictor, example: Example) -> None:
    texts = [example.text, "Ada Lovelace in Oslo"]
    with visit(chromium, server.address) as one, visit(chromium, server.address) as other:
        for seen, text in zip((one, other), texts, strict=True):
            seen.page.locator("#text").fill(text)
        for seen in (one, other):  # not waiting for each other
            seen.page.locator("#run").click(no_wait_after=True)
        for seen, text in zip((one, other), texts, strict=True):
            expect(seen.page.locator("#status")).to_contain_text("Found ")
            marks = seen.page.locator("mark .type").all_inner_texts()
            assert marks == [f"{each.entity_group} {100 * each.score:.1f} %" for each in find(text).entities]
            assert seen.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nobody_is_shut_out(
    chromium: Browser, server: Serving, example: Example, width: int, scheme: Literal["light", "dark"]
) -> None:
    with visit(chromium, server.address, width=width, scheme=scheme) as seen:
        page = seen.page
        expect(page.locator("#model")).to_contain_text("hmnet")
        assert serious_faults(page) == []
        page.get_by_role("switch").check()
        ask(page, example.text, example.path)
        page.locator(".word").nth(1).focus()
        assert serious_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_model_of_relations_asks_for_a_pair(chromium: Browser, relations: Path) -> None:
    model = model_of(relations)
    pair = examples_of(model)[0]
    find = Predictor.from_pretrained(model, device="cpu")
    with Serving(model) as server, visit(chromium, server.address) as seen:
        page = seen.page
        page.get_by_label("Or a test post").select_option("0")
        expect(page.locator("#status")).to_have_text("Found 1 relation.")
        wanted = find(pair.text, image=pair.path, head=pair.head, tail=pair.tail).relations[0]
        assert f"{wanted.relation}, {100 * wanted.score:.1f} %" in page.locator(".side li").inner_text()
        assert page.locator(".word").count() == 2
        page.get_by_label("Head").fill("not in the text")
        page.locator("#run").click()
        expect(page.get_by_role("alert")).to_have_text("The head must be words of the text.")
        assert serious_faults(page) == []
    assert seen.errors == []


def test_a_model_without_images_shows_no_place_for_one(
    chromium: Browser, run: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(run, tmp_path / "run"))
    configure(own, "train", epochs=1)
    bring_up_to_date(own, "train", trial=Trial("bert-crf"))
    with Serving(model_of(own, Trial("bert-crf"))) as server, visit(chromium, server.address) as seen:
        page = seen.page
        expect(page.locator("#model")).to_contain_text("bert-crf")
        expect(page.locator("#picked")).to_be_visible()
        assert not page.locator("#drop").is_visible()
        assert not page.get_by_role("switch").is_visible()
        ask(page, json.dumps("Ada in Oslo"))
        assert serious_faults(page) == []
    assert seen.errors == []
