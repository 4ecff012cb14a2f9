"""Texts read in parts are the samples that they are when read whole: rows, ids, repairs and digests."""

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.manifests.fingerprint import digest_json
from hmnet_pipe.manifests.schemas import PROBLEMS, SAMPLES
from hmnet_pipe.manifests.tables import table_of, write_groups, write_table
from hmnet_pipe.stages.prepare import parts
from hmnet_pipe.stages.prepare.formats.jsonl import read_jsonl
from hmnet_pipe.stages.prepare.formats.mnre import read_mnre
from hmnet_pipe.stages.prepare.formats.rows import Draft, Reading, Source, TextFile
from hmnet_pipe.stages.prepare.formats.twitter import read_twitter
from hmnet_pipe.stages.prepare.parts import Whole
from hmnet_pipe.stages.prepare.readers import SampleRow, find_texts, open_texts, read_samples, samples_of

SIZES = (60, 200, 10**6)


def parts_in(file: Source) -> int:
    assert isinstance(file, Whole)
    return len(file.parts)


def tweets(dice: random.Random) -> str:
    """Return tweets that share images and words, one of a word of white space, some with orphan tags."""
    tags = ["O", "B-PER", "I-OTHER"]
    return "".join(
        f"IMGID:{dice.randrange(9)}\n\u00a0\tO\nw{dice.randrange(3)}\t{dice.choice(tags)}\n\n"
        for _ in range(40)
    )


def pairs(dice: random.Random) -> str:
    row = {"token": ["Ada", "of", "London"], "t": {"pos": [2, 3]}}
    return "".join(
        repr(
            {
                **row,
                "h": {"pos": [0, dice.randrange(1, 3)]},
                "img_id": f"{dice.randrange(4)}.jpg",
                "relation": dice.choice(["none", "/per/loc/here"]),
            }
        )
        + "\n"
        for _ in range(40)
    )


def objects(dice: random.Random) -> str:
    rows: list[dict[str, Any]] = []
    for _ in range(40):
        text = f"Ada{dice.randrange(3)} was \U0001f600 here"
        span = {"start": 0, "end": dice.choice([3, 4]), "type": "PER"}
        rows.append(
            dice.choice(
                [
                    {"tokens": text.split(), "tags": ["I-PER", "O", "O", dice.choice("OO") + ""]},
                    {"text": text, "spans": [span], "image": "a.jpg", "groups": ["x"]},
                    {"tokens": ["a"], "tags": ["S-LOC"], "id": f"own-{dice.random()}"},
                ]
            )
        )
    return "\n\n".join(map(json.dumps, rows))


CORPORA: Mapping[str, tuple[str, str, Callable[[random.Random], str], Callable[[TextFile], Any]]] = {
    "twitter": ("ner", "{}.txt", tweets, lambda file: read_twitter(file, Reading(labels="twitter"))),
    "mnre": ("re", "{}.txt", pairs, read_mnre),
    "jsonl": ("ner", "{}.jsonl", objects, lambda file: read_jsonl(file, "ner", Reading())),
}


def plainly(drafts: Mapping[str, list[Draft]], task: str) -> tuple[list[Any], list[Any]]:
    """Return rows and repairs as they follow from all drafts, sample by sample."""
    rows: list[tuple[str, str, Draft]] = []
    for split, members in drafts.items():
        shared = Counter(draft.alone for draft in members)
        uses = Counter[str]()
        for draft in sorted(members, key=lambda draft: draft.digest):
            name = draft.alone if draft.alone and shared[draft.alone] == 1 else draft.name
            if not draft.given:
                uses[name] += 1
                name = name if uses[name] == 1 else f"{name}-{uses[name]}"
            rows.append((split, name, draft))
    rows.sort(key=lambda row: row[:2])
    content = [field for field in SAMPLES.names if field not in ("id", "split", "task", "image_key")]
    samples = [
        {"id": name, "split": split, "task": task, **{field: getattr(draft, field) for field in content}}
        for split, name, draft in rows
    ]
    label = "tag" if task == "ner" else "relation"
    problems = []
    for _, name, draft in rows:
        found = [(label, *each) for each in draft.repairs] + [("span", *each) for each in draft.moved]
        if draft.converted:
            found.append(("scheme", draft.line, f"tags of {draft.converted}, read as BIO"))
        problems += [
            {"kind": kind, "sample": name, "where": line.where, "reason": reason}
            for kind, line, reason in found
        ]
    return samples, problems


@pytest.mark.parametrize("format", CORPORA)
def test_parts_of_any_size_give_the_samples_of_the_whole_file(tmp_path: Path, format: str) -> None:
    task, name, make, read = CORPORA[format]
    dice = random.Random(3)
    paths = {split: tmp_path / name.format(split) for split in ("train", "valid", "test")}
    for path in paths.values():
        path.write_text(make(dice), encoding="utf-8")
    drafts = {split: list(read(TextFile.read(path))) for split, path in paths.items()}
    rows, repairs = plainly(drafts, task)
    assert {row["kind"] for row in repairs}
    digests = {
        split: digest_json(
            sorted(
                digest_json([row[field] for field in ("tokens", "tags", "head", "tail", "relation", "image")])
                for row in rows
                if row["split"] == split
            )
        )
        for split in paths
    }
    texts = find_texts(tmp_path, task, format)
    for size in SIZES:
        files = open_texts(texts, size)
        assert (parts_in(files["train"]) > 3) == (size < 10**6)
        samples = samples_of(files, task, format)
        for at_once in (7, 1000):
            groups = [*samples.groups(at_once)]
            assert max(map(len, groups)) == min(at_once, len(rows))
            found = pa.concat_tables(groups)
            # By the schema, as a list of two numbers is a list of them.
            assert found.to_pylist() == pa.Table.from_pylist(rows, schema=found.schema).to_pylist()
        assert samples.repairs == pa.Table.from_pylist(repairs, schema=PROBLEMS)
        assert {split: each.digest for split, each in samples.identities.items()} == digests


def test_an_error_in_a_later_part_names_the_line_of_the_file(tmp_path: Path) -> None:
    good = json.dumps({"tokens": ["a"], "tags": ["O"]}) + "\n"
    path = tmp_path / "train.jsonl"
    for fault, message in (
        (b'["no object"]\n', "line 31: expected one JSON object"),  # and not the start of an array
        (b"\xff\n", "line 31: byte 0xff is not UTF-8"),
        (
            b'{"tokens": ["a"], "tags": ["O"], "id": "x"}\n' * 2,
            f"line 32: id 'x' is already used by {path} line 31",
        ),
    ):
        path.write_bytes(good.encode() * 30 + fault + good.encode() * 30)
        with pytest.raises(InputError, match=message):
            samples_of(open_texts(find_texts(tmp_path, "ner"), 100), "ner", "jsonl")


def test_a_tweet_without_an_image_is_refused_where_another_part_names_one(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("Ada\tO\n\n" * 20 + "IMGID:1\nAda\tO\n\n")
    with pytest.raises(InputError, match=r"line 1: expected .IMGID:<image id>"):
        samples_of(open_texts(find_texts(tmp_path, "ner"), 30), "ner", "twitter")


def test_labels_beyond_those_of_twitter_in_one_part_are_taken_as_written_in_all(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("Ada\tB-OTHER\n\n" * 20 + "Ada\tB-GENE\n\n")
    for size in SIZES:
        samples = samples_of(open_texts(find_texts(tmp_path, "ner"), size), "ner", "twitter")
        tags = {tag for tags in samples.column("tags").to_pylist() for tag in tags}
        assert tags == {"B-OTHER", "B-GENE"}


def test_a_file_that_changes_while_its_parts_are_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"tokens": ["a"], "tags": ["O"]}\n' * 9)
    files = open_texts(find_texts(tmp_path, "ner"), 40)
    path.write_text('{"tokens": ["b"], "tags": ["O"]}\n' * 10)
    with pytest.raises(StageError, match="was changed while prepare was reading it"):
        samples_of(files, "ner", "jsonl")


@pytest.mark.slow
def test_processes_read_what_one_reads_and_the_first_fault_is_the_one_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(parts, "MANY_BYTES", 0)
    (tmp_path / "train.jsonl").write_text(objects(random.Random(1)))
    texts = find_texts(tmp_path, "ner")
    files = open_texts(texts, 2000)
    samples = samples_of(files, "ner", "jsonl")
    assert parts_in(files["train"]) > 1
    rows, repairs = read_samples(tmp_path, "ner")
    assert samples.repairs.to_pylist() == [vars(row) for row in repairs]
    [table] = samples.groups(1000)
    assert [SampleRow(**row) for row in table.to_pylist()] == rows
    texts.files["train"].write_text("\n" * 50 + "first\n" + "\n" * 2000 + "second\n")
    with pytest.raises(InputError, match=r"line 51: .* found 'first'"):
        samples_of(open_texts(texts, 1000), "ner", "jsonl")


def test_a_table_written_in_groups_has_the_bytes_of_one_written_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [
        {
            "id": f"{number}",
            "split": "train",
            "tokens": [f"w{word}" for word in rng.integers(0, 99, rng.integers(1, 9))],
            "head": [0, int(number)] if number % 3 else None,
            "text": "t" if number % 2 else None,
            "offsets": [[0, 1]] if number % 2 else None,
        }
        for number in range(1000)
    ]
    whole = table_of(SAMPLES, rows)
    write_table(tmp_path / "whole", whole, group_rows=300)
    mixed = whole.take(pa.array(rng.permutation(1000)))
    back = np.argsort([int(name) for name in mixed["id"].to_pylist()])
    parts = (mixed.take(pa.array(back[start : start + 300])) for start in range(0, 1000, 300))
    write_groups(tmp_path / "parts", SAMPLES, parts)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert pq.ParquetFile(tmp_path / "parts").num_row_groups == 4
    write_groups(tmp_path / "none", SAMPLES, [SAMPLES.empty_table()])
    write_table(tmp_path / "empty", SAMPLES.empty_table())
    assert (tmp_path / "none").read_bytes() == (tmp_path / "empty").read_bytes()
