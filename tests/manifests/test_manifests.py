"""Tables, digests, atomic files and stage records."""

import errno
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hmnet_pipe.manifests import files
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.manifests.files import (
    TEMPORARY_PREFIX,
    atomic_path,
    disk_remedy,
    is_utf8,
    make_folder,
    remove_scratch,
    remove_temporaries,
    scratch_folder,
    write_text,
)
from hmnet_pipe.manifests.fingerprint import canonical_json, digest_table
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, OUTCOMES, SAMPLES
from hmnet_pipe.manifests.tables import (
    read_batches,
    read_table,
    table_digest,
    table_of,
    usable_images,
    write_table,
)
from hmnet_pipe.stages.prepare.settings import PrepareSettings

from ..spoilers import forbidden

RECORD = StageRecord(
    "extract",
    1,
    {"backbone": "resnet50", "size": 224},
    {"images": "a" * 64},
    {"backbone": "b" * 64},
    {"features": "c" * 64},
)


def test_a_folder_that_cannot_be_made_is_one_sentence() -> None:
    with pytest.raises(StageError, match=r"^/proc/x cannot be made \(.+\); choose a folder"):
        make_folder(Path("/proc/x"))


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_has_the_name_of_another_kind_is_one_sentence(tmp_path: Path, what: str) -> None:
    place = tmp_path / "place"
    place.touch() if what == "file" else place.mkdir()
    path = place / "a" / "b.json" if what == "file" else place
    with pytest.raises(StageError, match=rf"^{place} is (not )?a folder, .*; move it away or remove it"):
        write_text(path, "x")


def test_an_unreadable_file_is_said_to_be_unreadable_and_which_it_is(tmp_path: Path) -> None:
    path = forbidden(tmp_path / "weights.pth")
    with pytest.raises(PermissionError) as caught:
        path.read_bytes()
    said = disk_remedy(caught.value, tmp_path / "run")
    assert said.startswith(f"{path} cannot be read (permission denied); ")
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "new"))
    assert disk_remedy(error, tmp_path).startswith(f"{tmp_path / 'new'} cannot be written (permission ")
    assert disk_remedy(PermissionError(errno.EACCES, "no"), tmp_path).startswith(f"{tmp_path} cannot be")


@pytest.mark.parametrize("name", ["a\udcff", "\ud83d"])
def test_a_name_that_is_not_utf_8_is_refused(name: str) -> None:
    assert not is_utf8(name)
    assert is_utf8("Zürich 東京 😀")
    with pytest.raises(InputError, match="is not UTF-8"):
        RunFolder(Path(name)).check_folders()
    with pytest.raises(InputError, match=r"text is not UTF-8.*rename it"):
        PrepareSettings(text=Path(name), task="ner")


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table"
    write_text(path, "old")
    with pytest.raises(FileNotFoundError), atomic_path(path) as temporary:
        (temporary.write_text("half"), (tmp_path / "missing").read_text())
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["table"]


def test_a_killed_write_leaves_the_old_file_and_a_temporary_that_can_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "table"
    write_text(path, "old")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from hmnet_pipe.manifests.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as t: t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert [name for name in names_in(tmp_path) if name.startswith(TEMPORARY_PREFIX)]
    remove_temporaries(tmp_path)
    assert names_in(tmp_path) == ["table"]


def test_canonical_json_does_not_depend_on_the_order_of_keys_and_refuses_nan() -> None:
    assert (
        canonical_json({"b": 1, "a": [1.5, None]})
        == canonical_json({"a": [1.5, None], "b": 1})
        == '{"a":[1.5,null],"b":1}'
    )
    with pytest.raises(ValueError):
        canonical_json({"a": float("nan")})


def test_a_tables_digest_is_of_its_rows_and_not_of_its_chunks() -> None:
    rows = [{"image_key": str(i), "status": "done", "reason": None} for i in range(5)]
    whole = table_of(OUTCOMES, rows)
    chunked = pa.concat_tables([table_of(OUTCOMES, rows[:2]), table_of(OUTCOMES, rows[2:])])
    assert digest_table(whole) == digest_table(chunked)
    assert digest_table(whole) != digest_table(table_of(OUTCOMES, [*rows[:4], {**rows[4], "reason": "x"}]))
    assert digest_table(whole) != digest_table(table_of(OUTCOMES, rows[::-1]))


def test_tables_that_differ_anywhere_have_other_digests_and_equal_ones_the_same() -> None:
    schema = pa.schema(
        [
            ("a", pa.list_(pa.string())),
            ("b", pa.list_(pa.int32(), 2)),
            ("c", pa.float64()),
            ("d", pa.string()),
            ("e", pa.bool_()),
        ]
    )
    row = {"a": ["x", "yz"], "b": [1, 2], "c": 0.5, "d": "", "e": True}
    changes: list[dict[str, Any]] = [
        *({"a": value} for value in (["xy", "z"], ["xyz"], [], None, ["x", None])),
        *({"b": value} for value in ([2, 1], None)),
        *({"c": value} for value in (-0.5, None)),
        *({"d": value} for value in (None, "é")),
        *({"e": value} for value in (False, None)),
    ]
    tables = [pa.Table.from_pylist([row, {**row, **change}, row], schema=schema) for change in ({}, *changes)]
    digests = [digest_table(table) for table in tables]
    assert len(set(digests)) == len(tables)
    for table, digest in zip(tables, digests, strict=True):
        padded = pa.concat_tables([tables[3], table.slice(0, 1), table.slice(1), tables[4]])
        assert digest_table(padded.slice(3, 3)) == digest
        assert digest_table(pa.Table.from_pylist(table.to_pylist(), schema=schema)) == digest
    assert digest_table(schema.empty_table()) == digest_table(tables[0].slice(0, 0))
    moved = [
        pa.Table.from_pylist([{"a": one}, {"a": two}], schema=schema)
        for one, two in ((["x"], ["y", "z"]), (["x", "y"], ["z"]))
    ]
    assert digest_table(moved[0]) != digest_table(moved[1])


def test_where_a_file_lies_is_in_no_digest() -> None:
    rows = [{"key": "k", "path": path, "width": 1, "height": 1, "status": "ok"} for path in ("/a", "/b")]
    assert digest_table(table_of(IMAGES, rows[:1])) == digest_table(table_of(IMAGES, rows[1:]))


def test_a_path_is_in_the_digest_of_a_table_whose_schema_does_not_leave_it_out() -> None:
    schema = pa.schema([("key", pa.string()), ("path", pa.string())])
    tables = [pa.Table.from_pylist([{"key": "k", "path": path}], schema=schema) for path in ("a", "b")]
    assert digest_table(tables[0]) != digest_table(tables[1])


def test_a_file_whose_schema_does_not_mark_its_columns_has_the_digest_of_one_that_does(
    tmp_path: Path,
) -> None:
    """Earlier versions wrote images.parquet without the mark."""
    table = table_of(IMAGES, [{"key": "k", "path": "/a", "width": 1, "height": 1, "status": "ok"}])
    unmarked = pa.schema([(field.name, field.type) for field in IMAGES])
    write_table(tmp_path / "new.parquet", table)
    write_table(tmp_path / "old.parquet", table.cast(unmarked))
    assert table_digest(tmp_path / "new.parquet", IMAGES) == digest_table(table)
    assert digest_table(pq.read_table(tmp_path / "new.parquet")) == digest_table(table)
    assert table_digest(tmp_path / "old.parquet", IMAGES) == digest_table(table)
    assert usable_images(tmp_path / "old.parquet").equals(usable_images(tmp_path / "new.parquet"))


def test_a_table_reads_back_and_wrong_columns_are_named(tmp_path: Path) -> None:
    table = table_of(OUTCOMES, [{"image_key": "k", "status": "done"}])
    write_table(tmp_path / "t.parquet", table)
    assert read_table(tmp_path / "t.parquet", OUTCOMES).equals(table)
    with pytest.raises(StageError, match=r"t\.parquet has the columns"):
        read_table(tmp_path / "t.parquet", pa.schema([("other", pa.string())]))
    with pytest.raises(StageError, match="run `hmnet-pipe detect` first"):
        read_table(tmp_path / "missing.parquet", OUTCOMES, "detect")
    (tmp_path / "run.toml").touch()
    for place in (tmp_path, tmp_path / "models/umt/seed-2"):
        with pytest.raises(StageError, match=f"run `hmnet-pipe train {tmp_path} --system umt` first"):
            read_table(place / "missing.parquet", OUTCOMES, "train --system umt")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(StageError, match="delete it"):
        read_table(tmp_path / "t.parquet", OUTCOMES)
    with pytest.raises(KeyError, match="nonsense"):
        table_of(OUTCOMES, [{"nonsense": 1}])


def test_a_record_names_each_field_that_changed() -> None:
    newer = StageRecord(
        "extract", 1, {"backbone": "resnet101", "size": 224}, {"images": "d" * 64}, {"backbone": "b" * 64}, {}
    )
    assert RECORD.changes(newer) == [
        "backbone: resnet50 -> resnet101",
        f"inputs.images: {'a' * 12} -> {'d' * 12}",
    ]
    assert RECORD.fingerprint != newer.fingerprint


def test_of_long_values_only_the_words_that_differ_are_shown() -> None:
    text = "PIL BICUBIC, plain resize to {0}x{0}; scaled to 0..1; ImageNet mean and standard deviation"

    def record(transform: str) -> StageRecord:
        return StageRecord("extract", 1, {"transform": transform}, {}, {}, {})

    assert record(text.format(224)).changes(record(text.format(112))) == [
        "transform: ... 224x224; ... -> ... 112x112; ..."
    ]
    (longer,) = record(text.format(224)).changes(record(text.format(224) + ", twice"))
    assert longer == "transform: ... deviation -> ... deviation, twice"
    assert record("short").changes(record("other")) == ["transform: short -> other"]


def test_outputs_and_facts_are_not_part_of_the_fingerprint() -> None:
    other = StageRecord(
        "extract", 1, RECORD.parameters, RECORD.inputs, RECORD.weights, {}, {"host": "elsewhere"}
    )
    assert other.fingerprint == RECORD.fingerprint


def test_a_records_fingerprint_is_the_golden_one() -> None:
    """The digests were once computed by hand from the canonical JSON: a change here makes every run stale."""
    assert RECORD.fingerprint == "72a4e6bdfd8dc059e67de9b5b544c81ada4c1c4859657c68dd9129588c22e0c1"


def test_a_record_reads_back_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "extract.json"
    assert StageRecord.read(path) is None
    RECORD.write(path)
    assert StageRecord.read(path) == RECORD
    assert json.loads(path.read_text())["fingerprint"] == RECORD.fingerprint
    path.write_text("{")
    with pytest.raises(StageError, match=r"extract\.json is damaged"):
        StageRecord.read(path)


def test_a_scratch_folder_goes_at_its_end_and_before_where_the_process_ends(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "verify") as folder:
        (folder / "inside").touch()
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    with scratch_folder(tmp_path, "verify") as folder:
        (folder / "inside").touch()
        remove_scratch()
        assert list(tmp_path.iterdir()) == []

        def begin() -> None:
            with scratch_folder(tmp_path, "verify"):
                begun.append(list(tmp_path.iterdir()))

        begun: list[list[Path]] = []
        late = threading.Thread(target=begin, daemon=True)
        late.start()
        late.join(0.05)
        try:
            assert begun == []  # the process has ended before that
            assert list(tmp_path.iterdir()) == []
        finally:
            files._MAKING.release()  # this process goes on
        late.join()
        assert len(begun) == 1


def test_samples_from_before_texts_were_kept_are_read_and_have_the_digest_that_they_had(
    tmp_path: Path,
) -> None:
    rows = [{"id": name, "split": "train", "task": "ner", "tokens": ["\u00e9", "b"]} for name in "xyz"]
    kept = [{**row, "text": "\u00e9 b", "offsets": [[0, 1], [2, 3]]} for row in rows]
    old = table_of(SAMPLES, rows).select(SAMPLES.names[:-2])
    paths = [tmp_path / name for name in ("old.parquet", "words.parquet", "texts.parquet")]
    for path, table in zip(paths, (old, table_of(SAMPLES, rows), table_of(SAMPLES, kept)), strict=True):
        write_table(path, table)
    assert {table_digest(path, SAMPLES) for path in paths} == {digest_table(pq.read_table(paths[0]))}
    assert digest_table(table_of(SAMPLES, kept)) == digest_table(old)
    whole = read_table(paths[0], SAMPLES)
    assert whole.schema == SAMPLES
    assert whole.equals(read_table(paths[1], SAMPLES))
    for columns in (None, ["text"], ["offsets", "id"], ["id"]):
        expected = whole.select(columns or SAMPLES.names)
        assert read_table(paths[0], SAMPLES, columns=columns).equals(expected)
        assert pa.Table.from_batches(read_batches(paths[0], SAMPLES, columns=columns)).equals(expected)
    assert read_table(paths[2], SAMPLES).to_pylist() == [
        {**dict.fromkeys(SAMPLES.names), **row} for row in kept
    ]
    write_table(tmp_path / "other.parquet", old.drop_columns("image"))
    with pytest.raises(StageError, match=r"other\.parquet has the columns"):
        read_table(tmp_path / "other.parquet", SAMPLES)


def test_samples_without_a_pair_are_read_beside_those_with_one(tmp_path: Path) -> None:
    """No release of pyarrow before 26 reads a missing pair, which every sample of the task ner has."""
    rows: list[dict[str, Any]] = [
        {"id": "1", "split": "train", "task": "ner", "tokens": ["Ada"], "tags": ["O"]},
        {"id": "2", "split": "train", "task": "re", "tokens": ["a", "b"], "head": [0, 1], "tail": [1, 2]},
        {"id": "3", "split": "train", "task": "ner", "tokens": ["Ada"], "tags": ["O"]},
    ]
    write_table(tmp_path / "samples.parquet", table_of(SAMPLES, rows))
    found = read_table(tmp_path / "samples.parquet", SAMPLES, "prepare")
    assert found.column("head").to_pylist() == [None, [0, 1], None]
