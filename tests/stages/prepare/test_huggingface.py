"""Datasets of Hugging Face become samples: parquet and saved to disk, with the names of their features."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.prepare.readers import find_texts, read_samples

from ...spoilers import SPOILERS, huge

NAMES = ["O", "B-PER", "I-PER"]
TAGS = {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": NAMES}}
ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "tokens": ["Ada", "Lee", "sat"],
        "ner_tags": [1, 2, 0],
        "image": {"bytes": None, "path": "a.png"},
    },
    {"id": "b", "tokens": ["\N{GRINNING FACE}"], "ner_tags": [0], "image": None},
]


def table(rows: list[dict[str, Any]], **features: Any) -> pa.Table:
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.Table.from_pylist(rows).replace_schema_metadata(metadata)


def saved(folder: Path, *parts: pa.Table) -> None:
    """Write a split as `save_to_disk` does."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{len(parts):05}.arrow" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        with pa.ipc.new_stream(str(folder / name), part.schema) as writer:
            writer.write_table(part)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")


@pytest.mark.parametrize("tags", [TAGS, {"_type": "List", "feature": TAGS["feature"]}])
@pytest.mark.parametrize("layout", ["parquet", "parts", "disk"])
def test_words_get_the_tags_that_numbers_stand_for(tmp_path: Path, layout: str, tags: Any) -> None:
    one, two = (table([row], ner_tags=tags) for row in ROWS)
    if layout == "disk":
        saved(tmp_path / "train", one, two)
        saved(tmp_path / "validation", two)
    elif layout == "parts":
        for number, part in enumerate((one, two)):
            pq.write_table(part, tmp_path / f"train-{number:05}-of-00002.parquet")
        pq.write_table(two, tmp_path / "validation-00000-of-00001.parquet")
    else:
        pq.write_table(table(ROWS, ner_tags=tags), tmp_path / "train.parquet")
        pq.write_table(two, tmp_path / "valid.parquet")
    samples, problems = read_samples(tmp_path, "ner")
    assert find_texts(tmp_path, "ner").format == "huggingface"
    assert problems == []
    assert [(one.split, one.id, one.tags, one.image) for one in samples] == [
        ("train", "a", ["B-PER", "I-PER", "O"], "a.png"),
        ("train", "b", ["O"], None),
        ("valid", "b", ["O"], None),
    ]


def test_relations_and_spans_are_read(tmp_path: Path) -> None:
    pair = {"tokens": ["a", "b"], "head": [0, 1], "tail": [1, 2], "relation": 0}
    label = {"_type": "ClassLabel", "names": ["likes"]}
    pq.write_table(table([pair, {**pair, "relation": 1}], relation=label), tmp_path / "train.parquet")
    [sample], [problem] = read_samples(tmp_path, "re")
    assert (sample.relation, sample.head, problem.where) == ("likes", [0, 1], "train.parquet:2")
    assert problem.reason == "'relation' has 1, and the names of 1 labels"
    spans = [{"start": 0, "end": 3, "label": "PER"}]
    pq.write_table(table([{"text": "Ada sat", "entities": spans}]), tmp_path / "train.parquet")
    assert read_samples(tmp_path, "ner")[0][0].tags == ["B-PER", "O"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"tokens": ["a"], "ner_tags": [0]},
            "'ner_tags' has numbers, and the dataset does not say",
        ),
        ({"tokens": ["a"], "pos": [0]}, "has no columns 'tokens' or 'text', and 'ner_tags' or 'spans'"),
        ({"ner_tags": ["O"]}, "has no columns 'tokens' or 'text'"),
    ],
)
def test_a_dataset_without_what_is_needed_is_an_error(tmp_path: Path, row: Any, message: str) -> None:
    pq.write_table(table([row]), tmp_path / "train.parquet")
    with pytest.raises(InputError) as caught:
        read_samples(tmp_path, "ner")
    assert message in str(caught.value)


# What lies behind the end of a stream of Arrow harms nobody.
@pytest.mark.parametrize(
    "spoil", [one for one in SPOILERS if one is not huge], ids=lambda spoil: spoil.__name__
)
@pytest.mark.parametrize("name", ["train/state.json", "train/data-00000-of-00001.arrow", "train.parquet"])
def test_a_spoilt_file_is_one_sentence_that_names_it(
    tmp_path: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    whole = table(ROWS, ner_tags=TAGS)
    if name == "train.parquet":
        pq.write_table(whole, tmp_path / name)
    else:
        saved(tmp_path / "train", whole)
    spoil(tmp_path / name)
    with pytest.raises(InputError) as caught:
        read_samples(tmp_path, "ner")
    assert "train" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none_or_missing_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00002.parquet"
    pq.write_table(table(ROWS, ner_tags=TAGS), path)
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet is missing; add it"):
        read_samples(tmp_path, "ner")
    path.rename(tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"train\.parquet cannot be read as a dataset .*; save it again"):
        read_samples(tmp_path, "ner")


def test_parts_of_other_columns_or_labels_than_the_first_are_refused(tmp_path: Path) -> None:
    first, second = (tmp_path / f"train-0000{number}-of-00002.parquet" for number in (0, 1))
    pq.write_table(table(ROWS, ner_tags=TAGS), first)
    pq.write_table(table(ROWS).drop_columns(["ner_tags"]), second)
    with pytest.raises(InputError, match=f"{second.name} has no column 'ner_tags', which {first.name} has"):
        read_samples(tmp_path, "ner")
    other = json.loads(json.dumps(TAGS).replace("PER", "LOC"))
    pq.write_table(table(ROWS, ner_tags=other), second)
    with pytest.raises(InputError, match=f"{second.name} names other labels than {first.name}; cast"):
        read_samples(tmp_path, "ner")
