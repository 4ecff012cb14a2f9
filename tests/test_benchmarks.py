"""What the benchmarks write is what docs/performance.md shows."""

import importlib
import json
import re
import sys
from itertools import takewhile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return benchmarks/report.py, and let others be imported beside it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("report")


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def test_a_row_comes_from_the_benchmark_to_the_table(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = importlib.import_module("table")
    monkeypatch.setattr(sys, "argv", ["/x/benchmarks/a_speed.py", "--text", "/home/me/data", "--rounds", "5"])
    row = benchmark.Row("train x", "the peer", "matrix products", "8.40 samples/s", 1.2345)
    benchmark.report("a_speed", [benchmark.Result("x", 1.0)], {}, tmp_path, [row])
    benchmark.report("b_speed", [benchmark.Result("x", 1.0)], {}, tmp_path)
    head, rule, found = table.table([tmp_path]).splitlines()
    assert cells(head) == table.COLUMNS
    assert set(cells(rule)) == {"---"}
    shown = dict(zip(table.COLUMNS, cells(found), strict=True))
    processor = shown.pop("processor")
    assert processor.startswith(
        json.loads((tmp_path / "a_speed.json").read_text())["machine"]["kind"]["gpu"]
    ) or (re.search(r", \d+ threads(, bf16)?$", processor))
    assert shown == {
        "what": "train x",
        "peer": "the peer",
        "limit": "matrix products",
        "ours": "8.40 samples/s",
        "ratio": "1.23",
        "command": "`python benchmarks/a_speed.py --text TEXT --rounds 5`",
    }


def test_the_page_has_the_columns_of_the_table_and_commands_that_there_are(benchmark: ModuleType) -> None:
    table = importlib.import_module("table")
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if cells(line) == table.COLUMNS)
    # Other tables of the page follow, each of its own columns.
    rows = [cells(line) for line in takewhile(lambda line: line.startswith("|"), lines[start + 2 :])]
    assert rows
    assert all(len(row) == len(table.COLUMNS) for row in rows)
    for row in rows:
        shown = dict(zip(table.COLUMNS, row, strict=True))
        script = re.match(r"`python (benchmarks/\w+\.py)", shown["command"])
        assert script, shown["command"]
        assert (ROOT / script[1]).is_file()
        assert re.fullmatch(r"\d+\.\d\d", shown["ratio"])
