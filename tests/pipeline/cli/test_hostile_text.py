"""Types, groups, relations, ids, names of files and paths with control characters, through the commands."""

import io
import json
import re
from pathlib import Path
from typing import Any

import hmnet_pipe
import pytest
from click.testing import CliRunner, Result
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.cli.console import lent_tools, show

from ...running import hmnet

FORGED = "\x1b[31mred\r\nnext: rm -rf /\u2028x\u202eé"
SHOWN = r"\x1b[31mred\r\nnext: rm -rf /\u2028x\u202eé"
STEERING = "\x1b\r\u2028\u202e\x07"


def here(*arguments: object, charset: str = "utf-8") -> Result:
    done = CliRunner(charset=charset).invoke(main, [str(argument) for argument in arguments])
    assert not set(done.output) & set(STEERING), done.output
    assert not [line for line in done.output.splitlines() if line.startswith("next: rm")], done.output
    return done


def write_rows(folder: Path, task: str) -> Path:
    folder.mkdir()
    for split in ("train", "valid", "test"):
        both: dict[str, Any] = {
            "groups": [FORGED],
            "tokens": ["ada", "sat"],
            "image": f"{FORGED}.jpg".replace("/", ""),
        }
        labels = (
            {"tags": [f"B-{FORGED}", "O"]}
            if task == "ner"
            else {"head": [0, 1], "tail": [1, 2], "relation": FORGED}
        )
        rows = [{"id": f"{split} {FORGED} {i}", **both, **labels} for i in range(3)]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "images").mkdir()
    return folder


@pytest.fixture(scope="module", params=["ner", "re"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a prepared run whose path and data are hostile."""
    place = tmp_path_factory.mktemp("hostile") / FORGED.replace("/", "")
    place.mkdir()
    text = write_rows(place / "text", request.param)
    done = here(
        "prepare", place / "run", "--task", request.param, "--text", text, "--images", text / "images"
    )
    assert done.exit_code == 0, done.output
    assert f": {SHOWN} 3" in done.output
    assert SHOWN.replace("/", "") in done.output
    return place / "run"


@pytest.mark.parametrize("command", ["status", "verify", "table", "detect", "extract", "lock", "doctor"])
def test_no_command_prints_a_control_character_of_a_run(run: Path, command: str) -> None:
    for charset in ("utf-8", "ascii"):
        done = here(command, run, charset=charset)
        assert isinstance(done.exception, SystemExit | None), done.exception
        if command in ("status", "verify"):
            assert (r"x\u202e\xe9" if charset == "ascii" else r"x\u202eé") in done.output


@pytest.mark.slow
def test_trainings_and_their_tables_print_none_either(run: Path, tiny_encoder: Path) -> None:
    system = "bert-crf" if "tags" in (run.parent / "text/train.jsonl").read_text() else "mtb"
    recipe = ("--encoder", tiny_encoder, "--epochs", 1, "--max-length", 32, "--device", "cpu")
    assert here("train", run, "--system", system, *recipe).exit_code == 0
    done = here("evaluate", run, "--system", system)
    assert done.exit_code == 0, done.output
    rows = done.output.splitlines()
    assert any(row.startswith(SHOWN) for row in rows), "the type"
    assert any(row.startswith(f"group {SHOWN}") for row in rows)
    assert len({len(row) for row in rows[:4]}) == 1, "columns stand below one another"
    for command in ("table", "status", "verify"):
        assert here(command, run).exit_code == 0


def test_nothing_is_printed_but_through_show() -> None:
    """A line that is printed otherwise is one that escapes nothing."""
    root = Path(hmnet_pipe.__file__).parent
    console = root / "pipeline/cli/console.py"
    script = root / "stages/demo/train_weights.py"
    printing = re.compile(r"(?<![\w.])print\(|\bclick\.s?echo\(|\bsys\.std(out|err)\.write\(|\btqdm\.write\(")
    folders = ("manifests", "cache", "stages", "pipeline")
    sources = {path for folder in folders for path in (root / folder).rglob("*.py")} - {console, script}
    assert [str(path) for path in sorted(sources) if printing.search(path.read_text(encoding="utf-8"))] == []
    assert len(printing.findall(console.read_text(encoding="utf-8"))) == 1


def test_a_terminal_that_is_ascii_gets_escapes(run: Path) -> None:
    done = hmnet("status", run, environment={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    assert r"x\u202e\xe9" in done.stdout


def test_a_bar_and_lines_beside_it_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "ascii"

        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr("sys.stdout", shown)
    with lent_tools(quiet=False) as tools:
        bar: Any = tools.bar(3, FORGED, "image")
        bar.delay = 0
        bar.start_t -= 10
        bar.update()
        tools.say(FORGED)
        show(FORGED, FORGED, err=True)
        bar.close()
    printed, escaped = shown.getvalue(), SHOWN.replace("é", r"\xe9")
    assert f"{escaped}:" in printed, "the bar"
    assert printed.count(f"{escaped}\n") == 3
    assert not set(printed) & {"\u202e", "\u2028"}
    assert "\x1b[31m" not in printed
