"""`hmnet-pipe status`: in every state of a run it reports what is on disk and what the next command does."""

import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hmnet_pipe.cache.reader import FeatureCache, IndexRow, write_index
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD, FeatureSpec, Transform
from hmnet_pipe.manifests.fingerprint import digest_file, digest_json, digest_table
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS, SAMPLES
from hmnet_pipe.manifests.tables import table_digest, table_of, write_table
from hmnet_pipe.pipeline.checks.status import StageStatus, run_status
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.prepare.settings import PrepareSettings

from ...running import Command, Demos, begin, bring_up_to_date, hmnet, wait_until

TRANSFORM = Transform(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
TEXTS = {"train": 12, "valid": 2, "test": 2}


@pytest.fixture(scope="module")
def finished(demos: Demos) -> Path:
    """Return a run with detections and features, in chunks of 4 images and shards of 5."""
    return demos.run(sizes=TEXTS, detect={"chunk": 4}, extract={"shard_rows": 5})


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    """Return a copy of it, with its times, as `make` needs them."""
    return RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))


def row(run: RunFolder, stage: str) -> StageStatus:
    return next(row for row in run_status(run).stages if row.stage == stage)


def stopping_after(units_done: int) -> Tools:
    """Return tools that raise Ctrl-C after this many units."""

    def map_some(function: Callable[[Any], Any], units: list[Any]) -> Iterator[tuple[Any, Any]]:
        for unit in units[:units_done]:
            yield unit, function(unit)
        raise KeyboardInterrupt

    return Tools(map=map_some)


def test_samples_without_their_image_are_not_called_failed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    samples = [{"tokens": ["ada"], "tags": ["O"], "image": "absent.jpg"}] * 3
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(sample)}\n" for sample in samples))
    bring_up_to_date(begin(tmp_path / "run", tmp_path), "prepare")
    first, *more = row(RunFolder(tmp_path / "run"), "prepare").lines()
    assert "(3 done, 0 failed, " in first
    assert more == ["    3 in problems.parquet: not in the image folder"]


def test_what_blocks_a_stage_comes_before_its_command(run: RunFolder) -> None:
    run.record("detect").unlink()
    run.detections.unlink()
    config = RunConfig.read(run.config)
    assert run_status(run).lines()[-1] == f"next: hmnet-pipe detect {run.path}"
    config.override("detect", {"weights": str(run.path / "nowhere.pth")}).write(run.config)
    assert row(run, "detect").state == "blocked"
    assert (
        run_status(run).lines()[-1] == f"next: see to what blocks detect, then hmnet-pipe detect {run.path}"
    )


def test_a_finished_run_is_fresh_and_training_comes_next(run: RunFolder) -> None:
    result = run_status(run)
    assert [(row.stage, row.state, row.reasons, row.progress) for row in result.stages] == [
        (stage, "fresh", [], None) for stage in ("prepare", "detect", "extract")
    ]
    assert result.next_command == f"hmnet-pipe train {run.path}"


def test_the_sizes_of_the_parts_are_those_of_the_files(
    run: RunFolder,
) -> None:
    def size(paths: Iterator[Path]) -> int:
        return sum(path.stat().st_size for path in paths if path.is_file())

    result = run_status(run)
    assert result.parts["crops"] == size(run.crops.iterdir()) > 0
    assert result.parts["features"] == size(run.features().iterdir()) > 0
    assert result.parts["tables"] == size(run.path.glob("*.parquet"))
    assert result.bytes == size(run.path.rglob("*"))
    assert result.estimated == []
    for path in run.crops.iterdir():
        path.write_bytes(b"x" * 100)
    result = run_status(run, sized_files=2)
    assert "crops" in result.estimated
    assert result.parts["crops"] == size(run.crops.iterdir())


@pytest.mark.parametrize("stage", ["detect", "extract"])
def test_an_interrupted_stage_says_how_much_the_next_run_will_keep(run: RunFolder, stage: str) -> None:
    run.record(stage).unlink()
    total = len(FeatureCache(run.features()))
    if stage == "extract":
        shutil.rmtree(run.features())
    else:
        run.detections.unlink()
    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(run.path, stage, stopping_after(2))
    found = row(run, stage)
    assert found.state == "partial"
    assert found.progress is not None
    assert (found.progress.done, found.progress.total) == (2 * (4 if stage == "detect" else 5), total)
    made: list[int] = []

    def count(function: Callable[[Any], Any], units: list[Any]) -> Iterator[tuple[Any, Any]]:
        for unit in units:
            there = list(run.path.rglob("*.outcomes.parquet")) + list(run.features().glob("*.h5"))
            result = function(unit)
            made.append(
                len(list(run.path.rglob("*.outcomes.parquet")) + list(run.features().glob("*.h5")))
                - len(there)
            )
            yield unit, result

    bring_up_to_date(run.path, stage, Tools(map=count))
    assert made[:2] == [0, 0]
    assert set(made[2:]) == {1}
    assert row(run, stage).state == "fresh"


def test_what_an_interrupted_run_left_under_other_settings_does_not_count(run: RunFolder) -> None:
    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(run.path, "extract", stopping_after(1), pooled=1)
    assert row(run, "extract").progress is not None
    config = RunConfig.read(run.config).override("extract", {"pooled": 3})
    config.write(run.config)
    found = row(run, "extract")
    assert (found.state, found.progress) == ("stale", None)
    assert found.reasons == ["pooled: 2 -> 3"]


@pytest.mark.slow
def test_a_training_shows_its_checkpoint_and_one_of_other_settings_does_not_count(
    run: RunFolder, tiny_encoder: Path
) -> None:
    training = ["train", run.path, "--system", "bert-crf", "--seed", 3, "--encoder", tiny_encoder]
    with Command(*training, "--epochs", 100, "--first-evaluation", 100, "--checkpoint-seconds", 0) as command:
        wait_until(lambda: list(run.path.rglob("progress.json")) or command.over)
        command.kill_group()
    found = row(run, "train-bert-crf-seed-3")
    assert found.state == "partial"
    assert found.progress is not None
    written = json.loads(next(run.path.rglob("progress.json")).read_text())
    assert (found.progress.done, found.progress.total) == (written["step"], written["steps"])
    assert found.progress.details == {"epoch": written["epoch"], "of epochs": 100}
    assert run_status(run).next_command == f"hmnet-pipe train {run.path} --system bert-crf --seed 3"
    RunConfig.read(run.config).override("train", {"learning_rate": 1.0}).write(run.config)
    assert row(run, "train-bert-crf-seed-3").state == "never run"


def test_failed_images_are_counted_by_their_reason(run: RunFolder) -> None:
    outcomes = pq.read_table(run.outcomes("extract"))
    rows = outcomes.to_pylist()
    for number, reason in ((0, "changed"), (1, "truncated"), (2, "changed")):
        rows[number].update(status="failed", reason=reason)
    write_table(run.outcomes("extract"), table_of(outcomes.schema, rows))
    assert list(row(run, "extract").failures.items()) == [("changed", 2), ("truncated", 1)]
    problems = [one["reason"] for one in pq.read_table(run.problems).to_pylist()]
    assert row(run, "prepare").failures == {reason: problems.count(reason) for reason in set(problems)}


def test_a_text_that_is_changed_after_prepare_makes_it_stale_and_a_touched_one_does_not(
    run: RunFolder, tmp_path: Path
) -> None:
    own = Path(
        shutil.copytree(Path(RunConfig.read(run.config).of(PrepareSettings).text), tmp_path / "corpus")
    )
    config = RunConfig.read(run.config)
    config.override("prepare", {"text": own}).write(run.config)
    bring_up_to_date(run.path, "prepare")
    (own / "valid.jsonl").touch()
    assert row(run, "prepare").state == "fresh"
    lines = (own / "valid.jsonl").read_text().splitlines()
    (own / "valid.jsonl").write_text(lines[0] + "\n")
    found = row(run, "prepare")
    assert found.state == "stale"
    assert any(reason.startswith("inputs.text.valid: ") for reason in found.reasons)


def test_a_stage_whose_weights_are_missing_is_blocked_with_the_remedy(run: RunFolder) -> None:
    RunConfig.read(run.config).override("extract", {"weights": "nowhere.pth"}).write(run.config)
    found = row(run, "extract")
    assert found.state == "blocked"
    assert "nowhere.pth is not a file" in found.reasons[0]


@pytest.mark.slow
def test_the_command_prints_all_of_it_as_json(run: RunFolder) -> None:
    value = json.loads(hmnet("status", run.path, "--json").stdout)
    assert set(value) >= {"stages", "bytes", "parts", "next_command"}
    assert set(value["stages"][0]) >= {
        "stage",
        "state",
        "reasons",
        "progress",
        "failures",
        "done",
        "failed",
        "seconds",
        "finished",
    }


def test_digests_made_part_by_part_are_those_of_the_whole(tmp_path: Path) -> None:
    """The canonical bytes are written out here, independently of arrow's buffers."""
    words = ["Ä", "", "b" * 40, "\N{SNOWMAN}"]
    rows = [
        {
            "id": str(i),
            "split": None if i % 3 else "train",
            "tokens": words[: i % 5],
            "head": [i, i + 1] if i % 2 else None,
        }
        for i in range(10)
    ]
    path = tmp_path / "samples.parquet"
    write_table(path, table_of(SAMPLES, rows), group_rows=4)
    table = pq.read_table(path)
    assert (
        table_digest(path, SAMPLES, batch_rows=3)
        == digest_table(table)
        == digest_table(pa.concat_tables([table[:4], table[4:]]))
    )
    part = tmp_path / "part.parquet"
    write_table(part, table_of(SAMPLES, rows[2:7]))
    assert digest_table(table[2:7]) == table_digest(part, SAMPLES) != digest_table(table)
    detections = [
        {"image_key": "k" * i, "rank": i, "x0": 0.5, "label": None if i else "é", "score": 1.0}
        for i in range(4)
    ]

    def column(name: str, *parts: bytes) -> list[object]:
        return [name, str(DETECTIONS.field(name).type), [hashlib.sha256(part).hexdigest() for part in parts]]

    valid, absent = b"\1" * 4, b"\0" * 4
    columns = [
        column("image_key", valid, struct.pack("<4q", 0, 1, 2, 3), b"k" * 6),
        column("rank", valid, b"", bytes(range(4))),
        column("x0", valid, b"", struct.pack("<4f", *[0.5] * 4)),
        *(column(name, absent, b"", b"") for name in ("y0", "x1", "y1")),
        column("label", b"\1\0\0\0", struct.pack("<q", 2), "é".encode()),
        column("score", valid, b"", struct.pack("<4f", *[1.0] * 4)),
    ]
    canonical = json.dumps([columns, 4], separators=(",", ":")).encode()
    write_table(tmp_path / "detections.parquet", table_of(DETECTIONS, detections))
    assert table_digest(tmp_path / "detections.parquet", DETECTIONS) == hashlib.sha256(canonical).hexdigest()


@pytest.mark.parametrize("keys", [["a" * 64, "b" * 64, "c" * 64], ['quo"te', "back\\slash", "é"], []])
def test_the_digest_of_features_is_that_of_their_canonical_json(tmp_path: Path, keys: Any) -> None:
    spec = FeatureSpec("resnet50", "w", TRANSFORM, (1, 2), 1, 4, "float16")
    write_index(
        tmp_path, spec, [IndexRow(key, f"shard-{i}.h5", i, 2**63 + i, "i") for i, key in enumerate(keys)]
    )
    identity = json.dumps(spec.identity, sort_keys=True)
    expected = digest_json([identity, sorted([key, 2**63 + i] for i, key in enumerate(keys))])
    cache = FeatureCache(tmp_path)
    assert cache.digest() == expected
    assert cache.shards() == [f"shard-{i}.h5" for i in range(len(keys))]
    assert list(cache) == sorted(keys)


def test_a_remembered_digest_is_never_that_of_an_older_content(tmp_path: Path) -> None:
    """A file of the same size, with its old time of modification put back."""
    path = tmp_path / "weights"
    path.write_bytes(b"old!")
    os.utime(path, ns=(10**18, 10**18))
    first = digest_file(path, settling_ns=0)  # remembers what was written this moment too
    time.sleep(0.05)  # longer than a tick of the file system's clock
    path.write_bytes(b"new!")
    os.utime(path, ns=(10**18, 10**18))
    assert digest_file(path, settling_ns=0) != first
