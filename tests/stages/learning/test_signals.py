"""Signals and full disks end a training with its work kept."""

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from hmnet_pipe.manifests.errors import Stopped
from hmnet_pipe.manifests.files import disk_error, disk_remedy
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cli.group import main
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.base.writing import writing
from hmnet_pipe.stages.learning import loop, signals
from hmnet_pipe.stages.learning.checkpoint import Checkpoints
from hmnet_pipe.stages.learning.loop import Trainer
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.learning.signals import wishes
from hmnet_pipe.stages.train.stage import Train


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Let Ctrl-C be heard where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stage_of(folder: Path, encoder: Path) -> Train:
    run = RunFolder(folder)
    rows = [
        {
            "id": f"{split}-{i}",
            "split": split,
            "task": "ner",
            "tokens": ["ada", "sat"],
            "tags": ["B-PER", "O"],
        }
        for split, count in (("train", 8), ("valid", 2), ("test", 2))
        for i in range(count)
    ]
    write_table(run.samples, table_of(SAMPLES, rows))
    recipe = TrainSettings(
        encoder=str(encoder), epochs=3, batch_size=2, max_length=16, precision="fp32", device="cpu"
    )
    return Train(run, recipe, "ner", Trial("bert-crf"))


def compute(stage: Train, when: Callable[[str], object] = lambda line: None) -> list[str]:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        when(line)

    stage.compute(stage.causes(), Tools(say=say))
    return said


def sent(number: int, moment: str) -> Callable[[str], None]:
    def send(line: str) -> None:
        if moment in line:
            os.kill(os.getpid(), number)

    return send


def weights(stage: Train) -> bytes:
    return (stage.place / "model.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_a_signal_ends_goes_on_from_there(
    tmp_path: Path, tiny_encoder: Path, number: int
) -> None:
    undisturbed, stage = stage_of(tmp_path / "a", tiny_encoder), stage_of(tmp_path / "b", tiny_encoder)
    compute(undisturbed)
    with pytest.raises(Stopped) as stopped:
        compute(stage, sent(number, "epoch 1 of 3"))
    assert stopped.value.exit_code == 128 + number
    (checkpoint,) = tmp_path.rglob("checkpoint.pt")
    assert '"step": 5' in (checkpoint.parent / "progress.json").read_text(), "not at the next update"
    said = compute(stage)
    assert any("resuming after 1 of 3 epochs and 1 of 4 batches" in line for line in said)
    assert weights(stage) == weights(undisturbed)


class Bar:
    """A progress bar over which a signal comes, once."""

    def __init__(self, number: int) -> None:
        self._number = number

    def update(self, n: int = 1) -> None:
        if self._number:
            os.kill(os.getpid(), self._number)
        self._number = 0

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None: ...
    def close(self) -> None: ...


def test_a_validation_ends_before_its_end_and_is_done_again(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, stage = stage_of(tmp_path / "a", tiny_encoder), stage_of(tmp_path / "b", tiny_encoder)
    compute(undisturbed)
    tools = Tools(bar=lambda total, what, unit: Bar(signal.SIGTERM))
    monkeypatch.setattr(loop, "_PREDICTED_AT_ONCE", 1)
    monkeypatch.setattr(Trainer, "predict", partialmethod(Trainer.predict, tools=tools))
    with pytest.raises(Stopped):
        compute(stage)
    monkeypatch.undo()
    said = compute(stage)
    assert any("resuming after 0 of 3 epochs and 4 of 4 batches" in line for line in said)
    assert weights(stage) == weights(undisturbed)


def test_a_training_that_is_stopped_while_it_scores_the_test_split_keeps_its_end(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    undisturbed, stage = stage_of(tmp_path / "a", tiny_encoder), stage_of(tmp_path / "b", tiny_encoder)
    compute(undisturbed)
    bars = Tools(bar=lambda total, what, unit: Bar(signal.SIGINT if what == "predict test" else 0))
    with pytest.raises(Stopped):
        stage.compute(stage.causes(), bars)
    said = compute(stage)
    assert any("resuming after 3 of 3 epochs" in line for line in said)
    assert weights(stage) == weights(undisturbed)
    assert (stage.place / "metrics.json").read_text() == (undisturbed.place / "metrics.json").read_text()


def test_who_asks_again_or_in_vain_to_stop_is_answered_as_outside_of_trainings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: answered.append(number))
    try:
        with wishes() as wish:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # as torchrun does
            assert (wish.asked, answered) == ("stop", [])
            monkeypatch.setattr(signals, "_AT_ONCE", -1.0)
            os.kill(os.getpid(), signal.SIGTERM)
            assert len(answered) == 1
        assert len(answered) == 2
        with wishes() as wish:
            pass
        assert len(answered) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigusr1_writes_a_checkpoint_and_goes_on(tmp_path: Path, tiny_encoder: Path) -> None:
    undisturbed, stage = stage_of(tmp_path / "a", tiny_encoder), stage_of(tmp_path / "b", tiny_encoder)
    assert not [line for line in compute(undisturbed) if "checkpoint" in line]
    said = compute(stage, sent(signal.SIGUSR1, "epoch 1 of 3"))
    (line,) = [line for line in said if "checkpoint" in line]
    assert line.endswith("checkpoint written after update 5")
    assert sum("epoch " in line for line in said) == 3
    assert weights(stage) == weights(undisturbed)


@pytest.fixture
def small_files() -> Any:
    """Let the operating system refuse large files, as it does where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_of_a_model_is_known_as_one(tmp_path: Path, small_files: None) -> None:
    large = {"weight": torch.zeros(1 << 16)}
    checkpoints = Checkpoints(tmp_path)
    for write in (partial(checkpoints.keep_best, 1, large), partial(checkpoints.save, large, 0, {})):
        with pytest.raises(OSError) as full:
            write()
        cause = disk_error(full.value)
        assert cause is not None
        assert cause.errno == errno.EFBIG
        assert "run the same command again" in disk_remedy(cause, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_in_words_is_one_too_and_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError) as full, writing(tmp_path / "model.safetensors"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    cause = disk_error(full.value)
    assert cause is not None
    assert (cause.errno, cause.filename) == (errno.ENOSPC, str(tmp_path / "model.safetensors"))
    with pytest.raises(RuntimeError, match="another"), writing(tmp_path):
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("error", "code", "how"),
    [
        (KeyboardInterrupt(), 130, "Interrupted"),
        (Stopped(signal.SIGINT), 130, "Interrupted"),
        (Stopped(signal.SIGTERM), 143, "Stopped by SIGTERM"),
    ],
)
def test_a_command_that_a_signal_ends_says_one_sentence(
    error: KeyboardInterrupt, code: int, how: str
) -> None:
    def stop() -> None:
        raise error

    group = type(main)(commands={"stop": click.Command("stop", callback=stop)})
    done = CliRunner().invoke(group, ["stop"])
    assert done.exit_code == code
    assert done.output.strip() == f"{how}. Finished work is kept: run the same command again to resume."
