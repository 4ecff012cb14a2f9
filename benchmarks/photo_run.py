"""A run over photographs and a warm cluster to work on it, for the benchmarks of detect and extract."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS, IMAGES
from hmnet_pipe.manifests.tables import read_table, table_of, write_table
from hmnet_pipe.pipeline.cluster.dask import Cluster
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT, Tools

__all__ = ["Call", "make_run", "on_every_worker", "timed_stage", "warm_cluster", "with_boxes"]


def make_run(folder: Path, photos: Path, count: int) -> RunFolder:
    """Return a prepared run of `count` images: the photographs, repeated as files of the same picture.

    Each file has other bytes.
    """
    images, texts = folder / "images", folder / "texts"
    images.mkdir(parents=True)
    texts.mkdir()
    sources = sorted(photos.glob("*.jpg"))
    if not sources:
        raise SystemExit(f"no *.jpg in {photos}; name a folder of photographs with --photos")
    lines = []
    for number in range(count):
        # Whatever follows a JPEG's end of image belongs to no picture, but changes the sha256.
        (images / f"{number}.jpg").write_bytes(
            sources[number % len(sources)].read_bytes() + str(number).encode()
        )
        lines.append(json.dumps({"tokens": ["a", "photo"], "tags": ["O", "O"], "image": f"{number}.jpg"}))
    (texts / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    run = RunFolder(folder / "run")
    config = preset("custom", task="ner", text=texts, images=images, format="auto")
    config.write(run.config)
    run_stage(config.stage("prepare", run), SILENT)
    return run


def with_boxes(run: RunFolder, objects: int = 3) -> None:
    """Write detections for every image without a detector: `objects` boxes of random place and size."""
    rng = np.random.default_rng(0)
    rows = []
    for image in read_table(run.images, IMAGES).to_pylist():
        for rank in range(objects):
            (x0, x1), (y0, y1) = (
                np.sort(rng.uniform(0, side, 2)) for side in (image["width"], image["height"])
            )
            box = {"x0": x0, "y0": y0, "x1": x1, "y1": y1}
            rows.append(
                {"image_key": image["key"], "rank": rank, **box, "label": "thing", "score": 1 - rank / 10}
            )
    write_table(run.detections, table_of(DETECTIONS, rows))


@dataclass(frozen=True)
class Call:
    """A unit of work for anything to be measured on the cluster's workers."""

    seconds: float
    details: Any = None

    def __len__(self) -> int:
        return 1

    def halves(self) -> "tuple[Call, Call]":
        raise AssertionError("one call is one unit")


@contextmanager
def warm_cluster(workers: int) -> Iterator[tuple[Cluster, float]]:
    """Yield the pipeline's own cluster with its workers started, and the seconds that this took."""
    started = time.perf_counter()
    with Cluster(None, workers, lambda line: None) as cluster:
        list(cluster.map(_import_all, [Call(0.5)] * workers))
        yield cluster, time.perf_counter() - started


def _import_all(call: Call) -> None:
    import hmnet_pipe.stages.detect.work
    import hmnet_pipe.stages.extract.work  # noqa: F401

    time.sleep(call.seconds)  # so that every worker gets one


def on_every_worker(
    cluster: Cluster, workers: int, function: Any, seconds: float, details: Any = None
) -> float:
    """Return the sum of what `function` returns (a rate), called at the same time on every worker."""
    results: list[Any] = [rate for _, rate in cluster.map(function, [Call(seconds, details)] * workers)]
    return float(sum(results))


def timed_stage(cluster: Cluster, run: RunFolder, name: str, options: dict[str, Any]) -> float:
    """Return the seconds of a whole stage from image files to committed results, done from scratch."""
    config = RunConfig.read(run.config).override(name, options)
    run.record(name).unlink(missing_ok=True)
    for path in run.features().glob("*"):
        path.unlink()
    started = time.perf_counter()
    report = run_stage(config.stage(name, run), Tools(map=cluster.map))
    seconds = time.perf_counter() - started
    if report.failed:
        raise SystemExit(f"{name}: {report.failed} images failed; see {run.outcomes(name)}")
    return seconds
