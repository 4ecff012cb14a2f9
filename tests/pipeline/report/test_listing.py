"""The lists of text encoders and detectors, on the terminal and in docs/."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.report.listing import LISTINGS


def said(*options: str) -> str:
    shown = CliRunner().invoke(main, ["doctor", *options])
    assert shown.exit_code == 0
    return shown.output


@pytest.mark.parametrize("name", LISTINGS)
def test_doctor_lists_everything_with_its_note_or_its_reason(name: str) -> None:
    blocks: dict[str, str] = {}
    for line in said(f"--{name}").splitlines():
        assert len(line) <= 80
        if line and not line.startswith(" "):
            block = line
            assert block not in blocks
        blocks[block] = " ".join([*filter(None, [blocks.get(block)]), *line.split()])
    data = LISTINGS[name]().data
    assert set(blocks) == {row["name"] for row in data["taken"]} | set(data["refused"])
    for row in data["taken"]:
        words = {word.strip(",:") for word in blocks[row["name"]].split()}
        assert all(set(re.split(r"[,:]? ", value)) <= {*words, ""} for value in row.values())
    assert all(reason in blocks[each] for each, reason in data["refused"].items())
    assert data["taken"]
    assert json.loads(said(f"--{name}", "--json")) == data


@pytest.mark.parametrize("name", LISTINGS)
def test_the_page_is_that_of_the_registry(name: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / f"{name}.md").read_text(encoding="utf-8")
    tables = page.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0]
    expected = LISTINGS[name]().markdown()
    assert tables == expected, f"run `hmnet-pipe doctor --{name} --markdown` and copy it into docs/{name}.md"
    assert said(f"--{name}", "--markdown") == expected
