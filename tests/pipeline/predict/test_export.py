"""What is exported is read back to the same samples, whatever letters the texts have."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import PREDICTIONS, SAMPLES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.pipeline.predict.export import EXPORT_FORMATS, export
from hmnet_pipe.stages.prepare.formats.rows import Reading, SampleRow
from hmnet_pipe.stages.prepare.readers import find_texts, read_samples

PIECES = (
    *("Ada", "in", "#Zürich", "@a_b", "don't", "{x}", '"', "a,b", "-", "\\", "New\N{NO-BREAK SPACE}York"),
    *(
        "\N{PARTY POPPER}",
        "\N{WHITE HEAVY CHECK MARK}\N{VARIATION SELECTOR-16}",
        "e\N{COMBINING ACUTE ACCENT}",
    ),
    "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}",
    *("שלום", "東京", "नमस्ते", "#"),
)
KINDS = ("PER", "Geo-Place", "類")


def records(count: int, task: str, raw: bool) -> list[dict[str, Any]]:
    """Return objects of the project's own format: random words, or raw texts with spans."""
    made = random.Random(f"{task}{raw}")
    found = []
    for number in range(count):
        words = made.choices(PIECES, k=made.randint(2, 12))
        if raw:  # by the rule "space" these words are whole
            words = [word.replace("\N{NO-BREAK SPACE}", "") for word in words]
        ends = [sum(len(word) + 1 for word in words[: index + 1]) - 1 for index in range(len(words))]
        spans = []
        at = made.randint(0, 2)
        while at < len(words):
            end = min(at + made.randint(1, 3), len(words))
            spans.append((at, end, made.choice(KINDS)))
            at = end + made.randint(0, 3)
        places = [(ends[first] - len(words[first]), ends[last - 1]) for first, last, _ in spans]
        record: dict[str, Any] = {"id": f"n{number}"}
        if number % 4:
            record["image"] = f"{number}.{'png' if number % 3 else 'jpg'}"
        record |= {"text": " ".join(words)} if raw else {"tokens": words}
        if task == "re":
            head, tail = ((0, 1), (1, len(words)))
            if raw:
                head, tail = ((ends[0] - len(words[0]), ends[0]), (ends[0] + 1, ends[-1]))
            record |= {"head": head, "tail": tail, "relation": made.choice(["likes", "/per/loc/in", "None"])}
        elif raw:
            record["spans"] = [
                {"start": start, "end": end, "type": kind}
                for (start, end), (_, _, kind) in zip(places, spans, strict=True)
            ]
        else:
            tags = ["O"] * len(words)
            for first, last, kind in spans:
                tags[first:last] = [f"B-{kind}", *[f"I-{kind}"] * (last - first - 1)]
            record["tags"] = tags
        found.append(record)
    return found


def made(place: Path, task: str, raw: bool = False) -> tuple[RunFolder, list[SampleRow]]:
    """Return a run with a table of samples, and these."""
    texts = place / "texts"
    texts.mkdir()
    every = records(40, task, raw)
    for name, part in (("train", every[:30]), ("test", every[30:])):
        (texts / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    samples, problems = read_samples(texts, task, reading=Reading("space"))
    assert problems == []
    run = RunFolder(place / "run")
    run.path.mkdir()
    write_table(run.samples, table_of(SAMPLES, map(vars, samples)))
    return run, samples


def as_read(sample: SampleRow, form: str) -> SampleRow:
    """Return what a format keeps of a sample, but for the order of samples."""
    kept = sample
    if form in ("twitter", "huggingface", "spacy"):
        kept = replace(kept, text=None, offsets=None)
    if form == "twitter":
        kept = replace(kept, id="")
    if form == "brat":  # an image is called as the document, and a relation has no slashes
        relation = kept.relation and kept.relation.strip("/").replace("/", "_")
        image = kept.image and Path(kept.image).stem + ".jpg"
        kept = replace(kept, id="", relation=relation, image=image)
    return kept


def key(sample: SampleRow) -> str:
    return repr(sorted(vars(sample).items()))


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("task", ["ner", "re"])
@pytest.mark.parametrize("form", EXPORT_FORMATS)
def test_exports_are_read_back_to_the_same_samples(tmp_path: Path, form: str, task: str, raw: bool) -> None:
    run, samples = made(tmp_path, task, raw)
    if (form, task) in (("opennre", "ner"), ("twitter", "re"), ("spacy", "re")):
        with pytest.raises(InputError, match="name another format"):
            export(run, form, tmp_path / "out")
        return
    if form == "spacy":
        pytest.importorskip("spacy")
    if form == "brat":  # words have no place in it, and a document always names an image
        samples = [replace(one, image=one.image or "none.jpg") for one in samples]
        if not raw:
            samples = [
                replace(one, tokens=[word.replace("\N{NO-BREAK SPACE}", "_") for word in one.tokens])
                for one in samples
            ]
        write_table(run.samples, table_of(SAMPLES, map(vars, samples)))
    counts = export(run, form, tmp_path / "out")
    assert list(counts.values()) == [30, 10]
    assert find_texts(tmp_path / "out", task).format == form
    again, problems = read_samples(tmp_path / "out", task, reading=Reading("space", strict_spans=True))
    assert problems == []
    if form == "brat" and not raw:
        again = [replace(one, text=None, offsets=None) for one in again]
    assert sorted(key(as_read(one, form)) for one in again) == sorted(
        key(as_read(one, form)) for one in samples
    )


def test_predictions_take_the_place_of_labels_and_label_studio_gets_them_to_correct(tmp_path: Path) -> None:
    run, samples = made(tmp_path, "ner")
    test = [one for one in samples if one.split == "test"]
    rows = [
        {
            "id": one.id,
            "split": "test",
            "tokens": one.tokens,
            "gold": one.tags,
            "predicted": ["B-X", *["O"] * (len(one.tokens) - 1)],
            "has_image": False,
        }
        for one in test
    ]
    model = tmp_path / "model"
    model.mkdir()
    write_table(model / "predictions.parquet", table_of(PREDICTIONS, rows))
    export(run, "jsonl", tmp_path / "out", predictions=model)
    (tmp_path / "out/test.jsonl").rename(tmp_path / "out/train.jsonl")
    again, _ = read_samples(tmp_path / "out", "ner")
    assert {one.id: one.tags for one in again} == {row["id"]: row["predicted"] for row in rows}
    [path] = export(run, "label-studio", tmp_path / "tasks", predictions=model)
    task = json.loads(Path(path).read_text())[0]
    assert "annotations" not in task
    assert task["predictions"][0]["model_version"] == str(model)
    write_table(model / "predictions.parquet", table_of(PREDICTIONS, [{**rows[0], "tokens": ["other"]}]))
    with pytest.raises(InputError, match="is of other samples than the run's"):
        export(run, "jsonl", tmp_path / "never", predictions=model)
    with pytest.raises(InputError, match="is no file; name a model's folder"):
        export(run, "jsonl", tmp_path / "never", predictions=run.path)
    assert not (tmp_path / "never").exists()


def test_the_name_that_predict_has_for_columns_of_words_is_answered_with_that_of_prepare(
    tmp_path: Path,
) -> None:
    run, _ = made(tmp_path, "ner")
    with pytest.raises(InputError, match="give --format twitter"):
        export(run, "conll", tmp_path / "out")


def test_a_folder_that_holds_something_and_unknown_names_are_errors(tmp_path: Path) -> None:
    run, _ = made(tmp_path, "ner")
    with pytest.raises(InputError, match="is there and not empty; name a new folder"):
        export(run, "jsonl", run.path)
    with pytest.raises(InputError, match="doccano"):
        export(run, "docano", tmp_path / "out")
    with pytest.raises(InputError, match="has no samples of the split valid"):
        export(run, "jsonl", tmp_path / "out", split="valid")
