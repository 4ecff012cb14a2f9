"""Whether predictions have the same bytes whoever works on them and however often they are killed.

    python benchmarks/predict_kills.py RUN [--posts 2000] [--kills 10] [--seed 1] [--work build/predict_kills]

RUN: a finished run with a model of `hmnet`, such as runs/demo/ner; its samples are the posts, repeated until
there are enough. The prediction is made by one, two and four workers, by two workers of a Dask scheduler in a
process of its own, and by a command that is killed by SIGKILL (the whole group of its processes) at random
moments, and by SIGTERM, and resumed. predictions.jsonl is compared with that of one worker. The folders stay
below --work.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from report import Result, report

CHUNK = 50
HMNET = [sys.executable, "-m", "hmnet_pipe", "predict"]


def write_posts(run: Path, path: Path, count: int) -> None:
    """Write the samples of a run as posts with their images' paths."""
    images = {row["key"]: row["path"] for row in pq.read_table(run / "images.parquet").to_pylist()}
    rows = pq.read_table(run / "samples.parquet", columns=["tokens", "image_key"]).to_pylist()
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = rows[number % len(rows)]
            post = {"id": str(number), "tokens": row["tokens"], "image": images.get(row["image_key"])}
            file.write(json.dumps(post) + "\n")


def begin(run: Path, posts: Path, output: Path, *more: object) -> "subprocess.Popen[str]":
    words = [*HMNET, run, posts, "--output", output, "--chunk", CHUNK, *more]
    quiet: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(list(map(str, words)), start_new_session=True, **quiet)


def ended(process: "subprocess.Popen[str]") -> str:
    """Wait for the end of a command, and return its summary. Raises RuntimeError where it fails."""
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(said)
    return next(line for line in said.splitlines() if " done, " in line)


def stop(process: "subprocess.Popen[str]", number: int) -> None:
    os.killpg(process.pid, number)
    process.wait()


def digest(output: Path) -> str:
    return hashlib.sha256((output / "predictions.jsonl").read_bytes()).hexdigest()


def reached(output: Path) -> dict[str, int]:
    """Return how far a prediction that was stopped had come: finished chunks, shards and parts."""
    patterns = {
        "chunks": "images/*/stages/detect.parts/*/*.outcomes.parquet",
        "shards": "images/*/features/*/shard-*.h5",
        "parts": "stages/predict.parts/*/*.done.jsonl",
    }
    return {name: len(list(output.glob(pattern))) for name, pattern in patterns.items()}


@contextmanager
def scheduler(folder: Path, workers: int) -> Iterator[str]:
    """Yield the address of a Dask scheduler, in a process of its own as its workers are."""
    folder.mkdir()
    file = folder / "scheduler.json"
    places = ["--host", "127.0.0.1", "--port", "0"]
    words = [["scheduler", *places], *[["worker", "--nthreads", "1"]] * workers]
    with ExitStack() as stack:
        for one in words:
            command = [sys.executable, "-m", "dask", *one, "--scheduler-file", str(file), "--no-dashboard"]
            process = subprocess.Popen(
                command,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            stack.callback(stop, process, signal.SIGKILL)
            while not (file.is_file() and file.read_text().endswith("}")):
                time.sleep(0.1)
        yield json.loads(file.read_text())["address"]


def kill_at(process: "subprocess.Popen[str]", output: Path, moment: str, draw: random.Random) -> bool:
    """Kill a command at a moment, by SIGKILL; return False where it had ended by then.

    moment: "start", within the time that it needs to begin; or one of `reached`, when some more of these are
    finished, or of what comes after them.
    """
    if moment == "start":
        time.sleep(draw.uniform(0, 20))
    else:
        before, more = reached(output), draw.randint(1, 4)
        later = list(before)[list(before).index(moment) + 1 :]
        while process.poll() is None:
            now = reached(output)
            if now[moment] >= before[moment] + more or any(now[name] > before[name] for name in later):
                break
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
    if process.poll() is not None:
        return False
    stop(process, signal.SIGKILL)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--posts", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("build/predict_kills"))
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    work = options.work.resolve()
    posts = work / "posts.jsonl"
    write_posts(options.run, posts, options.posts)
    run = options.run.resolve()

    def whole(name: str, *more: object) -> str:
        print(f"{name}: {ended(begin(run, posts, work / name, *more))}", flush=True)
        return digest(work / name)

    wanted = whole("one", "--workers", 1)
    same: dict[str, str] = {}
    # In the order of the work, as each prediction goes on where the last kill left it.
    moments = [(*reached(work), "start")[number * 4 // options.kills - 1] for number in range(options.kills)]
    draw, output = random.Random(options.seed), work / "killed"
    found: list[dict[str, Any]] = []
    for moment in moments:
        if kill_at(begin(run, posts, output, "--workers", 2), output, moment, draw):
            found.append({"moment": moment, **reached(output)})
            print(f"killed: {found[-1]}", flush=True)
    same["killed and resumed"] = whole("killed", "--workers", 2)

    output = work / "terminated"
    process = begin(run, posts, output, "--workers", 2)
    while process.poll() is None and reached(output)["parts"] < options.posts // CHUNK // 2:
        time.sleep(0.05)
    process.terminate()
    said, _ = process.communicate()
    print(f"SIGTERM after {reached(output)}: {said.splitlines()[-1]} (exit code {process.returncode})")
    same["stopped by SIGTERM and resumed"] = whole("terminated", "--workers", 2)

    same |= {"2 workers": whole("two", "--workers", 2), "4 workers": whole("four", "--workers", 4)}
    with scheduler(work / "scheduler", 2) as address:
        same["2 workers of a scheduler elsewhere"] = whole("remote", "--scheduler", address)

    results = [Result(f"the same bytes: {name}", float(one == wanted), 1.0) for name, one in same.items()]
    results.append(Result("kills by SIGKILL", len(found), options.kills))
    report("predict_kills", results, {"moments": found, "posts": options.posts}, options.output)


if __name__ == "__main__":
    main()
