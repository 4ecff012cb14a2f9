"""Ctrl-C and SIGTERM at random moments: one sentence, promptly, and the same result once it is run again."""

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from hmnet_pipe.manifests.fingerprint import digest_table
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, SAMPLES
from hmnet_pipe.manifests.tables import read_table

from ... import running
from ...running import Campaign, Command, Demos

pytestmark = pytest.mark.slow

SENTENCES = {
    signal.SIGINT: "Interrupted. Finished work is kept: run the same command again to resume.",
    signal.SIGTERM: "Stopped by SIGTERM. Finished work is kept: run the same command again to resume.",
}
# A whole demonstration takes minutes, and what it does the other commands do, too.
UNFINISHED = "demo"
COMMANDS = ("prepare", "detect", "extract", "train", "finetune", UNFINISHED)
TRAINING = {"epochs": 12, "first_evaluation": 1, "batch_size": 8, "max_length": 32}


@pytest.fixture(scope="module")
def whole(demos: Demos, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run in which no stage was disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    running.begin(
        folder,
        demos.corpus(),
        detect={"chunk": 4},
        extract={"shard_rows": 4},
        train={**TRAINING, "encoder": str(tiny_encoder)},
        finetune={"epochs": 2},
    )
    for stage in ("prepare", "detect", "extract", "train", "finetune"):
        running.bring_up_to_date(folder, stage)
    return folder


def made_by(command: str, folder: Path) -> object:
    """Return digests of what a command made, from the files."""
    run = RunFolder(folder)
    if command == "prepare":
        tables = ((run.samples, SAMPLES), (run.images, IMAGES))
        return [digest_table(read_table(path, schema)) for path, schema in tables]
    if command in ("detect", "extract"):
        return running.made_by(command, folder)
    model = running.model_of(folder) if command == "train" else running.finetuned_of(folder)
    return (model / "model.safetensors").read_bytes(), json.loads((model / "metrics.json").read_text())


def before(command: str, whole: Path, folder: Path) -> Path:
    """Return a copy of the whole run in which this stage and those after it were never run."""
    shutil.copytree(whole, folder)
    run = RunFolder(folder)
    for stage in COMMANDS[COMMANDS.index(command) : -1]:
        for record in (folder / "stages").glob(f"{stage}*"):
            record.unlink()
    made = {
        "prepare": [run.samples, run.images, run.problems],
        "detect": [run.detections, run.crops],
        "extract": [folder / "features"],
        "train": [running.model_of(folder)],
        "finetune": [running.finetuned_of(folder)],
    }
    for path in made.get(command, [folder]):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def started(command: str, folder: Path) -> Command:
    # A shell lets what it runs in the background ignore Ctrl-C.
    answering = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return Command(command, folder, **answering)


def answers(process: int) -> bool:
    """Return whether the process has a handler for SIGTERM: before, Python itself is starting."""
    lines = running.text_of(Path(f"/proc/{process}/status")).splitlines()
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt")), "0")
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def interrupt(command: str, folder: Path, number: signal.Signals, delay: float) -> bool:
    """Send the signal to the command and all that it started, as a terminal does; False if it had ended."""
    with started(command, folder) as process:
        pid = process.process.pid
        running.wait_until(lambda: answers(pid) or process.over)
        time.sleep(delay)
        if process.over:
            code, said = process.said()
            assert code == 0, said
            return False
        sent = time.monotonic()
        os.killpg(pid, number)
        code, said = process.said(60)
        took = time.monotonic() - sent
        if SENTENCES[number] not in said and re.search(rf"^{command}\S*: .* in [\d.]+ s", said, re.MULTILINE):
            return False  # its last word was said before
        where = f"{command}, {number.name} after {delay:.3f} s: {said}"
        assert code == 128 + number, f"{code} of {where}"
        assert said.count(SENTENCES[number]) == 1, where
        assert said.rstrip().endswith(SENTENCES[number]), where
        for word in ("Traceback", "Error", "Exception", "resource_tracker", "leaked"):
            assert word not in said, where
        assert took < 5, f"{took:.1f} s for {where}"
        running.wait_until(lambda: not process.everyone(), 10)
    return True


# Those that are like another in how they end are left to `make soak`.
@pytest.mark.parametrize(
    "command",
    [pytest.param(one, marks=pytest.mark.soak if one in ("extract", "finetune") else ()) for one in COMMANDS],
)
def test_a_command_ends_with_one_sentence_whenever_a_signal_comes(
    command: str, whole: Path, tmp_path: Path, campaign: Campaign
) -> None:
    draw = random.Random(f"{command} {campaign.seed}")
    run, copies = before(command, whole, tmp_path / "run-0"), 0
    longest = 1.5 if command == "prepare" else 8.0  # what they take on a slow machine
    for _ in range(max(2, campaign.kills // 2)):
        while not interrupt(command, run, draw.choice(list(SENTENCES)), draw.uniform(0, longest)):
            assert made_by(command, run) == made_by(command, whole)
            copies, longest = copies + 1, longest * 0.7
            run = before(command, whole, tmp_path / f"run-{copies}")
    if command == UNFINISHED:
        return
    with started(command, run) as process:
        code, said = process.said()
    assert code == 0, said
    assert made_by(command, run) == made_by(command, whole)
    assert running.leftovers(run) == []
