"""How tests of faults drive a run: killable commands, stages in this process, digests of files."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import psutil
import pyarrow.parquet as pq
from filelock import FileLock
from hmnet_pipe import FeatureCache
from hmnet_pipe.manifests.files import TEMPORARY_PREFIX
from hmnet_pipe.manifests.fingerprint import digest_table
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import Report, run_stage
from hmnet_pipe.stages.base.tools import SILENT, Tools
from hmnet_pipe.stages.demo.corpus import write_demo_corpus
from hmnet_pipe.stages.finetune.settings import FinetuneSettings

# What a table of run.toml says otherwise than the preset.
Tables = Mapping[str, Any]

# What is trained where a test does not say.
HMNET = Trial("hmnet")

_MARK = "HMNET_PIPE_TEST_PROCESS"


SMALL = {"train": 40, "valid": 12, "test": 12}


def small_corpus(folder: Path, task: str = "ner", sizes: Mapping[str, int] = SMALL) -> Path:
    """Draw a corpus of the demonstration in the folder, and return the folder."""
    write_demo_corpus(folder, task, sizes=dict(sizes))
    return folder


def begin(
    folder: Path, corpus: Path, task: str = "ner", images: Path | None = None, **tables: Tables
) -> Path:
    """Write run.toml with the demonstration's settings on the corpus and each stage's changed settings."""
    config = preset("demo", task=task, text=corpus, images=images or corpus / "images", format="auto")
    for stage, values in tables.items():
        config = config.override(stage, dict(values))
    config.write(RunFolder(folder).config)
    return folder


def prepared(folder: Path, corpus: Path, *, chunk: int | None = None, shard_rows: int | None = None) -> Path:
    """Prepare a new run on the corpus, with units of `chunk` images (detect) and `shard_rows` (extract)."""
    begin(folder, corpus, detect={"chunk": chunk}, extract={"shard_rows": shard_rows})
    bring_up_to_date(folder, "prepare")
    return folder


def stage_of(folder: Path, name: str, trial: Trial = HMNET) -> Any:
    """Return a stage of the run as its run.toml says; `trial` is for trainings."""
    run = RunFolder(folder)
    config = RunConfig.read(run.config)
    if name == "finetune":
        trial = replace(trial, start=config.of(FinetuneSettings).token())
    return config.stage(name, run, trial if name in ("train", "finetune") else None)


def bring_up_to_date(
    folder: Path, name: str, tools: Tools = SILENT, *, trial: Trial = HMNET, **options: Any
) -> Report:
    """Run a stage in this process, without a cluster, by the function that the command wraps.

    Its `options` are kept in run.toml, as the command's are.
    """
    configure(folder, name, **options)
    return run_stage(stage_of(folder, name, trial), tools)


def configure(folder: Path, name: str, **options: Any) -> None:
    """Write options of a stage into run.toml, as its command does."""
    path = RunFolder(folder).config
    RunConfig.read(path).override(name, options).write(path)


def said_by(folder: Path, name: str, *, trial: Trial = HMNET, **options: Any) -> list[str]:
    """Run a stage as `bring_up_to_date` does, and return the lines that it said."""
    said: list[str] = []
    bring_up_to_date(folder, name, Tools(say=said.append), trial=trial, **options)
    return said


def model_of(folder: Path, trial: Trial = HMNET) -> Path:
    """Return the folder of a training's model."""
    return RunFolder(folder).model(trial)


def finetuned_of(folder: Path, trial: Trial = HMNET) -> Path:
    """Return the folder of the model that finetune makes with the settings of the run."""
    place: Path = stage_of(folder, "finetune", trial).place
    return place


@dataclass(frozen=True)
class Campaign:
    """How often a fault is repeated at random, and the seed of its moments and places."""

    kills: int
    flips: int
    seed: int


@dataclass(frozen=True)
class Demos:
    """Corpora and runs of the demonstration, each made once a session by whichever process needs it first.

    They are shared: a test that changes one works on a copy.
    """

    folder: Path

    def corpus(self, task: str = "ner", sizes: Mapping[str, int] = SMALL) -> Path:
        return self._once(["corpus", task, *sizes.values()], lambda folder: small_corpus(folder, task, sizes))

    def run(self, task: str = "ner", sizes: Mapping[str, int] = SMALL, **tables: Tables) -> Path:
        """Return a run with detections and features, of the demonstration's settings with changed tables."""
        corpus = self.corpus(task, sizes)

        def make(folder: Path) -> None:
            begin(folder, corpus, task, None, **tables)
            for stage in ("prepare", "detect", "extract"):
                bring_up_to_date(folder, stage)

        return self._once(["run", corpus.name, tables], make)

    def trained(self, encoder: Path, task: str = "ner") -> Path:
        """Return a run of the small corpus with hmnet, trained a little in fp32 from an encoder."""
        recipe = {"epochs": 2, "first_evaluation": 1, "precision": "fp32", "learning_rate": 1e-3}
        start = self.run(task, train=recipe)

        def make(folder: Path) -> None:
            shutil.copytree(start, folder)
            bring_up_to_date(folder, "train", encoder=str(encoder))

        return self._once(["trained", start.name], make)

    def _once(self, what: object, make: Callable[[Path], object]) -> Path:
        name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
        folder, done = self.folder / name, self.folder / f"{name}.done"
        with FileLock(self.folder / f"{name}.lock"):
            if not done.exists():
                make(folder)
                done.touch()
        return folder


def hmnet_words(*arguments: object) -> list[str]:
    """Return the words of `hmnet-pipe` with these arguments, for subprocess."""
    return [sys.executable, "-m", "hmnet_pipe", *map(str, arguments)]


def hmnet(
    *arguments: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `hmnet-pipe` to its end in a process, and return its exit code and what it printed."""
    return subprocess.run(
        hmnet_words(*arguments),
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def made_by(stage: str, folder: Path) -> dict[str, str]:
    """Return digests of what detect or extract made, from the files and not from the records."""
    run = RunFolder(folder)
    made = (
        digest_table(pq.read_table(run.detections))
        if stage == "detect"
        else FeatureCache(run.features()).digest()
    )
    return {"made": made, "outcomes": digest_table(pq.read_table(run.outcomes(stage)))}


def committed(stage: str, folder: Path) -> int:
    """Return how many units of the stage are finished on disk."""
    run = RunFolder(folder)
    return len(
        list(
            run.work("detect").glob("*/*.outcomes.parquet")
            if stage == "detect"
            else run.features().glob("shard-*.h5")
        )
    )


def text_of(path: Path) -> str:
    """Return what is in a file that may disappear at any moment."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def forget_one(stage: str, folder: Path) -> None:
    """Take a finished unit away, as if the kill had come before it."""
    run = RunFolder(folder)
    min(
        run.work("detect").glob("*/*.outcomes.parquet")
        if stage == "detect"
        else run.features().glob("shard-*.h5")
    ).unlink()


def leftovers(folder: Path) -> list[Path]:
    """Return what only a resumed stage would need."""
    return [
        path for pattern in (f"{TEMPORARY_PREFIX}*", "*.parts", "*.owner") for path in folder.rglob(pattern)
    ]


def wait_until(condition: Callable[[], Any], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


class Command:
    """Yield `hmnet-pipe` as a process group with pipes for its output, and kill the group at the end."""

    def __init__(self, *arguments: object, **options: Any) -> None:
        self.mark = f"{_MARK}={uuid.uuid4()}"
        environment = {**os.environ, **dict([self.mark.split("=")])}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(
            hmnet_words(*arguments), env=environment, start_new_session=True, **pipes, **options
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.everyone():
            process.kill()
        self.process.communicate()

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    def said(self, seconds: float = 300) -> tuple[int, str]:
        """Return the exit code and what it said on stderr, once it has ended."""
        output, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, output + errors

    def everyone(self) -> list[psutil.Process]:
        """Return every living process that it started, in whatever group: they inherit its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                name, value = self.mark.split("=")
                if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        """Return Dask's worker processes: the children that multiprocessing spawned."""
        return [
            process
            for process in self.everyone()
            if process.pid != self.process.pid and "spawn_main" in " ".join(process.cmdline())
        ]

    def kill_group(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def dask(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Yield `dask scheduler` or `dask worker` as a process group of its own."""
    words = [sys.executable, "-m", "dask", *map(str, arguments), "--no-dashboard"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options["start_new_session"] = True
    process = subprocess.Popen([*options.pop("through", []), *words], **quiet, **options)
    try:
        yield process
    finally:
        kill_all(process)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def dask_scheduler(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, str]]:
    """Yield the process, its file for workers, and its address."""
    folder.mkdir()
    file = folder / "scheduler.json"
    with dask("scheduler", "--port", 0, "--host", "127.0.0.1", "--scheduler-file", file) as process:
        wait_until(lambda: file.is_file() and file.read_text().endswith("}"))
        yield process, file, json.loads(file.read_text())["address"]


@dataclass(frozen=True)
class Kill:
    """When a stage was killed, and how many of its units were finished then."""

    moment: str
    finished: int


def kill_again_and_again(
    stage: str, start: Path, whole: dict[str, str], units: int, work: Path, campaign: Campaign
) -> list[Kill]:
    """Kill the group of a stage by SIGKILL again and again, and resume after each kill.

    start: a run whose inputs are ready, never changed. Whenever a resumed stage gets to its end, or is
    brought there since little is left to do, it must have made `whole`, and a fresh copy of `start` takes its
    place. The moments are random and seeded: after the lock is taken (imports, planning, the start of
    workers), after one more unit is finished (the work), and after the last one is (the commit of tables,
    index and record).
    """
    draw = random.Random(f"{stage} {campaign.seed}")
    fifth = max(1, campaign.kills // 5)
    moments = ["start"] * fifth + ["commit"] * fifth + ["work"] * (campaign.kills - 2 * fifth)
    draw.shuffle(moments)
    copies = 0
    run = Path(shutil.copytree(start, work / "run-0"))

    def check_and_begin_afresh() -> None:
        nonlocal run, copies
        made, left = made_by(stage, run), leftovers(run)
        assert made == whole, f"resumed: {made}, undisturbed: {whole}"
        assert left == [], left
        copies += 1
        run = Path(shutil.copytree(start, work / f"run-{copies}"))

    def kill_once(moment: str, delay: float) -> bool:
        """Kill the stage `delay` seconds after the moment; False if it had ended by then."""
        owner, before = RunFolder(run).record(stage).with_suffix(".owner"), committed(stage, run)
        with Command(stage, run, "--workers", 1) as command:

            def reached() -> bool:
                if moment == "start":
                    return f"process {command.process.pid} " in text_of(owner)
                finished = committed(stage, run)
                return finished > before if moment == "work" else finished == units

            wait_until(lambda: reached() or command.over)
            if not command.over:
                time.sleep(delay)
            if not command.over:
                command.kill_group()
                wait_until(lambda: not command.everyone(), 30)  # nothing that it started outlives it for long
        return command.process.returncode == -signal.SIGKILL

    found: list[Kill] = []
    for moment in moments:
        delay = draw.uniform(0, {"start": 2.5, "work": 0.3, "commit": 0.25}[moment])
        while True:
            if moment == "commit" and committed(stage, run) == units:
                forget_one(stage, run)
            if moment != "commit" and committed(stage, run) > units * 2 // 3:
                bring_up_to_date(run, stage)
                check_and_begin_afresh()
            if kill_once(moment, delay):
                break
            check_and_begin_afresh()
            delay /= 2  # it had ended: a machine as fast as this one needs an earlier kill
        found.append(Kill(moment, committed(stage, run)))
    with Command(stage, run, "--workers", 1) as command:
        code, said = command.said()
        assert code == 0, said
    check_and_begin_afresh()
    return found


def survive_kills(
    stage: str,
    demos: Demos,
    work: Path,
    small: Mapping[str, int],
    usual: Mapping[str, int],
    campaign: Campaign,
) -> None:
    """Kill a stage in units of `small` size (chunk or shard_rows), and compare with an undisturbed run."""
    corpus = demos.corpus()
    start, undisturbed = prepared(work / "start", corpus, **small), prepared(work / "usual", corpus, **usual)
    if stage == "extract":
        for run in (start, undisturbed):
            bring_up_to_date(run, "detect")
    images = bring_up_to_date(undisturbed, stage).done
    (size,) = small.values()
    units = -(-images // size)
    found = kill_again_and_again(stage, start, made_by(stage, undisturbed), units, work, campaign)
    assert len(found) == campaign.kills
    # A kill at the commit came after the last unit; what it finds may be less, since the commit clears units
    # away.
    at_work = [kill.finished for kill in found if kill.moment == "work"]
    assert min(at_work) > 0
    assert min(at_work) < units
