"""Training that reads a feature cache larger than memory, beside the same with ample memory.

    python benchmarks/cache_larger.py [--images 16000] [--megabytes 1000] [--folder FOLDER]

A run is made of as many samples as images, whose features are ResNet-50's pyramids with made-up values of 123
KB each, and hmnet is trained on it with an encoder of one layer. The first training has ample memory, and the
page cache holds all features. The second is in a control group of --megabytes, which counts what a process
takes and the pages of files that it reads. Every epoch reads every feature once, in random order. The rate is
that of the second half of a training; the process's own memory, without pages of files, is taken after an
eighth and at the end. It needs a Linux whose control groups may be written: the superuser's, or for others
one under `systemd-run --user --scope -p Delegate=yes`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cache_read import ROW_BYTES, forget, key_of, write_cache

EPOCHS, BATCH = 2, 16


class Clock:
    """A progress bar that notes when samples were done, and how much memory the process itself takes."""

    def __init__(self) -> None:
        self.done, self.notes = 0, [(time.perf_counter(), 0, own_bytes())]

    def update(self, n: int = 1) -> None:
        self.done += n
        self.notes.append((time.perf_counter(), self.done, own_bytes()))

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None: ...
    def close(self) -> None: ...


def own_bytes() -> int:
    """Return the bytes of memory of this process that are no pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def make_run(folder: Path, images: int, encoder: Path) -> None:
    """Write a run with a sample and features for each image."""
    from hmnet_pipe.manifests.run import RunFolder
    from hmnet_pipe.manifests.schemas import SAMPLES
    from hmnet_pipe.manifests.tables import table_of, write_table
    from hmnet_pipe.pipeline.run.presets import preset

    run = RunFolder(folder)
    config = preset("custom", task="ner", text=folder / "text", images=None, format="jsonl")
    settings = {"encoder": str(encoder), "epochs": EPOCHS, "first_evaluation": EPOCHS, "batch_size": BATCH}
    run.path.mkdir(parents=True)
    config.override("train", {**settings, "device": "cpu"}).write(run.config)
    words, tags = ["Rain", "in", "Paris", "again"], ["O", "O", "B-LOC", "O"]
    rows = [
        {
            "id": str(row),
            "split": "train",
            "task": "ner",
            "tokens": words,
            "tags": tags,
            "image_key": key_of(row),
        }
        for row in range(images)
    ]
    write_table(run.samples, table_of(SAMPLES, rows))
    write_cache(run.features("pyramid"), images)


def train(folder: Path, system: str) -> dict[str, float]:
    """Train; return the samples per second of the second half, and the bytes taken early and at the end."""
    from hmnet_pipe.manifests.run import RunFolder
    from hmnet_pipe.manifests.trial import Trial
    from hmnet_pipe.pipeline.run.config import RunConfig
    from hmnet_pipe.pipeline.run.runner import run_stage
    from hmnet_pipe.stages.base.tools import Tools

    clocks: list[Clock] = []

    def bar(total: int, description: str, unit: str) -> Any:
        clocks.append(Clock())
        return clocks[-1]

    run = RunFolder(folder)
    stage = RunConfig.read(run.config).stage("train", run, Trial("hmnet", int(system)))
    run_stage(stage, Tools(bar=bar, checkpoint_seconds=3600))
    notes = max((clock.notes for clock in clocks), key=len)
    half, eighth = notes[len(notes) // 2], notes[len(notes) // 8]
    rate = (notes[-1][1] - half[1]) / (notes[-1][0] - half[0])
    return {"rate": rate, "early": eighth[2], "late": notes[-1][2]}


@contextmanager
def limited(megabytes: int) -> Iterator[Path]:
    """Yield the file of a control group of limited memory, to which a process adds itself."""
    root = Path("/sys/fs/cgroup")
    first = (root / "memory").is_dir()
    group = (root / "memory" if first else root) / f"hmnet-pipe-{os.getpid()}"
    try:
        group.mkdir()
        limit = "memory.limit_in_bytes" if first else "memory.max"
        (group / limit).write_text(str(megabytes * 2**20))
    except OSError as error:
        raise SystemExit(f"{group} cannot be made ({error.strerror}); run it as the superuser") from error
    try:
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=16_000)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="a file system with room for the features; not tmpfs")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--train", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        folder, seed, group = options.train
        if group:
            Path(group).write_text(str(os.getpid()))
        return print(json.dumps(train(Path(folder), seed)))
    from encoders import small_encoder
    from report import Result, Row, report

    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        run = Path(temporary) / "run"
        small_encoder(Path(temporary) / "encoder")
        make_run(run, options.images, Path(temporary) / "encoder")

        def measured(seed: str, group: str) -> dict[str, Any]:
            command = [sys.executable, __file__, "--train", str(run), seed, group]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            print("limited" if group else "ample", found, file=sys.stderr, flush=True)
            return found

        facts["ample"] = measured("1", "")
        forget(run)
        with limited(options.megabytes) as group:
            facts["limited"] = measured("2", str(group))
    size, ours = options.images * ROW_BYTES / 1e9, facts["limited"]
    ratio = ours["rate"] / facts["ample"]["rate"]
    what = f"train hmnet from {size:.1f} GB of features with {options.megabytes / 1000:.1f} GB of memory"
    results = [
        Result(f"{what}: samples/s", ours["rate"]),
        Result("rate over that with ample memory", ratio, 0.9),
        Result("MB that the process takes after an eighth", ours["early"] / 1e6),
        Result("times as much at the end", ours["late"] / ours["early"], 1.05, at_most=True),
    ]
    shown = f"{ours['rate']:.0f} samples/s"
    rows = [Row(what, "the same with ample memory, all features in it", "reads of the disk", shown, ratio)]
    report("cache_larger", results, facts, options.output, rows)


if __name__ == "__main__":
    main()
