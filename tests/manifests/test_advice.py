"""What a message tells its reader to type can be typed, whatever the run is called."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from hmnet_pipe.manifests.advice import typed
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.run.presets import preset

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["plain", "my run", "it's", "a;b", "$HOME", "(1)", "ünï", '"'])
def test_a_shell_reads_the_command_as_it_was_meant(name: str) -> None:
    assert shlex.split(typed("train", Path("runs") / name, "--seed", 1)) == [
        *("hmnet-pipe", "train", f"runs/{name}", "--seed", "1")
    ]


def test_advice_on_a_run_whose_name_has_a_blank_can_be_followed(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    run.mkdir()
    commands = set()
    for words in (["status", str(run)], ["verify", str(run)], ["train", str(run)], ["lock", str(run)]):
        if words[0] == "verify":
            preset("custom", task="ner", text=tmp_path, images=None, format="auto").write(run / "run.toml")
        said = CliRunner().invoke(main, words).output
        commands |= {*re.findall(r"`(hmnet-pipe [a-z]+ [^`]*)`", said)}
    assert commands
    for command in commands:
        assert shlex.split(command)[2] == str(run), command


def test_no_message_puts_words_into_a_command_by_itself() -> None:
    """What is put between a command's backticks is quoted by `typed`."""
    found = []
    for room in ("manifests", "cache", "stages", "pipeline"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
                    if re.search(r"`hmnet-pipe [^`]*\{\}", "".join(map(str, parts))):
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found
