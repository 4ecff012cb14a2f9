"""The report: its numbers are those of evaluate and table, and whatever the data hold, it is a quiet page."""

import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import EXPLANATIONS, IMAGES, MENTION_BOXES, PREDICTIONS, SAMPLES
from hmnet_pipe.manifests.tables import read_table, table_of, write_table
from hmnet_pipe.manifests.trial import AS_PUBLISHED, Trial
from hmnet_pipe.pipeline import report
from hmnet_pipe.pipeline.report.data import Box, Drawn, Photo
from hmnet_pipe.pipeline.report.drawing import photo
from hmnet_pipe.pipeline.report.make import Asked, make_report
from hmnet_pipe.pipeline.run.evaluate import evaluate_trial
from hmnet_pipe.pipeline.run.score import score_predictions
from hmnet_pipe.pipeline.run.trainings import differences, finished_trainings
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.evaluate.recorded import Evaluation
from playwright.sync_api import Browser

from ...browser import serious_faults, visit
from ...pages import Element, parsed
from ...running import HMNET, Demos, bring_up_to_date, model_of

SIZES = {"train": 16, "valid": 6, "test": 6}
SECTIONS = [
    "1. The table",
    "2. Is the image used?",
    "3. Errors",
    "4. Cases with pictures",
    "5. Inside the model",
    "6. The data",
    "7. Provenance",
]
HOSTILE = [
    "<script>alert(1)</script>",
    "\x1b[31mred",
    "a&amp;b",
    "\u202etfel",
    '"><img/src=x>',
    "</style>",
    "{{7*7}}",
]
TASKS = {"ner": "bert-crf", "re": "mtb"}


def trained(demos: Demos, folder: Path, encoder: Path, task: str) -> Path:
    run = Path(shutil.copytree(demos.run(task, sizes=SIZES), folder / task))
    for trial in (HMNET, Trial(TASKS[task])):
        options: dict[str, Any] = {"encoder": str(encoder), "epochs": 2, "first_evaluation": 1}
        bring_up_to_date(run, "train", trial=trial, **options)
    return run


@pytest.fixture(scope="module")
def runs(demos: Demos, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> dict[str, Path]:
    """Return a run of each task with a system that reads images and one that does not, and their reports."""
    folder = tmp_path_factory.mktemp("reports")
    found = {task: trained(demos, folder, tiny_encoder, task) for task in TASKS}
    for run in found.values():
        made(run)
    return found


@pytest.fixture
def copy(runs: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs["ner"], tmp_path / "run"))


def made(
    *runs: Path,
    asked: Asked | None = None,
    lock: Any = "[a]\nb = 1\n",
    output: Path | None = None,
    **more: Any,
) -> str:
    """Make a report as the command does, and return the page."""
    path = output or runs[0] / "report.html"
    command = f"hmnet-pipe report {runs[0]}"
    make_report(
        [RunFolder(run) for run in runs], [lock] * len(runs), path, asked or Asked(), command=command, **more
    )
    return path.read_text(encoding="utf-8")


def page_of(run: Path) -> Element:
    return parsed((run / "report.html").read_text(encoding="utf-8"))


def shown(cell: Element) -> float:
    """Return the number behind a cell, having looked that it is what the cell says, in percent."""
    value = float(cell.attributes["data-value"] or "")
    written = re.split(r"[ ±]", cell.text)[0].replace("−", "-")
    assert written in (f"{100 * value:.2f}", f"{100 * value:+.2f}", f"{100 * value:.1f}", f"{value:.2f}")
    return value


def recorded(run: Path, name: str) -> dict[str, Any]:
    return Evaluation.read(model_of(run) / f"evaluation-{name}.json").scores


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_table_has_the_numbers_of_the_command_table(runs: dict[str, Path], task: str) -> None:
    run = runs[task]
    metrics = {one["system"]: one for one in finished_trainings(RunFolder(run))}
    tested = differences(RunFolder(run), list(metrics.values()), TASKS[task])["hmnet"]
    table = page_of(run).first("table", "scores")
    assert [row[0].text for row in table.rows()] == list(metrics)
    for row, one in zip(table.rows(), metrics.values(), strict=True):
        names = ("precision", "recall", "f1")
        assert [shown(cell) for cell in row[2:5]] == [one["test"][name] for name in names]
        assert shown(row[5]) == one["valid"]["f1"]
    hmnet = next(row for row in table.rows() if row[0].text == "hmnet")
    assert shown(hmnet[6]) == tested["value"]
    assert hmnet[8].text == f"{tested['p_holm']:.4f}"
    types = page_of(run).first("table", "types")
    if task == "ner":
        heads = [cell.text for cell in types.first("thead").all("th")][1:]
        for row in types.rows()[:-1]:
            scores = metrics[row[0].text]["test"]["per_type"]
            assert {name: shown(cell) for name, cell in zip(heads, row[1:], strict=True)} == {
                name: scores[name]["f1"] for name in heads
            }


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_images_errors_gates_and_calibration_are_what_evaluate_computed(
    runs: dict[str, Path], task: str
) -> None:
    run, page = runs[task], page_of(runs[task])
    as_is, shuffled, without = (
        recorded(run, name) for name in ("test", "test-shuffled", "test-without-images")
    )
    uses = page.first("table", "uses").rows()
    assert [row[0].text for row in uses] == ["all", *as_is["per_group"]]
    for row in uses:
        group = row[0].text
        scores = [one if group == "all" else one["per_group"][group] for one in (as_is, shuffled, without)]
        assert [shown(row[column]) for column in (2, 3, 5)] == [one["f1"] for one in scores]
        assert row[1].text == str(scores[0]["support"])
    errors = as_is["errors"]
    kinds = page.first("table", "kinds").rows()
    named = {
        kind: count for kind, count in errors["kinds"].items() if task == "ner" or "boundary" not in kind
    }
    assert [cell.text for cell in next(row for row in kinds if row[0].text == "hmnet")[1:]] == [
        str(count) for count in named.values()
    ]
    counts = [[cell.text for cell in row[1:]] for row in page.first("table", "confusion").rows()]
    assert counts[:-1] == [list(map(str, row)) for row in errors["confusion"]["counts"][:-1]]
    if task == "ner":
        for row, scheme in zip(
            page.first("table", "schemes").rows(), errors["schemes"].values(), strict=True
        ):
            assert [shown(cell) for cell in row[1:]] == [
                scheme[name] for name in ("precision", "recall", "f1")
            ]
    said = [one for one in page.all("span") if "data-value" in one.attributes and one.text.count(".") == 1]
    assert shown(said[0]) == as_is["calibration"]["as_it_is"]["error"]
    gates = [table for table in page.all("table") if "gates" in (table.attributes.get("class") or "")]
    rows = read_table(model_of(run) / "explanation-test.parquet", EXPLANATIONS, "evaluate").to_pylist()
    assert len(gates) == max(sum(row["views"]) for row in rows)
    for view, table in enumerate(gates):
        assert len(table.rows()) == len(rows[0]["gates"])
        there = [row["gates"] for row in rows if row["views"][view]]
        for layer, cells in enumerate(table.rows()):
            means = [sum(one[layer][view][level] for one in there) / len(there) for level in range(4)]
            assert [shown(cell) for cell in cells[1:]] == pytest.approx(means, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_report_is_a_whole_page_that_needs_nothing_else(runs: dict[str, Path], task: str) -> None:
    text = (runs[task] / "report.html").read_text(encoding="utf-8")
    page = parsed(text)
    assert len(text) < 10_000_000
    assert [one.text for one in page.all("h2")] == SECTIONS
    assert not list(page.all("script", "link", "iframe", "object", "form", "base"))
    for element in page.all():
        for name, value in element.attributes.items():
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert str(value).startswith(("#", "data:image/jpeg;base64,")), (element.name, name, value)
            assert not name.startswith("on"), (element.name, name)
    assert "url(" not in text
    assert "@import" not in text
    policy = next(one for one in page.all("meta") if "http-equiv" in one.attributes)
    assert str(policy.attributes["content"]).startswith("default-src 'none'")
    assert "data:image/jpeg;base64," in text
    assert "hmnet-pipe report" in page.first("footer").text
    assert "[a] b = 1" in page.text  # the lock


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_report_can_be_read_by_ear_and_by_keys(runs: dict[str, Path], task: str) -> None:
    page = page_of(runs[task])
    ids = [one.attributes["id"] for one in page.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    levels = [int(one.name[1]) for one in page.all("h1", "h2", "h3", "h4", "h5")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels
    assert page.first("html").attributes["lang"] == "en"
    for table in page.all("table"):
        assert table.first("caption").text
        heads = list(table.first("thead").all("th"))
        assert all(one.attributes.get("scope") == "col" and one.text for one in heads)
        for row in table.rows():
            assert row[0].name == "th"
            assert row[0].attributes["scope"] == "row"
            assert len(row) == len(heads), table.first("caption").text
    for svg in page.all("svg"):
        hidden = svg.attributes.get("aria-hidden") == "true"
        assert hidden or (svg.attributes["role"] == "img" and len(svg.attributes["aria-label"] or "") > 10)
    for element in page.all():
        for name in ("aria-labelledby", "href"):
            target = element.attributes.get(name) or ""
            if target and (name == "aria-labelledby" or target.startswith("#")):
                assert target.removeprefix("#") in ids, element
    for region in page.all("div"):
        if "scroll" in (region.attributes.get("class") or "") and list(region.all("table")):
            assert region.attributes["tabindex"] == "0"
            assert region.attributes["aria-label"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "width", "scheme"), [("ner", 1280, "light"), ("ner", 390, "light"), ("re", 390, "dark")]
)
def test_a_browser_shows_the_report_from_its_file(
    chromium: Browser, runs: dict[str, Path], task: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    """Every section is there, without a script too; nothing is asked for, and nothing bars a reader."""
    address = (runs[task] / "report.html").as_uri()
    with visit(chromium, address, width=width, scheme=scheme) as seen:
        sections = seen.page.locator("section")
        assert sections.count() == len(SECTIONS)
        for section, title in zip(sections.all(), SECTIONS, strict=True):
            assert section.locator("h2").inner_text() == title
            box = section.bounding_box()
            assert box is not None
            assert box["height"] > 80
        assert seen.page.evaluate("document.documentElement.scrollWidth") == width
        widths = "[...document.querySelectorAll('image')].map(one => one.getBoundingClientRect().width)"
        pictures = seen.page.evaluate(widths)
        assert pictures
        assert 100 < min(pictures) <= max(pictures) <= width - 30
        assert serious_faults(seen.page) == []
        seen.page.get_by_role("link", name=SECTIONS[-1]).click()
        assert seen.page.url.endswith("#provenance")
    assert seen.errors == []
    assert seen.elsewhere() == []
    with visit(chromium, address, width=width, java_script_enabled=False) as seen:
        assert seen.page.locator("section h2").all_inner_texts() == SECTIONS


def with_text(run: Path, words: list[str]) -> list[str]:
    """Write words over those of every test sample, and ids that hold them; return the ids."""
    path = RunFolder(run).samples
    rows = read_table(path, SAMPLES).to_pylist()
    ids = []
    for number, row in enumerate(rows):
        row["tokens"] = [words[i % len(words)] for i in range(len(row["tokens"]))]
        if row["split"] == "test":
            row["id"] = f"{number} {words[number % len(words)]}"
            ids.append(row["id"])
    write_table(path, table_of(SAMPLES, rows))
    for trial in (HMNET, Trial("bert-crf")):
        predictions = model_of(run, trial) / "predictions.parquet"
        found = read_table(predictions, PREDICTIONS).to_pylist()
        for row, id_ in zip(found, ids, strict=True):
            row["id"] = id_
        write_table(predictions, table_of(PREDICTIONS, found))
    return ids


@pytest.mark.slow
def test_text_of_the_data_is_shown_and_steers_nothing(copy: Path) -> None:
    ids = with_text(copy, HOSTILE)
    text = made(copy, asked=Asked(cases=(ids[0],)))
    page = parsed(text)
    assert not list(page.all("script", "img"))
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert r"\x1b[31mred" in page.text
    assert "a&amp;b" in page.text
    assert r"\u202etfel" in page.text
    assert "{{7*7}}" in page.text
    assert len(list(page.all("style"))) == 1
    assert any(one.text.startswith(ids[0][:4]) for one in page.all("h4"))


@pytest.mark.slow
def test_photos_and_texts_are_left_out_on_request(copy: Path) -> None:
    words = {
        word for row in read_table(RunFolder(copy).samples, SAMPLES).to_pylist() for word in row["tokens"]
    }
    names = [word for word in words if len(word) > 5 and word[0].isupper()]
    whole = made(copy)
    assert any(name in whole for name in names)
    bare = made(copy, asked=Asked(images=False, texts=False))
    assert "data:image" not in bare
    assert not [name for name in names if name in bare]
    assert "test-0000" in bare


def test_boxes_of_mentions_are_told_from_objects_by_their_line() -> None:
    sides = (0.25, 0.5, 0.75, 1.0)
    picture = Photo(None, 200, 100, (Box(1, "ball", 0.9, sides),), (Drawn('PER "Ada"', sides),))
    [svg] = parsed(str(photo(picture, (), None))).all("svg")
    rects = {one.attributes["class"]: one for one in svg.all("rect")}
    place = {"x": "50", "y": "50", "width": "100", "height": "50"}
    for name in ("box", "under", "drawn"):
        assert place.items() <= rects[name].attributes.items()
    assert list(rects)[-2:] == ["under", "drawn"], "above the frame of the object, which may be the same"
    assert rects["drawn"].text == 'drawn by a person for PER "Ada"'
    assert svg.attributes["aria-label"] == (
        'Outline of a photo that is left out; detected objects: ball 90%; boxes of mentions: PER "Ada"'
    )
    [foot] = [one for one in svg.all("text") if one.text == 'PER "Ada"']
    assert foot.attributes["y"] == "95"
    style = (Path(report.__file__).parent / "templates" / "style.css").read_text()
    lines = dict(re.findall(r"^svg \.(\w+) {(.*)}$", style, re.MULTILINE))
    dashed = {name: "stroke-dasharray" in lines[name] for name in ("box", "under", "drawn")}
    assert dashed == {"box": False, "under": False, "drawn": True}


@pytest.mark.slow
def test_boxes_of_mentions_are_drawn_and_what_grounds_on_them_is_a_table(copy: Path) -> None:
    run = RunFolder(copy)
    assert "A dashed frame" not in made(copy)
    samples = {
        row["id"]: row
        for row in read_table(run.samples, SAMPLES).to_pylist()
        if row["image_key"] and any(tag != "O" for tag in row["tags"])
    }
    places = {name: [tag != "O" for tag in row["tags"]].index(True) for name, row in samples.items()}
    half = {"x0": 0, "y0": 0, "x1": 80, "y1": 160}
    boxes = [
        {"id": name, "words": (at, at + 1), "type": samples[name]["tags"][at][2:], **half}
        for name, at in places.items()
    ]
    write_table(run.mention_boxes, table_of(MENTION_BOXES, boxes))
    for texts in (True, False):
        page = parsed(made(copy, asked=Asked(texts=texts)))
        drawn = 0
        for case in page.all("article"):
            name = case.first("h4").text
            frames = [one for one in case.all("rect") if one.attributes["class"] == "drawn"]
            assert len(frames) == (name in places)
            drawn += len(frames)
            if frames:
                row, at = samples[name], places[name]
                called = row["tags"][at][2:] + (f" {row['tokens'][at]}" if texts else "")
                assert frames[0].text == f"drawn by a person for {called}"
                assert (frames[0].attributes["width"], frames[0].attributes["height"]) == ("160", "320")
        assert drawn > 0
        assert "A dashed frame is the box that a person drew for a mention." in page.text
        found = recorded(copy, "test")["grounding"]
        [table] = [one for one in page.all("table") if "Random view" in one.text]
        for cells, one in zip(table.rows(), [found, *found["per_type"].values()], strict=True):
            assert int(cells[1].text) == one["mentions"]
            assert [shown(cell) for cell in cells[2:]] == [
                one[each] for each in ("accuracy", "ceiling", "detected", "chance")
            ]


@pytest.mark.slow
def test_a_recorded_report_computes_nothing_and_says_what_is_not_there(copy: Path) -> None:
    before = made(copy, asked=Asked(recorded=True))
    assert "was not evaluated" not in before
    for path in model_of(copy).glob("evaluation-*"):
        path.unlink()
    kept = (model_of(copy) / "cases-test.json").read_bytes()
    page = parsed(made(copy, asked=Asked(recorded=True)))
    assert (model_of(copy) / "cases-test.json").read_bytes() == kept
    notes = [one.text for one in page.all("p") if one.text.startswith("Not everything is here")]
    assert any(f"run `hmnet-pipe evaluate {copy} --system hmnet --seed 1 --no" in note for note in notes)
    assert any("--calibrate --explain" in note for note in notes)
    assert not list(model_of(copy).glob("evaluation-*"))
    assert page.first("table", "kinds").rows()


def without_weights(run: Path) -> None:
    (model_of(run) / "model.safetensors").unlink()


def without_features(run: Path) -> None:
    shutil.rmtree(RunFolder(run).features())


def without_images(run: Path) -> None:
    rows = read_table(RunFolder(run).images, IMAGES).to_pylist()
    write_table(RunFolder(run).images, table_of(IMAGES, [{**row, "path": "gone"} for row in rows]))


def without_detections(run: Path) -> None:
    RunFolder(run).detections.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("change", [without_weights, without_features, without_images, without_detections])
def test_what_is_gone_costs_its_part_of_the_report(copy: Path, change: Callable[[Path], None]) -> None:
    change(copy)
    page = parsed(made(copy, lock=StageError("train of x is stale; run `y` and lock again")))
    assert [one.text for one in page.all("h2")] == SECTIONS
    assert page.first("table", "scores").rows()
    assert "There is no lock: train of x is stale" in page.text
    if change in (without_weights, without_features):
        assert "Not everything is here" in page.text
    if change is without_images:
        assert "data:image" not in (copy / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_several_runs_are_one_page_with_the_table_of_each(runs: dict[str, Path], tmp_path: Path) -> None:
    page = parsed(made(*runs.values(), output=tmp_path / "report.html"))
    assert [one.text for one in page.all("h2")] == SECTIONS
    assert len([one for one in page.all("table") if one.attributes.get("class") == "scores"]) == 2
    ids = [one.attributes["id"] for one in page.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    levels = [int(one.name[1]) for one in page.all("h1", "h2", "h3", "h4", "h5")]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels


@pytest.mark.slow
def test_a_system_alone_is_compared_with_itself_without_images_at_once(copy: Path) -> None:
    shutil.rmtree(RunFolder(copy).models / "bert-crf")
    for path in model_of(copy).glob("evaluation-test-without-images*"):
        path.unlink()
    page = parsed(made(copy))
    assert "hmnet seed 1 without images" in page.text
    assert list(page.all("article"))


@pytest.mark.slow
def test_of_several_settings_of_a_system_the_named_one_is_meant(copy: Path) -> None:
    run = RunFolder(copy)
    for system, better in (("bert-crf", 0.01), ("hmnet", 0.02)):
        published = Trial(system, recipe=AS_PUBLISHED)
        shutil.copytree(run.model(Trial(system)), run.model(published))
        shutil.copy(run.record(f"train-{Trial(system).name}"), run.record(f"train-{published.name}"))
        metrics = json.loads((run.model(published) / "metrics.json").read_text())
        metrics["recipe"] = AS_PUBLISHED
        metrics["valid"]["f1"] += better
        (run.model(published) / "metrics.json").write_text(json.dumps(metrics))
    text = made(copy, asked=Asked(recorded=True))
    rows = {row[0].text: row for row in parsed(text).first("table", "scores").rows()}
    assert [name for name, row in rows.items() if row[6].text == "–"] == ["bert-crf, as-published"]
    assert "hmnet, as-published finds entities" in text


@pytest.mark.slow
def test_no_report_shows_what_another_model_looked_at(copy: Path) -> None:
    path = model_of(copy) / "evaluation-test.json"
    explanation = path.with_name("explanation-test.parquet")
    evaluate_trial(RunFolder(copy), HMNET, RunFolder(copy), split="test", tools=SILENT)
    assert explanation.exists()
    values = json.loads(path.read_text())
    values["made_from"]["model"] = "0" * 64
    path.write_text(json.dumps(values))
    evaluate_trial(RunFolder(copy), HMNET, RunFolder(copy), split="test", tools=SILENT)
    assert not explanation.exists()


def test_predictions_of_others_are_a_row(copy: Path, tmp_path: Path) -> None:
    rows = read_table(RunFolder(copy).samples, SAMPLES).to_pylist()
    lines = [json.dumps({"id": row["id"], "tags": row["tags"]}) for row in rows if row["split"] == "test"]
    (tmp_path / "gpt.jsonl").write_text("\n".join(lines))
    score_predictions(tmp_path / "gpt.jsonl", RunFolder(copy), split="test", name="gpt", seed=1)
    page = parsed(made(copy, asked=Asked(recorded=True)))
    row = next(row for row in page.first("table", "scores").rows() if row[0].text == "gpt[given]")
    assert shown(row[4]) == 1.0
    assert not any("gpt" in one.text for one in page.all("h3"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Asked(system="umt"), r"--system umt: .* holds no finished training of it"),
        (Asked(seed=7), r"--seed 7: hmnet of .* has seeds 1"),
        (Asked(against="umt"), r"--against umt: .* holds no finished training of it"),
        (Asked(cases=("nowhere",)), r"--cases nowhere: no sample of the test split has this id"),
    ],
)
def test_what_is_asked_for_and_is_not_there_is_one_sentence(
    runs: dict[str, Path], asked: Asked, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        made(runs["ner"], asked=replace(asked, recorded=True))


@pytest.mark.slow
def test_figures_are_files_with_fonts_for_one_and_two_columns(runs: dict[str, Path], tmp_path: Path) -> None:
    run = RunFolder(runs["ner"])
    files = make_report(
        [run], ["lock"], tmp_path / "r.html", Asked(), figures=tmp_path / "figures", command="x"
    )
    names = {path.name for path in files}
    for figure in (
        "scores",
        "images-1",
        "confusion",
        "gates",
        "training-1",
        "calibration",
        "counts",
        "lengths",
        "labels",
    ):
        assert {
            f"{figure}-{columns}.{form}" for columns in ("one", "two") for form in ("svg", "pdf")
        } <= names
    assert names == {path.name for path in (tmp_path / "figures").iterdir()}
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".pdf":
            assert b"/FontFile2" in content
            assert b"/CreationDate" not in content
        else:
            assert b"<text" not in content
            assert b"<dc:date>" not in content
            width = float(re.findall(rb'width="([\d.]+)pt"', content)[0]) / 72
            assert width == pytest.approx(3.03 if "-one." in path.name else 6.3, abs=0.01)
