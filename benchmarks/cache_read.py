"""How fast the feature cache returns random batches, compared with a plain memory map of the same bytes.

    python benchmarks/cache_read.py [--images 50000] [--folder FOLDER]

The data are ResNet-50's features (4 views, 3840 channels, 2 x 2, float16) with made-up values, once in shards
of 256 images and once as one file. 50,000 images take 12.3 GB of disk, and as much memory if both are to be
warm. A batch is 8 images, gathered by their keys or copied by their rows from a numpy.memmap. Cold means that
this machine's page cache was asked to forget the files; the disk may still have them in its own. The limit of
a loop over rows in Python is their copying alone: of the memmap's rows, and of the cache's, whose places in
memory were found beforehand. How long a copy takes may depend on where its target begins behind its source
within their pages of memory, which is measured in memory alone.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from hmnet_pipe.cache.reader import FeatureCache, IndexRow, write_index
from hmnet_pipe.cache.shards import rewrite_shard, write_shard
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD, FeatureSpec, Transform
from report import Result, Row, report

TRANSFORM = Transform(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
SPEC = FeatureSpec("resnet50", "0" * 64, TRANSFORM, (256, 512, 1024, 2048), 2, 4, "float16")
ROW_BYTES = 2 * int(np.prod(SPEC.row_shape))
SHARD_ROWS, BATCH, BATCHES = 256, 8, 200
ARCHIVED_SHARDS = 4

Array = npt.NDArray[Any]


def key_of(row: int) -> str:
    return f"{row:064x}"


def blocks(images: int) -> Iterator[tuple[int, Array]]:
    """Yield (first row, values) of each shard.

    The values are as behind a ReLU, rounded to bfloat16 as the network gives them. Each shard's values are
    the first shard's, rotated, since drawing billions of numbers would take long.
    """
    values = np.maximum(np.random.default_rng(0).normal(size=(SHARD_ROWS, *SPEC.row_shape)), 0).astype(
        np.float32
    )
    block = (values.view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float16)
    for start in range(0, images, SHARD_ROWS):
        yield start, np.roll(block, start // SHARD_ROWS, axis=2)[: images - start]


def write_cache(
    folder: Path, images: int, also: Callable[[Array], object] = lambda block: None
) -> FeatureCache:
    """Write a cache and return it. also: given the values of each shard."""
    index = []
    for start, block in blocks(images):
        name = f"shard-{start // SHARD_ROWS:05d}.h5"
        keys = [key_of(start + row) for row in range(len(block))]
        mask = np.ones(block.shape[:2], np.bool_)
        checksums = write_shard(folder / name, unit="u", spec=SPEC, keys=keys, view_mask=mask, pyramid=block)
        index += [IndexRow(key, name, row, checksums[row], "") for row, key in enumerate(keys)]
        also(block)
    write_index(folder, SPEC, index)
    return FeatureCache(folder)


def build(folder: Path, images: int) -> tuple[FeatureCache, Array]:
    """Return the cache, and the map of the one file."""
    with (folder / "pyramids").open("wb") as file:
        cache = write_cache(folder / "features", images, lambda block: file.write(block.data))
        os.fsync(file.fileno())
    return cache, np.memmap(folder / "pyramids", np.float16, "r", shape=(images, *SPEC.row_shape))


def forget(folder: Path) -> None:
    """Empty the page cache of the files below `folder`, which no process has mapped yet."""
    if hasattr(os, "posix_fadvise"):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def compare(
    contenders: dict[str, Callable[[list[int]], Array]], images: int, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds per batch of each contender in each round.

    All read the same rows; the order of the contenders changes from round to round.
    """
    rng = np.random.default_rng(1)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        batches = rng.integers(0, images, (BATCHES, BATCH)).tolist()
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            for batch in batches:
                contenders[name](batch)
            seconds[name].append((time.perf_counter() - started) / BATCHES)
    return seconds


def archived(cache: FeatureCache, folder: Path) -> tuple[FeatureCache, float]:
    """Return the first shards of `cache` in the archive layout, and how many times smaller they are."""
    names = cache.shards()[:ARCHIVED_SHARDS]
    folder.mkdir()
    for name in names:
        shutil.copy(cache.folder / name, folder)
    before = sum((folder / name).stat().st_size for name in names)
    for name in names:
        rewrite_shard(folder / name, archived=True)
    after = sum((folder / name).stat().st_size for name in names)
    rows = [
        IndexRow(key_of(number), names[number // SHARD_ROWS], number % SHARD_ROWS, 0, "")
        for number in range(len(names) * SHARD_ROWS)
    ]
    write_index(folder, SPEC, [row for row in rows if row.image_key in cache])
    return FeatureCache(folder), before / after


def behind(distances: tuple[int, ...], rows: int = 3200) -> dict[int, float]:
    """Return how many times as long copying a row takes with its target so many bytes behind its source.

    That is within their pages of memory, and beside a target that begins half a page behind.
    """
    step = -(-ROW_BYTES // 4096) * 4096 + 4096
    memory = np.ones(2**28, np.uint8)  # more than any cache holds
    sources = (-memory.ctypes.data) % 4096 + step * np.random.default_rng(0).integers(
        0, len(memory) // step - 1, rows
    )
    target = np.ones(BATCH * step, np.uint8)
    first = (-target.ctypes.data) % 4096

    def seconds(distance: int) -> float:
        started = time.perf_counter()
        for number, source in enumerate(sources.tolist()):
            place = first + number % (BATCH - 1) * step + distance
            target[place : place + ROW_BYTES] = memory[source : source + ROW_BYTES]
        return time.perf_counter() - started

    usual = statistics.median(seconds(2048) for _ in range(5))
    return {each: statistics.median(seconds(each) for _ in range(5)) / usual for each in distances}


def ratio(seconds: dict[str, list[float]], name: str, other: str) -> float:
    """Return how many times as fast `name` is as `other`: the median of the ratios within each round."""
    return statistics.median(b / a for a, b in zip(seconds[name], seconds[other], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=15, help=f"of {BATCHES} batches each")
    parser.add_argument(
        "--folder", type=Path, help="where to make the files, and to leave them [default: a temporary folder]"
    )
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder and options.folder.parent) as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        needed = 2 * options.images * ROW_BYTES + 2 * ARCHIVED_SHARDS * SHARD_ROWS * ROW_BYTES
        if (free := shutil.disk_usage(folder).free) < needed:
            raise SystemExit(
                f"{folder} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} are needed: lower --images"
            )
        room = psutil.virtual_memory().available
        cache, memmap = build(folder, options.images)

        keys = [key_of(row) for row in range(options.images)]

        def gather(rows: list[int]) -> Array:
            return cache.gather([keys[row] for row in rows])[0]

        def copy(rows: list[int]) -> Array:
            return np.asarray(memmap[rows])

        def copy_rows(rows: list[int]) -> Array:
            batch = np.empty((len(rows), *SPEC.row_shape), np.float16)
            for place, row in enumerate(rows):
                batch[place] = memmap[row]
            return batch

        contenders: dict[str, Callable[[list[int]], Array]] = {"gather": gather, "memmap": copy}
        cold: dict[str, list[float]] = {}
        for name in contenders:
            forget(folder)
            cold |= compare({name: contenders[name]}, options.images, 1)
        print(
            "cold, ms per batch:",
            {name: f"{1e3 * values[0]:.2f}" for name, values in cold.items()},
            file=sys.stderr,
        )
        for start in range(0, options.images, BATCH):  # so that every page of both is mapped
            rows = list(range(start, min(start + BATCH, options.images)))
            if not np.array_equal(gather(rows), copy(rows)):
                raise SystemExit(f"rows {rows} differ")
        # What was gathered lies in the maps of the shards, which are open by now.
        found = [cache._shards[name][0][row] for name, row in map(cache._places.__getitem__, keys)]

        def copy_found(rows: list[int]) -> Array:
            batch = np.empty((len(rows), *SPEC.row_shape), np.float16)
            raw = batch.reshape(len(rows), -1).view(np.uint8)
            for place, row in enumerate(rows):
                raw[place] = found[row]
            return batch

        loops = {"rows": copy_rows, "found": copy_found}
        warm = compare({**contenders, **loops}, options.images, options.rounds)
        small, smaller = archived(cache, folder / "archive")
        ways: dict[str, Callable[[list[int]], Array]] = {
            "archive": lambda rows: small.gather([keys[row] for row in rows])[0],
            "contiguous": gather,
        }
        ways["archive"](list(range(BATCH)))
        layouts = compare(ways, len(small), 5)
    rate = {
        name: BATCH * ROW_BYTES / 1e6 / statistics.median(values)
        for name, values in {**warm, "archive": layouts["archive"]}.items()
    }
    report(
        "cache_read",
        [
            Result(
                f"random batches of {BATCH}: gather over memmap, warm", ratio(warm, "gather", "memmap"), 0.75
            ),
            Result("limit: the memmap copied row by row", ratio(warm, "rows", "memmap")),
            Result("limit: the cache's rows, found beforehand", ratio(warm, "found", "memmap")),
            *(
                Result(f"a copy {distance} bytes behind, times as long", times)
                for distance, times in behind((0, 1, 16, 64)).items()
            ),
            Result("the same, cold", ratio(cold, "gather", "memmap")),
            Result("gather, ms per batch", 1e3 * statistics.median(warm["gather"])),
            Result("gather, MB/s", rate["gather"]),
            Result("memmap, MB/s", rate["memmap"]),
            Result("archive layout, ms per batch", 1e3 * statistics.median(layouts["archive"])),
            Result("archive layout, MB/s", rate["archive"]),
            Result("archive layout over contiguous", ratio(layouts, "archive", "contiguous")),
            Result("archive layout, times smaller (made-up values)", smaller),
        ],
        {
            "images": options.images,
            "bytes": options.images * ROW_BYTES,
            "both fit in memory": room > 2 * options.images * ROW_BYTES,
            "rounds": options.rounds,
            "batches per round": BATCHES,
            "seconds per batch": {"warm": warm, "cold": cold, "layouts": layouts},
        },
        options.output,
        [
            Row(
                f"read random batches of {BATCH} images of {options.images} from the cache",
                "numpy.memmap of one file with the same rows, a batch at once",
                f"copying its rows one by one, {ratio(warm, 'rows', 'memmap'):.2f}; ours, found beforehand, "
                f"{ratio(warm, 'found', 'memmap'):.2f}",
                f"{rate['gather']:.0f} MB/s",
                ratio(warm, "gather", "memmap"),
            )
        ],
    )


if __name__ == "__main__":
    main()
