"""Whole runs through the command line: the same numbers however they are made, and nothing twice or lost."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hmnet_pipe import FeatureCache, HMNeT
from hmnet_pipe.cache.reader import read_index
from hmnet_pipe.manifests.files import TEMPORARY_PREFIX
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.checks.status import run_status
from hmnet_pipe.pipeline.run.runner import Report
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.evaluate.evaluation import evaluate
from safetensors.numpy import load_file

from ...running import (
    SMALL,
    Command,
    Demos,
    begin,
    bring_up_to_date,
    dask,
    dask_scheduler,
    hmnet,
    made_by,
    model_of,
    text_of,
    wait_until,
)


def run_command(*arguments: object) -> None:
    done = hmnet(*arguments)
    assert done.returncode == 0, done.stderr


def prepare(run: Path, corpus: Path, task: str = "ner") -> Report:
    return bring_up_to_date(begin(run, corpus, task), "prepare")


def digests(run: Path) -> dict[str, dict[str, str]]:
    """Return digests of everything that detect and extract made."""
    return {stage: made_by(stage, run) for stage in ("detect", "extract")}


@pytest.fixture(scope="module")
def corpus(demos: Demos) -> Path:
    return demos.corpus()


@pytest.fixture(scope="module")
def run(demos: Demos) -> Path:
    """Return a run with detections and features, made by one process. Tests that change it work on a copy."""
    return demos.run(detect={"chunk": 8}, extract={"shard_rows": 16})


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def train(folder: Path, encoder: Path, epochs: int = 2, **options: Any) -> Report:
    return bring_up_to_date(
        folder, "train", encoder=str(encoder), epochs=epochs, first_evaluation=1, **options
    )


@pytest.fixture(scope="module")
def trained(run: Path, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("trained") / "run"))
    train(folder, tiny_encoder)
    return folder


def test_a_stage_that_is_up_to_date_does_nothing_and_says_so(copy: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in copy.rglob("*")
        if path.is_file() and "stages" not in path.parts
    }
    for stage in ("prepare", "detect", "extract"):
        report = bring_up_to_date(copy, stage)
        assert (report.state, report.done, report.failed) == ("fresh", 0, 0)
        assert "up to date, nothing to do" in report.lines()[0]
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_four_workers_make_the_same_numbers_as_one(run: Path, corpus: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "run", corpus)
    run_command("detect", tmp_path / "run", "--workers", 4, "--chunk", 8)
    run_command("extract", tmp_path / "run", "--workers", 4, "--shard-rows", 16)
    assert digests(tmp_path / "run") == digests(run)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """Yield `dask scheduler` and two `dask worker`s as processes of their own, as on a cluster."""
    with dask_scheduler(tmp_path / "scheduler") as (_, file, address), ExitStack() as workers:
        for _ in range(2):
            workers.enter_context(dask("worker", "--scheduler-file", file, "--nthreads", 1))
        yield address


@pytest.mark.slow
def test_a_running_scheduler_makes_the_same_numbers(
    run: Path, corpus: Path, tmp_path: Path, scheduler: str
) -> None:
    prepare(tmp_path / "run", corpus)
    run_command("detect", tmp_path / "run", "--scheduler", scheduler, "--chunk", 8)
    run_command("extract", tmp_path / "run", "--scheduler", scheduler, "--shard-rows", 16)
    assert digests(tmp_path / "run") == digests(run)


def test_finished_shards_are_kept_by_a_resumed_run(copy: Path) -> None:
    """The record and the index are what a kill before the end leaves out; every shard is there."""
    folder = RunFolder(copy)
    shards = sorted(folder.features().glob("shard-*.h5"))
    assert len(shards) > 2
    before = {path: path.stat().st_mtime_ns for path in shards}
    whole = digests(copy)
    folder.record("extract").unlink()
    (folder.features() / "index.parquet").unlink()
    shards[1].unlink()
    bring_up_to_date(copy, "extract")
    remade = [path for path in shards if path.stat().st_mtime_ns != before[path]]
    assert remade == [shards[1]]
    assert digests(copy) == whole


def test_one_corrupt_shard_is_made_again_alone(copy: Path) -> None:
    folder = RunFolder(copy)
    whole = digests(copy)
    shards = sorted(folder.features().glob("shard-*.h5"))
    before = {path: path.stat().st_mtime_ns for path in shards}
    damaged = bytearray(shards[0].read_bytes())
    damaged[:8] = b"\0" * 8
    shards[0].write_bytes(damaged)
    said: list[str] = []
    bring_up_to_date(copy, "extract", Tools(say=said.append))
    assert "missing or damaged" in said[0]
    assert [path for path in shards[1:] if path.stat().st_mtime_ns != before[path]] == []
    assert digests(copy) == whole


@pytest.mark.slow
def test_new_samples_and_a_changed_image_recompute_only_themselves(corpus: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    names = sorted(path.name for path in (own / "images").iterdir())
    held_back, changed = names[0], names[1]
    (own / "images" / held_back).rename(tmp_path / held_back)
    folder = tmp_path / "run"
    prepare(folder, own)
    bring_up_to_date(folder, "detect")
    bring_up_to_date(folder, "extract")
    (tmp_path / held_back).rename(own / "images" / held_back)
    shutil.copy(
        own / "images" / names[2], own / "images" / changed
    )  # now the content of another: one image fewer
    said: list[str] = []
    bring_up_to_date(folder, "prepare", Tools(say=said.append))
    assert "runs again because of inputs.images" in said[0]
    for stage in ("detect", "extract"):
        report = bring_up_to_date(folder, stage)
        assert (report.done, report.skipped) == (1, len(names) - 2)


@pytest.mark.slow
def test_what_a_kill_left_under_temporary_names_goes_with_the_next_run(
    copy: Path, tiny_encoder: Path
) -> None:
    """Of every file that a stage writes; and what another stage may be writing at this moment stays."""
    run = RunFolder(copy)
    model = model_of(copy)
    written = {
        "prepare": [
            run.samples,
            run.images,
            run.problems,
            run.record("prepare"),
            run.lock("prepare").with_suffix(".owner"),
        ],
        "detect": [run.detections, run.outcomes("detect"), run.record("detect"), run.crops / "a.jpg"],
        "extract": [
            run.outcomes("extract"),
            run.record("extract"),
            run.features() / "index.parquet",
            run.features() / "shard-00000.h5",
        ],
        "train": [model / "model.safetensors", run.record("train-hmnet-seed-1")],
    }
    left = {
        stage: [path.with_name(f"{TEMPORARY_PREFIX}123-{path.name}") for path in paths]
        for stage, paths in written.items()
    }
    training: dict[str, Any] = {"encoder": str(tiny_encoder), "epochs": 1, "first_evaluation": 1}
    for stage in written:
        options = training if stage == "train" else {}
        for path in [each for paths in left.values() for each in paths]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("half")
        run.record(stage).unlink(missing_ok=True)
        bring_up_to_date(copy, stage, **options)
        remaining = set(copy.rglob(f"{TEMPORARY_PREFIX}*"))
        assert remaining == {path for other, paths in left.items() if other != stage for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["detect", "extract"])
def test_what_a_worker_that_is_killed_leaves_goes_with_the_end_of_the_stage(copy: Path, stage: str) -> None:
    def leave_half_a_file(function: Callable[[Any], Any], units: list[Any]) -> Iterator[tuple[Any, Any]]:
        for unit in units:
            yield unit, function(unit)
            place = RunFolder(copy).features() if stage == "extract" else RunFolder(copy).work(stage)
            (place / f"{TEMPORARY_PREFIX}123-shard-00000.h5").write_text("half")

    RunFolder(copy).record(stage).unlink()
    shutil.rmtree(RunFolder(copy).features())
    assert bring_up_to_date(copy, stage, Tools(map=leave_half_a_file)).done > 0
    assert list(copy.rglob(f"{TEMPORARY_PREFIX}*")) == []


def test_a_changed_box_recomputes_its_image_and_no_other(copy: Path) -> None:
    folder = RunFolder(copy)
    keys = list(FeatureCache(folder.features()))
    before = FeatureCache(folder.features()).gather(keys)[0]
    rows = pq.read_table(folder.detections).to_pylist()
    changed = rows[0]["image_key"]
    rows[0] |= {"x0": 0.0, "y0": 0.0, "x1": 20.0, "y1": 20.0}
    write_table(folder.detections, table_of(DETECTIONS, rows))
    report = bring_up_to_date(copy, "extract")
    assert (report.done, report.skipped) == (1, len(keys) - 1)
    after = FeatureCache(folder.features()).gather(keys)[0]
    differ = [key for key, old, new in zip(keys, before, after, strict=True) if not np.array_equal(old, new)]
    assert differ == [changed]


def test_a_changed_option_is_named_and_reruns_what_depends_on_it(copy: Path) -> None:
    bring_up_to_date(copy, "extract", pooled=1)
    states = {row.stage: row.state for row in run_status(RunFolder(copy)).stages}
    assert states == {"prepare": "fresh", "detect": "fresh", "extract": "fresh"}
    assert FeatureCache(RunFolder(copy).features()).spec.pooled == 1
    said: list[str] = []
    bring_up_to_date(copy, "extract", Tools(say=said.append), pooled=2)
    assert said == ["extract runs again because of pooled: 1 -> 2"]


def test_the_old_features_stay_whole_until_new_ones_replace_them(copy: Path) -> None:
    """A run of other settings that stops after its first shard."""
    whole = digests(copy)["extract"]["made"]
    keys = list(FeatureCache(RunFolder(copy).features()))
    before, _ = FeatureCache(RunFolder(copy).features()).gather(keys)

    def stop_after_one(function: Callable[[Any], Any], units: list[Any]) -> Iterator[tuple[Any, Any]]:
        yield units[0], function(units[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(copy, "extract", Tools(map=stop_after_one), pooled=1)
    assert FeatureCache(RunFolder(copy).features()).digest() == whole
    assert np.array_equal(FeatureCache(RunFolder(copy).features()).gather(keys)[0], before)
    assert bring_up_to_date(copy, "extract").done == len(keys)
    assert FeatureCache(RunFolder(copy).features()).spec.pooled == 1
    named = {row.shard for row in read_index(RunFolder(copy).features())[1]}
    assert {path.name for path in RunFolder(copy).features().glob("*.h5")} == named


@pytest.mark.slow
def test_an_image_that_goes_bad_after_prepare_is_one_row_and_the_rest_is_done(
    corpus: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    folder = tmp_path / "run"
    prepare(folder, own)
    bad = sorted((own / "images").iterdir())[3]
    bad.write_bytes(bad.read_bytes()[:200])
    for stage in ("detect", "extract"):
        assert bring_up_to_date(folder, stage).failed == 1
        failed = [
            row
            for row in pq.read_table(RunFolder(folder).outcomes(stage)).to_pylist()
            if row["status"] == "missed"
        ]
        assert len(failed) == 1
        assert "changed since prepare" in failed[0]["reason"]


@pytest.mark.slow
def test_a_second_process_is_told_who_holds_the_stage_and_a_dead_ones_lock_is_taken_over(copy: Path) -> None:
    RunFolder(copy).record("extract").unlink()
    shutil.rmtree(RunFolder(copy).features())
    with Command("extract", copy, "--workers", 1) as first:
        owner = copy / "stages" / "extract.owner"
        wait_until(lambda: f"process {first.process.pid} " in text_of(owner) or first.over)
        first.process.send_signal(
            signal.SIGSTOP
        )  # it keeps its lock, and cannot end before the second has asked
        second = hmnet("extract", copy)
        first.kill_group()
    assert second.returncode == 1
    assert f"is being run by process {first.process.pid} on " in second.stderr
    assert bring_up_to_date(copy, "extract").state == "done"


@pytest.mark.slow
def test_ctrl_c_says_how_to_resume_and_nothing_else(copy: Path) -> None:
    RunFolder(copy).record("extract").unlink()
    shutil.rmtree(RunFolder(copy).features())
    options = ("--workers", 1, "--shard-rows", 1)

    def heed_interrupts() -> None:
        """Restore the signal, which a shell that runs these tests in the background makes children ignore."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with Command("extract", copy, *options, preexec_fn=heed_interrupts) as command:
        wait_until(lambda: list(RunFolder(copy).features().glob("shard-*.h5")) or command.over)
        os.killpg(command.process.pid, signal.SIGINT)  # a terminal sends it to every process of the group
        code, said = command.said()
    assert code == 130
    assert "run the same command again to resume" in said
    assert "Traceback" not in said
    kept = len(list(RunFolder(copy).features().glob("shard-*.h5")))
    assert kept > 0
    assert bring_up_to_date(copy, "extract").state == "done"


def test_views_hold_the_image_and_its_objects_by_falling_score(run: Path) -> None:
    cache = FeatureCache(RunFolder(run).features())
    detections = pq.read_table(run / "detections.parquet").to_pylist()
    counts = {key: sum(row["image_key"] == key for row in detections) for key in cache}
    _, masks = cache.gather(list(cache))
    assert [int(mask.sum()) for mask in masks] == [1 + counts[key] for key in cache]
    assert all(np.array_equal(np.sort(mask)[::-1], mask) for mask in masks)
    for key in counts:
        scores = [row["score"] for row in detections if row["image_key"] == key]
        assert scores == sorted(scores, reverse=True)
        assert len(list((run / "crops").glob(f"{key}-*.jpg"))) == counts[key]


def test_training_twice_gives_the_same_weights_and_scores(
    trained: Path, run: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    again = Path(shutil.copytree(run, tmp_path / "run"))
    train(again, tiny_encoder)
    for name in ("model.safetensors", "metrics.json", "config.json"):
        assert (again / "models/hmnet/seed-1" / name).read_bytes() == (
            trained / "models/hmnet/seed-1" / name
        ).read_bytes()


def test_another_seed_gives_another_model(
    trained: Path, run: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    again = Path(shutil.copytree(run, tmp_path / "run"))
    train(again, tiny_encoder, trial=Trial("hmnet", 2))
    one, two = (
        load_file(path / "model.safetensors")
        for path in (again / "models/hmnet/seed-2", trained / "models/hmnet/seed-1")
    )
    assert any(not np.array_equal(one[name], two[name]) for name in one)


def test_a_saved_model_loads_from_its_folder_alone_and_evaluate_gives_its_test_scores(
    trained: Path, tmp_path: Path
) -> None:
    metrics = json.loads((trained / "models/hmnet/seed-1/metrics.json").read_text())
    scores, _ = evaluate(trained / "models/hmnet/seed-1", RunFolder(trained))
    assert {**scores, "errors": None} == {**metrics["test"], "errors": None}
    moved = Path(shutil.copytree(trained / "models/hmnet/seed-1", tmp_path / "elsewhere"))
    model = HMNeT.from_pretrained(moved)
    stored = load_file(moved / "model.safetensors")
    assert all(np.array_equal(stored[name], value.numpy()) for name, value in model.state_dict().items())
    assert not model.training


def test_predictions_hold_gold_and_guess_of_every_word(trained: Path) -> None:
    rows = pq.read_table(trained / "models/hmnet/seed-1/predictions.parquet").to_pylist()
    assert len(rows) == SMALL["test"]
    assert all(len(row["tokens"]) == len(row["gold"]) == len(row["predicted"]) for row in rows)


@pytest.mark.slow
def test_training_that_is_killed_resumes_to_the_same_weights(
    run: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    options = ["--encoder", tiny_encoder, "--epochs", 6, "--first-evaluation", 1, "--checkpoint-seconds", 0]
    undisturbed = Path(shutil.copytree(run, tmp_path / "a"))
    train(undisturbed, tiny_encoder, epochs=6)
    killed = Path(shutil.copytree(run, tmp_path / "b"))
    with Command("train", killed, *options) as command:
        wait_until(lambda: list(killed.rglob("checkpoint.pt")) or command.over)
        command.kill_group()
    assert not (killed / "models/hmnet/seed-1/model.safetensors").exists()
    said: list[str] = []
    bring_up_to_date(killed, "train", Tools(say=said.append))
    assert any("resuming after" in line for line in said)
    for name in ("model.safetensors", "metrics.json"):
        assert (killed / "models/hmnet/seed-1" / name).read_bytes() == (
            undisturbed / "models/hmnet/seed-1" / name
        ).read_bytes()
    assert not list(killed.rglob("checkpoint.pt"))


def test_without_a_single_image_hmnet_is_its_text_only_counterpart(
    corpus: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    folder = tmp_path / "run"
    (tmp_path / "empty").mkdir()
    begin(folder, corpus, images=tmp_path / "empty")
    report = bring_up_to_date(folder, "prepare")
    assert report.details["samples whose image is missing"] > 0.9 * sum(SMALL.values())
    bring_up_to_date(folder, "detect")
    bring_up_to_date(folder, "extract")
    for system in ("hmnet", "bert-crf"):
        train(folder, tiny_encoder, trial=Trial(system))
    metrics = [
        json.loads((folder / f"models/{system}/seed-1/metrics.json").read_text())
        for system in ("hmnet", "bert-crf")
    ]
    assert metrics[0]["test"] == metrics[1]["test"]
    assert metrics[0]["valid"] == metrics[1]["valid"]
    visual, text = (
        load_file(folder / f"models/{system}/seed-1/model.safetensors") for system in ("hmnet", "bert-crf")
    )
    assert all(np.array_equal(visual[name], value) for name, value in text.items())


def test_every_trainable_parameter_is_in_one_recorded_group(trained: Path) -> None:
    folder = trained / "models/hmnet/seed-1"
    groups = json.loads((folder / "metrics.json").read_text())["parameter_groups"]
    assert sum(group["parameters"] for group in groups) == sum(
        value.size for value in load_file(folder / "model.safetensors").values()
    )
    assert {group["name"] for group in groups} == {
        f"{part}{decay}" for part in ("encoder", "head", "fusion") for decay in ("", ", no decay")
    }


@pytest.mark.slow
def test_relations_run_through_with_both_heads(demos: Demos, tmp_path: Path, tiny_encoder: Path) -> None:
    folder = Path(shutil.copytree(demos.run("re"), tmp_path / "run"))
    for head in ("cls", "markers"):
        for system in ("mtb", "hmnet"):
            train(folder, tiny_encoder, epochs=1, trial=Trial(system), relation_head=head)
        metrics = json.loads((folder / "models/hmnet/seed-1/metrics.json").read_text())
        assert set(metrics["test"]) >= {"precision", "recall", "f1", "accuracy", "per_type", "per_group"}
    record = StageRecord.read(RunFolder(folder).record("train-hmnet-seed-1"))
    assert record is not None
    assert record.parameters["relation_head"] == "markers"
