"""The table of docs/performance.md, from what the benchmarks have written.

    python benchmarks/table.py [build/benchmarks ...]

Prints a row for each figure that was measured beside a peer, in Markdown. Of two files of one benchmark, from
two machines, both are shown.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["COLUMNS", "table"]

COLUMNS = ("what", "peer", "limit", "ours", "ratio", "command", "processor")


def table(folders: Sequence[Path]) -> str:
    """Return the rows of all files in the folders as a table in Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        command, processor = f"`{values.get('command', '')}`", _processor(values["machine"])
        for row in values.get("rows", []):
            cells = row["what"], row["peer"], row["limit"], row["ours"], f"{row['ratio']:.2f}"
            lines.append((*cells, command, processor))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _processor(machine: dict[str, Any]) -> str:
    """Return the GPU, where there is one, and otherwise the processor with its threads."""
    kind = machine["kind"]
    if kind["gpu"] != "none":
        return str(kind["gpu"])
    name = kind["processor"].partition(", ")[0].replace("(R)", "")
    return f"{name}, {machine['threads']} threads{', bf16' if kind['bf16'] else ''}"


if __name__ == "__main__":
    print(table([Path(name) for name in sys.argv[1:]] or [Path("build/benchmarks")]), end="")
