"""The training loop with real processes: killed at any update, shared by two, stopped early, and what it
leaves behind.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.manifests.fingerprint import digest_file
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import read_table, table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.checks.status import run_status
from hmnet_pipe.pipeline.report.text import trials_table
from hmnet_pipe.pipeline.reproduce.lock import lock_run, read_lock
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.pipeline.run.trainings import finished_trainings
from hmnet_pipe.stages.base.ahead import prefetched
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.evaluate.evaluation import evaluate
from hmnet_pipe.stages.learning.draws import few_shots
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.learning.splits import Split, encode_split
from hmnet_pipe.stages.text.encoders.bert import load_tokenizer
from hmnet_pipe.stages.text.limits import EncodedText
from hmnet_pipe.stages.text.subwords import Subwords
from safetensors.torch import load_file

from ...running import (
    Campaign,
    Command,
    Demos,
    bring_up_to_date,
    configure,
    hmnet,
    model_of,
    said_by,
    text_of,
    wait_until,
)

SIZES = {"train": 42, "valid": 12, "test": 12}


@pytest.fixture(scope="module")
def run(demos: Demos, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Return a run that is ready to train, with demo images and a random encoder without dropout."""
    folder = tmp_path_factory.mktemp("run")
    encoder = shutil.copytree(tiny_encoder, folder / "encoder")
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(
        json.dumps({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    )
    run = Path(shutil.copytree(demos.run(sizes=SIZES), folder / "run"))
    configure(run, "train", encoder=str(encoder), epochs=3, first_evaluation=1, batch_size=4)
    return run


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.mark.slow
def test_training_killed_at_any_update_resumes_to_the_same_weights_and_history(
    copy: Path, run: Path, tmp_path: Path, tiny_encoder: Path, campaign: Campaign
) -> None:
    """SIGKILL again and again, at random moments, a training with dropout that saves after every update."""
    options: dict[str, Any] = {"encoder": str(tiny_encoder), "accumulate": 2, "epochs": 9}
    undisturbed = Path(shutil.copytree(run, tmp_path / "undisturbed"))
    bring_up_to_date(undisturbed, "train", **options)
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    given += ["--checkpoint-seconds", "0"]
    draw = random.Random(campaign.seed)

    def saved() -> str:
        return "".join(text_of(path) for path in (copy / "stages").glob("train-*.parts/*/progress.json"))

    def train_on_and_be_killed() -> dict[str, int]:
        """Train until it has saved once more than before, and kill it at a random moment after that."""
        before = saved()
        with Command("train", copy, *given) as command:
            wait_until(lambda: saved() not in ("", before) or command.over)
            time.sleep(draw.uniform(0, 0.05))
            assert not command.over, command.said()
            command.kill_group()
        progress: dict[str, int] = json.loads(saved())
        return progress

    progress = [train_on_and_be_killed() for _ in range(4)]
    steps = [state["step"] for state in progress]
    assert sorted(set(steps)) == steps
    assert any(step % (progress[0]["steps"] // progress[0]["epochs"]) for step in steps), (
        "no kill in the middle of an epoch"
    )
    said = said_by(copy, "train", **options)
    assert any("resuming after" in line for line in said)
    assert load_digest(copy) == load_digest(undisturbed)
    columns = ["epoch", "step", "loss", "learning_rate", "valid_f1"]
    histories = [
        pq.read_table(model_of(folder) / "history.parquet").select(columns) for folder in (copy, undisturbed)
    ]
    assert histories[0].equals(histories[1])
    assert not list(copy.rglob("checkpoint.pt"))
    assert not list(copy.rglob("best-*.safetensors"))


@pytest.mark.slow
def test_a_checkpoint_of_another_version_is_named_and_training_starts_afresh(
    copy: Path, run: Path, tmp_path: Path
) -> None:
    undisturbed = Path(shutil.copytree(run, tmp_path / "undisturbed"))
    bring_up_to_date(undisturbed, "train")

    def stop(line: str) -> None:
        if "epoch 2 of 3" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(copy, "train", Tools(say=stop, checkpoint_seconds=0))
    (path,) = copy.rglob("checkpoint.pt")
    state = torch.load(path, weights_only=True)
    torch.save({**state, "progress": json.dumps(list(json.loads(state["progress"]).values()))}, path)
    said = said_by(copy, "train")
    assert any("is of another version" in line and "from the beginning" in line for line in said)
    assert sum("epoch " in line for line in said) == 3
    assert load_digest(copy) == load_digest(undisturbed)


def load_digest(run: Path) -> dict[str, bytes]:
    return {
        name: (model_of(run) / name).read_bytes()
        for name in ("model.safetensors", "metrics.json", "predictions.parquet")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "batch_size", "accumulate"),
    [("hmnet", 4, 1), pytest.param("bert-crf", 5, 2, marks=pytest.mark.soak)],
)
def test_two_processes_train_as_one_with_the_same_batches(
    copy: Path, run: Path, tmp_path: Path, system: str, batch_size: int, accumulate: int
) -> None:
    """Real torchrun, gloo; the last batch of 42 samples is one that cannot be halved evenly.

    Clipping sees the whole gradient.
    """
    alone = Path(shutil.copytree(run, tmp_path / "alone"))
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": 1e-3,
        "precision": "fp32",
    }
    bring_up_to_date(alone, "train", trial=Trial(system), **options)
    given = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    arguments = ["train", str(copy), "--system", system, *given]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    torchrun = [*launcher, "-m", "hmnet_pipe"]
    done = subprocess.run([*torchrun, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best epoch") == 1, "rank 0 alone speaks"
    assert RunConfig.read(RunFolder(copy).config).of(TrainSettings).processes == 2
    weights = [load_file(model_of(folder, Trial(system)) / "model.safetensors") for folder in (copy, alone)]
    moved = load_file(
        Path(RunConfig.read(RunFolder(run).config).of(TrainSettings).encoder) / "model.safetensors"
    )
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[0][name], value, rtol=1e-3, atol=2e-5, msg=name)
    start = moved["encoder.layer.0.attention.self.query.weight"]
    assert (weights[1]["encoder.encoder.layer.0.attention.self.query.weight"] - start).abs().max() > 1e-3, (
        "nothing was learned"
    )
    losses = [
        pq.read_table(model_of(folder, Trial(system)) / "history.parquet").column("loss").to_pylist()
        for folder in (copy, alone)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    # Alone, the run says how to go on, since another number of processes rounds otherwise.
    lone = hmnet("train", copy, "--system", system, "--epochs", 4)
    assert lone.returncode == 2
    assert "--processes 1" in lone.stderr
    assert "torchrun" in lone.stderr


@pytest.mark.slow
def test_early_stopping_keeps_the_best_epoch_and_says_why_it_stopped(copy: Path) -> None:
    """With rates of zero no epoch is better than the first."""
    still: dict[str, Any] = {"learning_rate": 0.0, "head_learning_rate": 0.0, "fusion_learning_rate": 0.0}
    said = said_by(copy, "train", epochs=9, patience=2, **still)
    metrics = json.loads((model_of(copy) / "metrics.json").read_text())
    assert metrics["best_epoch"] == 1
    assert pq.read_table(model_of(copy) / "history.parquet").column("epoch").to_pylist() == [1, 2, 3]
    assert any("no better validation F1 in 2 epochs" in line for line in said)


@pytest.mark.slow
def test_each_epoch_is_a_line_with_loss_rate_speed_and_score(copy: Path) -> None:
    said = [line for line in said_by(copy, "train") if "epoch " in line]
    assert len(said) == 3
    rows = pq.read_table(model_of(copy) / "history.parquet").to_pylist()
    for line, row in zip(said, rows, strict=True):
        assert (
            f"epoch {row['epoch']} of 3: loss {row['loss']:.4f}, learning rate {row['learning_rate']:.2e}"
            in line
        )
        assert f"validation F1 {row['valid_f1']:.4f}" in line
        assert "samples/s" in line


@pytest.mark.slow
def test_tensorboard_gets_losses_rates_and_scores_and_the_result_does_not_change(
    copy: Path, run: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = Path(shutil.copytree(run, tmp_path / "plain"))
    bring_up_to_date(plain, "train", batch_size=2)
    bring_up_to_date(copy, "train", batch_size=2, tensorboard=True)
    drawn = EventAccumulator(str(RunFolder(copy).logs("train-hmnet-seed-1")))
    drawn.Reload()
    history = pq.read_table(model_of(copy) / "history.parquet").to_pylist()
    scores = [(event.step, event.value) for event in drawn.Scalars("validation F1")]
    assert [step for step, _ in scores] == [row["step"] for row in history]
    np.testing.assert_allclose(
        [value for _, value in scores], [row["valid_f1"] for row in history], rtol=1e-6
    )
    assert [event.step for event in drawn.Scalars("loss")] == list(range(10, 64, 10))
    assert drawn.Scalars("learning rate")[-1].value < drawn.Scalars("learning rate")[0].value
    assert load_digest(copy) == load_digest(plain)


def test_a_loss_that_is_no_number_is_one_sentence_with_a_remedy(copy: Path) -> None:
    with pytest.raises(StageError, match=r"the loss became (nan|inf).*lower the learning rates"):
        bring_up_to_date(copy, "train", learning_rate=1e30, head_learning_rate=1e30, clip_norm=0.0)


def split_of(gold: list[list[str]]) -> Split:
    count = len(gold)
    texts = [EncodedText([0], [0], 1)] * count
    return Split(
        "train",
        [str(i) for i in range(count)],
        [["w"] * len(tags) for tags in gold],
        gold,
        [[]] * count,
        [None] * count,
        texts,
    )


@pytest.mark.slow
def test_few_shots_are_trained_beside_the_full_training_each_subset_for_itself(copy: Path) -> None:
    folder = RunFolder(copy)
    bring_up_to_date(copy, "train", epochs=1)
    full = {path: path.read_bytes() for path in folder.model(Trial("hmnet")).iterdir() if path.is_file()}
    trials = [Trial("hmnet", 1, 2, subset) for subset in (1, 2)]
    for trial in trials:
        bring_up_to_date(copy, "train", trial=trial)
    assert {path: path.read_bytes() for path in full} == full
    config = RunConfig.read(folder.config)
    assert [run_stage(config.stage("train", folder, trial), Tools()).state for trial in trials] == [
        "fresh"
    ] * 2
    models = [load_file(folder.model(trial) / "model.safetensors") for trial in [Trial("hmnet"), *trials]]
    assert len({model["classifier.weight"].numpy().tobytes() for model in models}) == 3
    metrics = [json.loads((folder.model(trial) / "metrics.json").read_text()) for trial in trials]
    assert [(one["shots"], one["subset_seed"]) for one in metrics] == [(2, 1), (2, 2)]
    states = {row.stage: row.state for row in run_status(folder).stages}
    assert {name: state for name, state in states.items() if name.startswith("train")} == {
        "train-hmnet-seed-1": "fresh",
        "train-hmnet-seed-1-shots-2-subset-1": "fresh",
        "train-hmnet-seed-1-shots-2-subset-2": "fresh",
    }
    assert read_lock(lock_run(folder))["scores"].keys() >= {f"train-{trial.name}" for trial in trials}
    table = trials_table(finished_trainings(folder)).splitlines()
    assert [line.split("  ")[0] for line in table[2:]] == ["hmnet", "hmnet, 2 shots"]


FEW = Trial("hmnet", shots=2)


def test_training_with_few_shots_is_training_on_what_they_draw_and_on_nothing_else(
    copy: Path, run: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    samples = read_table(RunFolder(run).samples, SAMPLES)
    split = encode_split(samples, "train", Subwords(load_tokenizer(tiny_encoder)), task="ner", max_length=128)
    drawn = set(few_shots(split, 2, 1).ids)
    assert 0 < len(drawn) < len(split.ids)
    alone = Path(shutil.copytree(run, tmp_path / "alone"))
    rows = [row for row in samples.to_pylist() if row["split"] != "train" or row["id"] in drawn]
    write_table(RunFolder(alone).samples, table_of(SAMPLES, rows))
    bring_up_to_date(copy, "train", trial=FEW)
    bring_up_to_date(alone, "train")
    for name in ("model.safetensors", "predictions.parquet"):
        assert digest_file(model_of(copy, FEW) / name) == digest_file(model_of(alone) / name)


def test_prefetching_keeps_the_order_and_hands_on_an_error_in_its_place() -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise KeyError("here")

    got: list[int] = []
    with pytest.raises(KeyError, match="here"):
        got.extend(prefetched(source()))
    assert got == list(range(5))
    made: list[int] = []

    def counted(number: int) -> int:
        made.append(number)
        return number

    ahead: Any = prefetched((counted(i) for i in range(100)), depth=3)
    assert next(ahead) == 0
    time.sleep(0.2)
    assert len(made) <= 5, "prefetching must stay within its depth"
    ahead.close()


def test_settings_that_make_no_sense_are_refused(run: Path) -> None:
    config = RunConfig.read(RunFolder(run).config)
    wrongs: list[dict[str, Any]] = [{"patience": -1}, {"processes": 0}]
    for wrong in wrongs:
        with pytest.raises(InputError):
            replace(config.of(TrainSettings), **wrong)


def test_evaluate_explains_each_sample_by_its_gates_and_attention(copy: Path) -> None:
    bring_up_to_date(copy, "train", precision="fp32")
    folder = RunFolder(copy)
    scores = evaluate(model_of(copy), folder, precision="fp32", explain=True)[0]
    scored = json.loads((model_of(copy) / "metrics.json").read_text())["test"]
    assert {**scores, "errors": None} == {**scored, "errors": None}
    samples = {row["id"]: row for row in pq.read_table(folder.samples).to_pylist()}
    boxes = Counter(pq.read_table(folder.detections).column("image_key").to_pylist())
    rows = pq.read_table(model_of(copy) / "explanation-test.parquet").to_pylist()
    assert len(rows) == 12
    for row in rows:
        sample = samples[row["id"]]
        assert row["positions"] == sample["tokens"]
        present = [row["image_key"] is not None, *(number < boxes[row["image_key"]] for number in range(3))]
        assert row["views"] == present
        gates, attention = np.array(row["gates"]), np.array(row["attention"])
        assert gates.shape == (4, 4, 4)
        assert attention.shape == (4, len(sample["tokens"]), 4)
        np.testing.assert_allclose(gates.sum(-1), 1, rtol=1e-5)
        assert (attention[..., ~np.array(present)] == 0).all()
        assert (attention[..., present] > 0).all()
        assert (attention.sum(-1) < 1).all()
