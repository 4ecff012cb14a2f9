"""What Dask costs a unit of work, and what that says of many machines: 8 workers and a scheduler on this one.

    python benchmarks/scheduler.py [--images 100000] [--units 3000] [--workers 8]
    python benchmarks/scheduler.py --quick

The scheduler and each worker are processes of their own, as on a cluster. Units that do nothing show what a
unit costs, in seconds of the processor, those two of which there is only one: the scheduler, and the command,
which submits units and reads their records. Then `extract` runs over drawn pictures of 64 x 64 pixels with
the demonstration's small backbone, the least work that an image can be, to show their share in a whole run.

From these follows for how many workers one scheduler is enough: where N workers need s seconds for an image
and a unit has n images, N / (n s) units end in a second, and each costs the scheduler and the command c. They
are the limit at N c / (n s) = 1. This is a computation from measured costs, not a run on N machines.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from distributed import Client
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.pipeline.cluster.dask import Cluster
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT, Tools
from hmnet_pipe.stages.extract.settings import ExtractSettings
from photo_run import with_boxes
from PIL import Image
from report import Result, Row, report

# Seconds of one worker for an image: extract_speed.py has ResNet-50 at 4 views on one core, gpu.py on a GPU.
SECONDS_AN_IMAGE = {"a core": 0.25, "a GPU": 1 / 300}
MANY_WORKERS, MANY_IMAGES = 100, 100_000_000


@dataclass(frozen=True)
class Nothing:
    """A unit that does nothing."""

    number: int

    def __len__(self) -> int:
        return 1

    def halves(self) -> "tuple[Nothing, Nothing]":
        raise AssertionError("one is not halved")


def nothing(unit: Nothing) -> int:
    return unit.number


@contextmanager
def dask_processes(workers: int) -> Iterator[tuple[str, psutil.Process]]:
    """Start a scheduler and workers, and return the scheduler's address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    own = ["distributed.cli.dask_scheduler", "--host", address]
    worker = ["distributed.cli.dask_worker", address, "--nthreads", "1"]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in (own, *[worker] * workers):
            whole = [sys.executable, "-m", *command, "--no-dashboard"]
            started.append(subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        yield address, psutil.Process(started[0].pid)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


def used(process: psutil.Process) -> float:
    """Return the seconds of the processor that a process has used, without its children."""
    times = process.cpu_times()
    return float(times.user + times.system)


@dataclass(frozen=True)
class Cost:
    """Seconds of the processor of the scheduler and of the command, and by the clock."""

    scheduler: float
    command: float
    wall: float


@contextmanager
def measured(scheduler: psutil.Process, costs: list[Cost]) -> Iterator[None]:
    own = psutil.Process()
    before, started = (used(scheduler), used(own)), time.perf_counter()
    yield
    costs.append(Cost(used(scheduler) - before[0], used(own) - before[1], time.perf_counter() - started))


def tiny_run(folder: Path, count: int) -> RunFolder:
    """Return a prepared run of `count` drawn pictures, each of its own, with three boxes each."""
    images, texts = folder / "images", folder / "texts"
    images.mkdir(parents=True)
    texts.mkdir()
    rng = np.random.default_rng(0)
    with (texts / "train.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(count):
            small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            small.resize((64, 64), Image.Resampling.BICUBIC).save(images / f"{number}.jpg", quality=80)
            row = {"tokens": ["a", "photo"], "tags": ["O", "O"], "image": f"{number}.jpg"}
            lines.write(json.dumps(row) + "\n")
    run = RunFolder(folder / "run")
    config = preset("demo", task="ner", text=texts, images=images, format="jsonl")
    config.write(run.config)
    run_stage(config.stage("prepare", run), SILENT)
    with_boxes(run)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--units", type=int, default=3000, help="units that do nothing")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="small sizes, only to see whether it runs")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    if options.quick:
        options.images, options.units, options.workers = 64, 50, 2

    with tempfile.TemporaryDirectory() as place:
        run = tiny_run(Path(place), options.images)
        config = RunConfig.read(run.config)
        stage = config.stage("extract", run)
        size = config.of(ExtractSettings).shard_rows
        costs: list[Cost] = []
        with dask_processes(options.workers) as (address, scheduler):
            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(options.workers)
            with Cluster(address, None, SILENT.say) as cluster:
                list(cluster.map(nothing, [Nothing(number) for number in range(options.workers)]))  # connects
                with measured(scheduler, costs):
                    list(cluster.map(nothing, [Nothing(number) for number in range(options.units)]))
                with measured(scheduler, costs):
                    found = run_stage(stage, Tools(map=cluster.map))
    empty, whole = costs
    unit = (empty.scheduler + empty.command) / options.units
    units = -(-options.images // size)
    share = units * unit / whole.wall
    results = [
        Result("a unit that does nothing, ms of the scheduler", 1e3 * empty.scheduler / options.units),
        Result("a unit that does nothing, ms of the command", 1e3 * empty.command / options.units),
        Result(
            f"extract of {options.images:,} tiny images on {options.workers} workers, images/s",
            options.images / whole.wall,
        ),
        Result(
            f"its {units} units of {size}, share of the scheduler and the command in its time, %", 100 * share
        ),
    ]
    rows = []
    for what, seconds in SECONDS_AN_IMAGE.items():
        busy = MANY_WORKERS * unit / (size * seconds)
        least = MANY_WORKERS * unit / seconds
        days = MANY_IMAGES * seconds / MANY_WORKERS / 86_400
        results += [
            Result(f"{MANY_WORKERS} workers, {what} each: share that one scheduler is busy, %", 100 * busy),
            Result(f"{MANY_WORKERS} workers, {what} each: images a unit below which it is the limit", least),
            Result(f"{MANY_WORKERS} workers, {what} each: days for {MANY_IMAGES:,} images", days),
        ]
        rows.append(
            Row(
                f"extract on {MANY_WORKERS} workers, {what} each, units of {size} images (computed)",
                "workers that wait for no scheduler",
                "one scheduler and one command",
                f"{MANY_WORKERS / seconds:,.0f} images/s",
                1 / max(1.0, busy),
            )
        )
    facts = {"units": options.units, "images": options.images, "workers": options.workers, "done": found.done}
    report("scheduler", results, facts, options.output, rows)


if __name__ == "__main__":
    main()
