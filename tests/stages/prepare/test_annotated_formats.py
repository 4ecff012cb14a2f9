"""Exports of annotation tools become samples, and a row that is none costs a row of the problems table."""

import json
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.prepare.formats.rows import Reading
from hmnet_pipe.stages.prepare.readers import ProblemRow, SampleRow, find_texts, read_samples

TEXT = "\N{GRINNING FACE} Ada of Zu\N{COMBINING DIAERESIS}rich"
PER, LOC = (2, 5), (9, 16)
DOCCANO = {"id": 1, "text": TEXT, "label": [[*PER, "PER"], [*LOC, "LOC"]], "image": "a.png"}
DOCCANO_RELATIONS = {
    "id": 1,
    "text": TEXT,
    "meta": {"image": "a.png"},
    "entities": [
        {"id": 7, "label": "PER", "start_offset": 2, "end_offset": 5},
        {"id": 8, "label": "LOC", "start_offset": 9, "end_offset": 16},
    ],
    "relations": [{"id": 3, "from_id": 7, "to_id": 8, "type": "lives"}],
}


def region(name: str, start: int, end: int, label: str, text: str = TEXT) -> dict[str, Any]:
    value = {"start": start, "end": end, "text": text[start:end], "labels": [label]}
    return {"id": name, "type": "labels", "from_name": "label", "to_name": "text", "value": value}


LABEL_STUDIO = {
    "id": 1,
    "data": {"tweet": TEXT, "image": "/data/local-files/?d=pictures%2Fa.png"},
    "annotations": [
        {
            "was_cancelled": False,
            "result": [
                region("x", *PER, "PER"),
                region("y", *LOC, "LOC"),
                {"type": "relation", "from_id": "y", "to_id": "x", "direction": "left", "labels": ["lives"]},
            ],
        }
    ],
}
WORDS = ["\N{GRINNING FACE}", "Ada", "of", "Zu\N{COMBINING DIAERESIS}rich"]


def read(
    folder: Path, rows: Any, task: str = "ner", name: str = "train.jsonl", reading: Reading | None = None
) -> tuple[list[SampleRow], list[ProblemRow]]:
    text = json.dumps(rows, indent=1) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    (folder / name).write_text(text)
    return read_samples(folder, task, reading=reading)


@pytest.mark.parametrize(
    ("row", "name", "format", "image"),
    [
        (DOCCANO, "train.jsonl", "doccano", "a.png"),
        (DOCCANO_RELATIONS, "train.jsonl", "doccano", "a.png"),
        (LABEL_STUDIO, "train.json", "label-studio", "/data/local-files/?d=pictures%2Fa.png"),
        (
            {"text": TEXT, "label": [region("", *PER, "PER")["value"], region("", *LOC, "LOC")["value"]]},
            "train.json",
            "label-studio",
            None,
        ),
    ],
)
def test_mentions_of_tools_become_words_with_tags(
    tmp_path: Path, row: dict[str, Any], name: str, format: str, image: str | None
) -> None:
    samples, problems = read(tmp_path, [row], name=name)
    assert find_texts(tmp_path, "ner").format == format
    assert problems == []
    assert [(one.tokens, one.tags, one.image, one.text) for one in samples] == [
        (WORDS, ["O", "B-PER", "O", "B-LOC"], image, TEXT)
    ]


@pytest.mark.parametrize(("row", "name"), [(DOCCANO_RELATIONS, "train.jsonl"), (LABEL_STUDIO, "train.json")])
def test_relations_of_tools_become_a_sample_each(tmp_path: Path, row: dict[str, Any], name: str) -> None:
    samples, problems = read(tmp_path, [row], "re", name)
    assert problems == []
    assert [(one.tokens, one.head, one.tail, one.relation) for one in samples] == [
        (WORDS, [1, 2], [3, 4], "lives")
    ]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_opennre_is_told_from_mnre_by_its_first_row(tmp_path: Path, suffix: str) -> None:
    by_words = {"token": WORDS, "h": {"pos": [1, 2]}, "t": {"pos": [3, 4]}, "relation": "lives"}
    by_characters = {
        "text": TEXT,
        "h": {"pos": PER},
        "t": {"pos": LOC},
        "relation": "none",
        "img_id": "a.png",
    }
    samples, problems = read(tmp_path, [by_words, by_characters, {"token": ["a"]}], "re", f"train{suffix}")
    assert find_texts(tmp_path, "re").format == "opennre"
    assert {(one.relation, one.image, *one.tokens, *(one.head or ())) for one in samples} == {
        ("lives", None, *WORDS, 1, 2),
        ("none", "a.png", *WORDS, 1, 2),
    }
    assert [(one.kind, one.where, one.reason.split(";")[0]) for one in problems] == [
        ("row", f"train{suffix}:3", '"h" is missing')
    ]


def annotated(**more: Any) -> dict[str, Any]:
    return {**LABEL_STUDIO, **more}


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (DOCCANO, {"text": TEXT, "label": [[0, 99, "PER"]]}, '"spans[0]" must be [start, end)'),
        (DOCCANO, {"text": TEXT, "label": [[2, 5, "PER"], [2, 8, "X"]]}, "overlap; keep one of them"),
        (DOCCANO, {"text": TEXT, "label": [[2, 5]]}, '"label[0]" must be [start, end, type], found [2, 5]'),
        (DOCCANO, {"text": TEXT, "label": "PER"}, '"label" must be a list'),
        (DOCCANO, {"text": "", "label": []}, '"text" must be a non-empty string'),
        (DOCCANO, {"text": TEXT, "entities": [{"id": 1}]}, '"entities[0]" must be an object with the keys'),
        (DOCCANO, ["a"], "expected one JSON object"),
        (LABEL_STUDIO, annotated(annotations=[]), "it has no finished annotation"),
        (LABEL_STUDIO, annotated(annotations=[{"was_cancelled": True}]), "it has no finished annotation"),
        (LABEL_STUDIO, annotated(annotations=[{"result": 3}]), '"result" must be a list of objects'),
        (LABEL_STUDIO, annotated(data={"a": "b", "c": "d"}), '"data" has no "text" among'),
        (
            LABEL_STUDIO,
            annotated(annotations=[{"result": [region("x", 0, 3, "A", "other")]}]),
            "result[0] has the text 'oth', found",
        ),
        (
            LABEL_STUDIO,
            annotated(
                annotations=[{"result": [{"type": "labels", "value": {"start": 2, "end": 5, "labels": []}}]}]
            ),
            '"result[0] labels" must be a list of one label',
        ),
        (
            LABEL_STUDIO,
            annotated(annotations=LABEL_STUDIO["annotations"] * 2),
            "annotation 2 of its 2, as one is read",
        ),
    ],
)
def test_a_row_that_is_no_sample_is_a_problem_and_the_others_are_read(
    tmp_path: Path, good: Any, bad: Any, reason: str
) -> None:
    samples, problems = read(tmp_path, [good, bad])
    assert samples[0].tags == ["O", "B-PER", "O", "B-LOC"]
    [problem] = problems
    assert (problem.kind, problem.sample, problem.where) == ("row", "", "train.jsonl:2")
    assert reason in problem.reason
    assert str(tmp_path) not in problem.reason


def test_a_line_that_is_no_json_is_a_problem_too(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(DOCCANO) + '\n{"text": \n')
    samples, [problem] = read_samples(tmp_path, "ner")
    assert len(samples) == 1
    assert "expected one JSON object, found" in problem.reason


def test_a_file_of_no_samples_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing that --format doccano can read; train\.jsonl:1: it has"):
        read(tmp_path, [DOCCANO], "re")


def test_a_strict_span_is_an_error_of_the_whole(tmp_path: Path) -> None:
    rows = [DOCCANO, {"text": TEXT, "label": [[2, 4, "PER"]]}]
    assert [problem.kind for problem in read(tmp_path, rows)[1]] == ["span"]
    with pytest.raises(InputError, match=r"line 2: spans\[0\] .* is not whole words; correct it"):
        read(tmp_path, rows, reading=Reading(strict_spans=True))


def test_the_words_that_a_text_was_made_of_are_kept(tmp_path: Path) -> None:
    """Also where a rule would part them, and where a word holds a space of another kind."""
    words = ["@ada_l", "New\N{NO-BREAK SPACE}York", "it's"]
    row = {"text": " ".join(words), "tokens": words, "label": [[7, 15, "LOC"]]}
    [sample], problems = read(tmp_path, [row])
    assert (sample.tokens, sample.tags, sample.text) == (words, ["O", "B-LOC", "O"], None)
    assert problems == []
    [other], _ = read(tmp_path, [{**row, "tokens": ["else"]}])
    assert other.text == row["text"]


def test_regions_that_count_as_javascript_does_are_found_by_their_text(tmp_path: Path) -> None:
    value = {"start": 3, "end": 6, "text": "Ada", "labels": ["PER"]}  # the emoji counts as two
    task = annotated(annotations=[{"result": [{"type": "labels", "value": value}]}])
    [sample], problems = read(tmp_path, [task], name="train.json")
    assert (sample.tags, problems) == (["O", "B-PER", "O", "O"], [])


def test_all_splits_are_of_the_format_of_the_training_file(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(
        json.dumps({"text": "nothing", "label": "none"}) + "\n" + json.dumps(DOCCANO)
    )
    samples, problems = read(tmp_path, [DOCCANO])
    assert sorted(one.split for one in samples) == ["test", "train"]
    assert [one.where for one in problems] == ["test.jsonl:1"]


def test_tasks_in_one_line_are_named_by_their_number(tmp_path: Path) -> None:
    """Label Studio writes all tasks into one line."""
    spans = {"label": [{"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]}]}
    bad = {"label": [{"start": 0, "end": 3, "text": "Bob", "labels": ["PER"]}]}
    tasks = [{"id": number, "text": "Ada sat", **more} for number, more in enumerate((spans, spans, bad))]
    (tmp_path / "train.json").write_text(json.dumps(tasks))
    samples, [problem] = read_samples(tmp_path, "ner")
    assert [sample.id for sample in samples] == ["0", "1"]
    assert problem.where == "train.json:1, object 3"
    assert problem.reason.startswith("result[0] has the text 'Bob'")
    (tmp_path / "train.json").write_text(json.dumps(tasks[:2], indent=1))
    assert read_samples(tmp_path, "ner")[0] == samples


def test_a_first_task_of_json_min_may_have_no_label(tmp_path: Path) -> None:
    common = {"annotator": 1, "annotation_id": 7, "lead_time": 2.5}
    label = [{"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]}]
    tasks = [{"id": 1, "text": "none here", **common}, {"id": 2, "text": "Ada sat", "label": label, **common}]
    (tmp_path / "train.json").write_text(json.dumps(tasks))
    assert find_texts(tmp_path, "ner").format == "label-studio"
    samples, problems = read_samples(tmp_path, "ner")
    assert [sample.tags for sample in samples] == [["O", "O"], ["B-PER", "O"]]
    assert problems == []
