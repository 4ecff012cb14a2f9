"""What the shared code does for every system of the registry: train, resume, score, explain, record, verify.

A system that is added is tested here without a word. Processes are forked from one that has loaded torch, so
that a real kill costs a tenth of a second.
"""

import json
import math
import multiprocessing
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hmnet_pipe import Predictor
from hmnet_pipe.manifests.errors import InputError, Stopped
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS, IMAGES, PREDICTIONS, SAMPLES
from hmnet_pipe.manifests.tables import read_table, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.checks.status import run_status
from hmnet_pipe.pipeline.reproduce.lock import lock_run, read_lock
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.evaluate import evaluate_trial
from hmnet_pipe.pipeline.run.graph import stage_named
from hmnet_pipe.pipeline.run.runner import follow_stage, lead_stage, run_stage
from hmnet_pipe.pipeline.run.trainings import finished_trainings
from hmnet_pipe.stages.base.tools import SILENT, Tools
from hmnet_pipe.stages.learning import loop
from hmnet_pipe.stages.learning.inputs import makers
from hmnet_pipe.stages.learning.metrics import read_metrics
from hmnet_pipe.stages.learning.predictions import predict_split
from hmnet_pipe.stages.learning.ranks import joined_ranks
from hmnet_pipe.stages.learning.splits import Split
from hmnet_pipe.stages.predict.posts import Post
from hmnet_pipe.stages.systems.folder import load_system
from hmnet_pipe.stages.systems.registry import SYSTEMS
from hmnet_pipe.stages.systems.system import OVER, Model, System

from ...running import Demos, bring_up_to_date, stage_of, wait_until

pytestmark = pytest.mark.slow

EVERY = [(name, task) for name, info in SYSTEMS.items() for task in info.tasks]
SIZES = {"train": 12, "valid": 4, "test": 4}
RECIPE = {"epochs": 3, "first_evaluation": 1, "batch_size": 4, "precision": "fp32", "learning_rate": 1e-3}

# What they see of an image is added up, or is text.
WITHOUT_WEIGHTS = ("bert-labels", "bert-sg", "bert-sg-edges")

every_system = pytest.mark.parametrize(("name", "task"), EVERY, ids=[f"{n}-{t}" for n, t in EVERY])


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@pytest.fixture(scope="module")
def run_of(
    demos: Demos, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return a function that returns the run of a task, with everything that any system reads.

    It is this module's own: each system has a place of its own in it.
    """
    made: dict[str, Path] = {}

    def make(task: str) -> Path:
        if task not in made:
            made[task] = tmp_path_factory.mktemp("every") / task
            whole = demos.run(task, SIZES, train={"encoder": str(tiny_encoder), **RECIPE})
            shutil.copytree(whole, made[task])
            run = RunFolder(made[task])
            infos = [info for info in SYSTEMS.values() if task in info.tasks]
            for stage in sorted({stage for info in infos for stage in makers(info, info.feature_set())}):
                run_stage(stage_named(RunConfig.read(run.config), run, stage), SILENT)
        return made[task]

    return make


def trained(folder: Path, trial: Trial) -> None:
    """Train in a process of its own, with a checkpoint after every update."""
    run_stage(stage_of(folder, "train", trial), Tools(checkpoint_seconds=0))


@every_system
def test_a_killed_training_ends_as_an_undisturbed_one_and_is_scored_and_recorded(
    name: str, task: str, run_of: Callable[[str], Path], forks: ForkServerContext, tmp_path: Path
) -> None:
    folder, trial = run_of(task), Trial(name)
    run = RunFolder(folder)
    stage = stage_of(folder, "train", trial)
    process = forks.Process(target=trained, args=(folder, trial))
    process.start()
    wait_until(lambda: any(run.work(stage.name).glob("*/progress.json")) or not process.is_alive())
    process.kill()
    process.join()
    assert not stage.place.joinpath("metrics.json").exists()  # the kill came before its end
    said: list[str] = []
    run_stage(stage, Tools(say=said.append))
    assert any("resuming after" in line for line in said)

    scratch = RunFolder(tmp_path / "scratch")
    scratch.path.mkdir()
    record = StageRecord.read(run.record(stage.name))
    assert record is not None
    again = stage.again(record, 1.0, False, scratch, SILENT)
    assert (again.verdict, again.remarks) == ("equal", [])

    assert run_stage(stage_of(folder, "train", trial), SILENT).state == "fresh"
    states = {row.stage: row.state for row in run_status(run).stages}
    assert states[stage.name] == "fresh"
    metrics = read_metrics(stage.place)
    scores, _ = evaluate_trial(run, trial, run, split="valid")
    assert scores["f1"] == metrics["valid"]["f1"]
    assert metrics in finished_trainings(run, [name])
    assert load_system(stage.place).config.system == name
    locked = read_lock(lock_run(run, tmp_path / "lock"))
    assert stage.name in locked["stages"]
    assert_posts_are_read_as_samples(run, stage.place)


def assert_posts_are_read_as_samples(run: RunFolder, model: Path) -> None:
    """Compare what a model finds in the test split's texts and image files with its predictions there."""
    paths = {row["key"]: row["path"] for row in read_table(run.images, IMAGES).to_pylist()}
    samples = {row["id"]: row for row in read_table(run.samples, SAMPLES).to_pylist()}
    predictions = read_table(model / "predictions.parquet", PREDICTIONS).to_pylist()
    posts = [
        Post(
            tokens=row["tokens"],
            image=paths.get(samples[row["id"]]["image_key"]),
            head=samples[row["id"]]["head"],
            tail=samples[row["id"]]["tail"],
        )
        for row in predictions
    ]
    found = Predictor.from_pretrained(model)(posts)
    for row, result in zip(predictions, found, strict=True):
        assert not result.error
        if result.relations:
            assert [relation.relation for relation in result.relations] == row["predicted"]
            continue
        tags = ["O"] * len(row["tokens"])
        for entity in result.entities:
            assert entity.token_start is not None
            assert entity.token_end is not None
            tags[entity.token_start] = f"B-{entity.entity_group}"
            inside = range(entity.token_start + 1, entity.token_end)
            tags[inside.start : inside.stop] = [f"I-{entity.entity_group}"] * len(inside)
        assert tags == row["predicted"]


def assert_posts_look_at_what_samples_do(
    run: RunFolder, model: Path, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Compare the explanations of posts with those of the same samples, `rows`, and the boxes of the run."""
    images = {row["key"]: row for row in read_table(run.images, IMAGES).to_pylist()}
    samples = {row["id"]: row for row in read_table(run.samples, SAMPLES).to_pylist()}
    boxes: dict[str, list[list[float]]] = {}
    for row in sorted(read_table(run.detections, DETECTIONS).to_pylist(), key=lambda row: row["rank"]):
        boxes.setdefault(row["image_key"], []).append([row[side] for side in ("x0", "y0", "x1", "y1")])
    rows = [row for row in rows if any(row["views"])]
    assert rows
    system = load_system(model)
    assert isinstance(system, System)
    if not system.looks_at(torch.ones(1, 4, dtype=torch.bool))[0, 0]:  # the whole image is no part of it
        assert {row["over"] for row in rows} == {"objects"}
    given = [samples[row["id"]] for row in rows]
    posts = [
        Post(
            tokens=one["tokens"],
            image=images[one["image_key"]]["path"],
            head=one["head"],
            tail=one["tail"],
        )
        for one in given
    ]
    for row, found in zip(rows, Predictor.from_pretrained(model)(posts, explain=True), strict=True):
        explained, image = found.explanation, images[row["image_key"]]
        assert explained is not None
        size = explained["image"]["width"], explained["image"]["height"]
        assert size == (image["width"], image["height"])
        there = [j for j, seen in enumerate(row["views"]) if seen]
        shown = [list(region["box"].values()) for region in explained["regions"]]
        if row["over"] == "cells":
            side = math.isqrt(len(row["views"]))
            x, y = np.meshgrid(np.arange(side), np.arange(side))  # row-major
            grid = np.stack([x, y, x + 1, y + 1], axis=-1).reshape(-1, 4) / side
            wanted = (grid * [*size, *size])[there].tolist()
        else:
            whole = [[0, 0, *size]] if row["over"] == "views" else []
            every = [*whole, *boxes.get(row["image_key"], [])]
            wanted = [every[j] for j in there]
        np.testing.assert_allclose(shown, wanted, atol=0.006)
        attention = np.array(row["attention"])[..., there]
        np.testing.assert_allclose(explained["attention"], attention, atol=1e-4)
        assert attention.max() > 0
        assert len(explained["spans"]) == attention.shape[1]
        if row["gates"] is not None:
            gates = np.array(row["gates"])[:, there]
            np.testing.assert_allclose(explained["gates"], gates, atol=1e-4)
        for name, values in row["word_gates"]:
            np.testing.assert_allclose(explained["word_gates"][name], values, atol=1e-4)


@every_system
def test_two_processes_train_it(
    name: str,
    task: str,
    run_of: Callable[[str], Path],
    forks: ForkServerContext,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_of(task), folder, ignore=shutil.ignore_patterns("models", "train-*"))
    config = RunConfig.read(RunFolder(folder).config)
    config.override("train", {"processes": 2, "epochs": 1}).write(RunFolder(folder).config)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [forks.Process(target=joined, args=(folder, Trial(name), rank, port)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    metrics = read_metrics(RunFolder(folder).model(Trial(name)))
    assert metrics["test"]["support"] >= 0
    assert pq.read_table(RunFolder(folder).model(Trial(name)) / "predictions.parquet").num_rows == 4


def test_two_processes_stop_together_within_a_validation(
    run_of: Callable[[str], Path], forks: ForkServerContext, tmp_path: Path
) -> None:
    """Three samples to validate on, one at a time: rank 1 has one batch less, and hears no signal itself."""
    folder = tmp_path / "run"
    shutil.copytree(run_of("ner"), folder, ignore=shutil.ignore_patterns("models", "train-*"))
    run = RunFolder(folder)
    samples = read_table(run.samples, SAMPLES)
    valid = [i for i, split in enumerate(samples["split"].to_pylist()) if split == "valid"]
    write_table(run.samples, samples.take([i for i in range(len(samples)) if i not in valid[3:]]))
    settings = {"processes": 2, "epochs": 1, "first_evaluation": 1}
    RunConfig.read(run.config).override("train", settings).write(run.config)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        forks.Process(target=stopped, args=(folder, Trial("bert-crf"), rank, port, tmp_path))
        for rank in (0, 1)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [143, 143]
    # Rank 0 hears the signal in its first batch of two; no rank comes to its second.
    assert sorted(path.name for path in tmp_path.glob("predicted-*")) == ["predicted-0-1", "predicted-1-1"]
    (checkpoint,) = run.work("train-bert-crf-seed-1").rglob("progress.json")
    assert json.loads(checkpoint.read_text())["epoch"] == 0


def stopped(folder: Path, trial: Trial, rank: int, port: int, notes: Path) -> None:
    """Train as `joined` does, with a signal to rank 0 in its first batch of validation; note each batch."""
    seen = 0

    def predict(model: Model, split: Split, *, between: Callable[[], None], **settings: Any) -> Any:
        def noted() -> None:
            nonlocal seen
            seen += 1
            (notes / f"predicted-{rank}-{seen}").touch()
            if (rank, seen) == (0, 1):
                os.kill(os.getpid(), signal.SIGTERM)
            between()

        return predict_split(model, split, between=noted, **settings)

    patch = pytest.MonkeyPatch()  # of this process, which ends with it
    patch.setattr(loop, "predict_split", predict)
    patch.setattr(loop, "_PREDICTED_AT_ONCE", 1)
    try:
        joined(folder, trial, rank, port)
    except Stopped as error:
        sys.exit(error.exit_code)


def joined(folder: Path, trial: Trial, rank: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    with joined_ranks() as ranks:
        stage = stage_of(folder, "train", trial)
        if ranks.leads:
            lead_stage(stage, SILENT, ranks, None)
        else:
            follow_stage(stage, ranks)


@every_system
def test_it_says_what_it_looked_at_or_that_there_is_nothing_to_say(
    name: str, task: str, run_of: Callable[[str], Path]
) -> None:
    folder, trial, info = run_of(task), Trial(name), SYSTEMS[name]
    bring_up_to_date(folder, "train", trial=trial)
    run = RunFolder(folder)
    if not info.is_visual:
        with pytest.raises(InputError, match=f"{name} reads no images"):
            evaluate_trial(run, trial, run, shuffle_images=True)
        return
    if name in WITHOUT_WEIGHTS:
        with pytest.raises(InputError, match=r"no gate and no attention|no attention to show"):
            evaluate_trial(run, trial, run, explain=True)
    else:
        _, path = evaluate_trial(run, trial, run, explain=True)
        rows = pq.read_table(path.with_name("explanation-test.parquet")).to_pylist()
        assert len(rows) == 4
        for row in rows:
            assert row["over"] in OVER
            for layer in row["attention"] or []:
                assert all(0 <= share <= 1 + 1e-5 for word in layer for share in word)
        assert_posts_look_at_what_samples_do(run, path.parent, rows)
    scores, _ = evaluate_trial(run, trial, run, shuffle_images=True)
    assert 0 <= scores["f1"] <= 1


@every_system
def test_only_the_family_of_hmnet_is_trained_from_pixels(
    name: str, task: str, run_of: Callable[[str], Path]
) -> None:
    if SYSTEMS[name].finetunes:
        assert name.startswith("hmnet")
        return
    with pytest.raises(InputError, match=f"{name} .*it is not trained end to end; use `hmnet-pipe train`"):
        run_stage(stage_of(run_of(task), "finetune", Trial(name)), SILENT)
