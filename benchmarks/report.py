"""What every benchmark prints and writes: measured ratios beside what is required, and the machine's kind."""

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from hmnet_pipe.pipeline.cluster.machine import machine_kind
from hmnet_pipe.pipeline.report.text import text_table

__all__ = ["Result", "Row", "report"]


@dataclass(frozen=True)
class Result:
    """One figure.

    asked: the least required value (with `at_most`, the largest), or None for a figure that is only reported.
    """

    what: str
    value: float
    asked: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        if self.asked is None:
            return None
        return self.value <= self.asked if self.at_most else self.value >= self.asked


@dataclass(frozen=True)
class Row:
    """A line of the table in docs/performance.md, which benchmarks/table.py makes.

    peer: what a user would take instead. limit: what bounds ours, as measured. ours: a number with its unit.
    ratio: ours over the peer's rate, above 1 where ours is faster.
    """

    what: str
    peer: str
    limit: str
    ours: str
    ratio: float


def report(
    name: str, results: list[Result], facts: dict[str, Any], output: Path, rows: Sequence[Row] = ()
) -> None:
    """Print the table and write output/<name>.json. rows: what docs/performance.md shows of it."""
    machine = {
        "kind": machine_kind(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    lines = []
    for result in results:
        asked = (
            "" if result.asked is None else f"{'at most' if result.at_most else 'at least'} {result.asked:g}"
        )
        lines.append(
            [result.what, result.value, asked, {None: "", True: "met", False: "NOT MET"}[result.met]]
        )
    print(f"{name}, on {machine}")
    print(text_table(["what", "value", "asked", ""], lines))
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{name}.json"
    values = {
        "machine": machine,
        "command": _command(sys.argv),
        "facts": facts,
        "results": [{**asdict(result), "met": result.met} for result in results],
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    print(f"-> {path}")


def _command(words: Sequence[str]) -> str:
    """Return the command as it may be shown: a path of this machine is named by its option."""
    shown: list[str] = []
    for before, word in pairwise(words):
        shown.append(before.lstrip("-").upper() if "/" in word and before.startswith("-") else word)
    return " ".join(["python", f"benchmarks/{Path(words[0]).name}", *shown])
