"""What every benchmark prints and writes: measured ratios beside what is required, and the machine's kind."""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hmnet_pipe.pipeline.cluster.machine import machine_kind
from hmnet_pipe.pipeline.report.text import text_table

__all__ = ["Result", "report"]


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


def report(name: str, results: list[Result], facts: dict[str, Any], output: Path) -> None:
    """Print the table and write output/<name>.json."""
    machine = {
        "kind": machine_kind(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    rows = []
    for result in results:
        asked = (
            "" if result.asked is None else f"{'at most' if result.at_most else 'at least'} {result.asked:g}"
        )
        rows.append([result.what, result.value, asked, {None: "", True: "met", False: "NOT MET"}[result.met]])
    print(f"{name}, on {machine}")
    print(text_table(["what", "value", "asked", ""], rows))
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{name}.json"
    values = {
        "machine": machine,
        "facts": facts,
        "results": [{**asdict(result), "met": result.met} for result in results],
    }
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    print(f"-> {path}")
