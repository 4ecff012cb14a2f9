"""What a run of a million images costs before any work on an image: status, and planning detect and extract.

    python benchmarks/planning.py [--images 1000000]

Two runs are generated, the first of half the images. Each has its tables as real runs have them: a sample of
15 words and 3 boxes for every image, empty image files (whose times status checks) and links for crops. The
shards are real and as many as there would be, but their rows hold 4 numbers. `status` is the command on the
finished run. Planning is what detect, on a run that is only prepared, and extract, on one with detections, do
from the start of the process until the first unit of work would go to the cluster. Each is a process of its
own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hmnet_pipe.cache.reader import IndexRow, write_index
from hmnet_pipe.cache.shards import write_shard
from hmnet_pipe.cache.spec import FeatureSpec
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS, IMAGES, OUTCOMES, PROBLEMS, SAMPLES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.stage import Stage
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.extract.stage import Extract
from report import Result, report

WORDS, BOXES, SHARD_ROWS = 15, 3, 256
# What pipeline.cluster.memory sets for the commands themselves.
_AS_THE_COMMAND = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "ARROW_DEFAULT_MEMORY_POOL": "system"}
_LINKS = 50_000  # to one file; ext4 allows 65,000
# A small process stands in between: Linux counts into a process's largest resident set that of the one that
# started it.
_MEASURE = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
seconds = time.perf_counter() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": seconds, "processor": used.ru_utime + used.ru_stime, "bytes": peak}))
"""


def constant(value: Any, kind: pa.DataType, rows: int) -> pa.Array:
    return pa.array([value], kind).take(pa.array(np.zeros(rows, np.int32)))


def table(schema: pa.Schema, rows: int, **columns: Any) -> pa.Table:
    """Return a table of `rows` rows; a column that is not given is null, and a single value is repeated."""
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if values is None:
            values = pa.nulls(rows, field.type)
        elif isinstance(values, (str, int, float)):
            values = constant(values, field.type, rows)
        arrays.append(
            pa.array(values, field.type)
            if isinstance(values, (list, np.ndarray))
            else values.cast(field.type)
        )
    return pa.table(arrays, schema=schema)


def build(folder: Path, images: int) -> dict[str, RunFolder]:
    """Return runs in `folder` by how far they are: "prepared", "detected" and "extracted"."""
    rng = np.random.default_rng(images)
    keys = sorted(rng.bytes(32).hex() for _ in range(images))
    files, text = folder / "images", folder / "text"
    for path in (files, text):
        path.mkdir(parents=True)
    (text / "train.jsonl").write_text("")
    paths = [f"{files}/{number}.jpg" for number in range(images)]
    for name in paths:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    config = preset("custom", task="ner", text=text, images=files, format="jsonl")
    config = config.override("detect", {"detector": "demo_fasterrcnn"}).override(
        "extract", {"backbone": "demo_resnet"}
    )
    runs = {name: RunFolder(folder / name) for name in ("prepared", "detected", "extracted")}

    run = runs["extracted"]
    config.write(run.config)
    words = pa.array([f"word{number}" for number in range(20_000)]).take(
        pa.array(rng.integers(0, 20_000, images * WORDS))
    )
    offsets = pa.array(np.arange(0, images * WORDS + 1, WORDS, dtype=np.int32))
    samples: dict[str, Any] = {
        "id": pa.array([f"train-{number}" for number in range(images)]),
        "split": "train",
        "task": "ner",
        "tokens": pa.ListArray.from_arrays(offsets, words),
        "tags": pa.ListArray.from_arrays(offsets, constant("O", pa.string(), images * WORDS)),
        "image": pa.array([f"{number}.jpg" for number in range(images)]),
        "image_key": pa.array(keys),
    }
    write_table(run.samples, table(SAMPLES, images, **samples))
    write_table(run.images, table(IMAGES, images, key=keys, path=paths, width=640, height=480, status="ok"))
    write_table(run.problems, table_of(PROBLEMS, []))
    record(config, run, "prepare", {"text.train": "0" * 64, "images": "0" * 64})

    corners = rng.uniform(0, 240, (4, images * BOXES)).astype(np.float32) + np.array(
        [[0], [0], [240], [240]], np.float32
    )
    boxes = {
        "image_key": pa.array(keys).take(pa.array(np.repeat(np.arange(images), BOXES))),
        "rank": np.tile(np.arange(BOXES, dtype=np.int8), images),
        **dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True)),
        "label": "person",
        "score": rng.uniform(0.5, 1, images * BOXES).astype(np.float32),
    }
    write_table(run.detections, table(DETECTIONS, images * BOXES, **boxes))
    for stage in ("detect", "extract"):
        write_table(run.outcomes(stage), table(OUTCOMES, images, image_key=keys, status="done"))
    run.crops.mkdir()
    for number in range(images * BOXES):
        source = run.crops / f"{keys[number // _LINKS * _LINKS // BOXES]}-first.jpg"
        if number % _LINKS == 0:
            source.write_bytes(bytes(4000))
        os.link(source, run.crops / f"{keys[number // BOXES]}-{number % BOXES}.jpg")
    record(config, run, "detect")

    extract = config.stage("extract", run)
    assert isinstance(extract, Extract)
    spec = FeatureSpec(
        "demo_resnet", extract.weights()["backbone"], extract.spec().transform, (4,), 1, 1, "float16"
    )
    index = []
    for start in range(0, images, SHARD_ROWS):
        part = keys[start : start + SHARD_ROWS]
        name = f"shard-{start // SHARD_ROWS:05d}.h5"
        values, mask = (
            np.full((len(part), *spec.row_shape), start % 2048, np.float16),
            np.ones((len(part), 1), np.bool_),
        )
        checksums = write_shard(
            run.features() / name, unit="u", spec=spec, keys=part, view_mask=mask, pyramid=values
        )
        index += [IndexRow(key, name, row, checksums[row], "0" * 64) for row, key in enumerate(part)]
    write_index(run.features(), spec, index)
    record(config, run, "extract")

    for name, tables in {
        "prepared": (),
        "detected": (run.detections, run.outcomes("detect"), run.record("detect")),
    }.items():
        for path in (run.config, run.samples, run.images, run.problems, run.record("prepare"), *tables):
            link = runs[name].path / path.relative_to(run.path)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
    return runs


def record(config: RunConfig, run: RunFolder, name: str, inputs: dict[str, str] | None = None) -> None:
    """Write the record of a stage as if it had just finished.

    inputs: given where the real ones are made up.
    """
    stage = config.stage(name, run)
    made = (
        StageRecord(name, stage.schema_version, stage.parameters(), inputs, {}, {})
        if inputs is not None
        else stage.causes()
    )
    replace(made, outputs=stage.outputs(), facts={"settings": stage.given()}).write(run.record(name))


def plan(stage: Stage) -> None:
    """Run a stage until its first unit of work, and end the process there."""

    def first_unit(function: Callable[[Any], Any], units: Any) -> Any:
        next(iter(units))
        os._exit(0)

    run_stage(stage, Tools(map=first_unit))
    raise SystemExit(f"{stage.name} had nothing to do")


def measure(command: list[Any]) -> dict[str, float]:
    """Return wall seconds, seconds of processor time, and the largest resident set of a process, in bytes."""
    words = [sys.executable, "-c", _MEASURE, *map(str, command)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, **_AS_THE_COMMAND}
    )
    if done.returncode:
        raise SystemExit(f"{command} failed: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure_all(runs: dict[str, RunFolder], repeats: int) -> dict[str, dict[str, float]]:
    """Return the quickest of several measurements of each command, and its largest memory."""
    commands = {
        "status": [sys.executable, "-m", "hmnet_pipe", "status", runs["extracted"].path],
        "planning detect": [sys.executable, __file__, "--plan", "detect", runs["prepared"].path],
        "planning extract": [sys.executable, __file__, "--plan", "extract", runs["detected"].path],
    }
    found = {}
    for name, command in commands.items():
        results = [measure(command) for _ in range(repeats)]
        found[name] = {
            **min(results, key=lambda one: one["seconds"]),
            "bytes": max(one["bytes"] for one in results),
        }
        print(name, found[name], file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--plan", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        name, folder = options.plan
        run = RunFolder(Path(folder))
        plan(RunConfig.read(run.config).stage(name, run))
    found: dict[int, dict[str, dict[str, float]]] = {}
    for images in (options.images // 2, options.images):
        with tempfile.TemporaryDirectory() as temporary:
            runs = build(Path(temporary), images)
            print(f"made a run of {images} images", file=sys.stderr)
            found[images] = measure_all(runs, options.repeats)
    half, whole = found.values()
    results = []
    for name in whole:
        results += [
            Result(f"{name}, {options.images:,} images: s", whole[name]["seconds"], 20, at_most=True),
            Result(
                f"{name}: s of processor time, which a busy machine lengthens less", whole[name]["processor"]
            ),
            Result(f"{name}: GB at the peak", whole[name]["bytes"] / 1e9, 1, at_most=True),
            Result(
                f"{name}: times as long as for half of them",
                whole[name]["seconds"] / half[name]["seconds"],
                2.2,
                at_most=True,
            ),
        ]
    report("planning", results, {"found": found, "repeats": options.repeats}, options.output)


if __name__ == "__main__":
    main()
