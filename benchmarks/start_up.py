"""How long commands that compute nothing take, and how much memory.

    python benchmarks/start_up.py [--demo runs/demo] [--rounds 5]

--demo: the folder of a finished demonstration. If there is none, one is made there first, which takes
minutes. Each command is a process of its own. Its time is the median over the rounds; its memory is the
largest resident size that the system reports for it and the processes that it started.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from report import Result, report

SECONDS, MEGABYTES, DEMO_SECONDS = 1.5, 200.0, 5.0
HMNET = [sys.executable, "-m", "hmnet_pipe"]


class Cost(NamedTuple):
    """What a command took: seconds, and MB of memory at its peak."""

    seconds: float
    megabytes: float


def cost(words: list[str]) -> Cost:
    """Run `hmnet-pipe` with these words to its end, in a process that has no other children."""
    program = (
        "import resource, subprocess, sys; "
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, *HMNET, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.perf_counter() - started
    # The process in between costs one start of Python, which is subtracted below.
    return Cost(seconds, int(done.stdout) * (1 if sys.platform != "darwin" else 1 / 1024) / 1024)


def bare(rounds: int) -> float:
    """Return the seconds that one start of Python takes."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    arguments = parser.parse_args()
    subprocess.run([*HMNET, "demo", str(arguments.demo)], check=True, stdout=subprocess.DEVNULL)
    start = bare(arguments.rounds)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(arguments.demo / "ner", Path(folder) / "run"))
        commands = {
            "--help": ["--help"],
            "status": ["status", str(run)],
            "table": ["table", str(run)],
            "lock": ["lock", str(run)],
            "archive of what is archived": ["archive", str(run)],
            "demo that finds all fresh": ["demo", str(arguments.demo)],
        }
        subprocess.run([*HMNET, "archive", str(run)], check=True, stdout=subprocess.DEVNULL)
        for name, words in commands.items():
            costs = [cost(words) for _ in range(arguments.rounds)]
            seconds = statistics.median(each.seconds for each in costs) - start
            asked = DEMO_SECONDS if words[0] == "demo" else SECONDS
            memory = max(each.megabytes for each in costs)
            results.append(Result(f"{name}: seconds", seconds, asked, at_most=True))
            results.append(
                Result(f"{name}: MB", memory, None if words[0] == "demo" else MEGABYTES, at_most=True)
            )
    facts = {"rounds": arguments.rounds, "cores": len(os.sched_getaffinity(0)), "python start": start}
    report("start_up", results, facts, arguments.output)


if __name__ == "__main__":
    main()
