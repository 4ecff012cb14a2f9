"""The lists of text encoders and detectors, on the terminal and in docs/."""

import json
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
    lines = {line.split()[0]: line for line in said(f"--{name}").splitlines() if line.strip()}
    data = LISTINGS[name]().data
    assert all(row["example"] in lines[row["name"]] for row in data["taken"])
    assert all(reason in lines[each] for each, reason in data["refused"].items())
    assert data["taken"]
    assert json.loads(said(f"--{name}", "--json")) == data


@pytest.mark.parametrize("name", LISTINGS)
def test_the_page_is_that_of_the_registry(name: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / f"{name}.md").read_text(encoding="utf-8")
    tables = page.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0]
    expected = LISTINGS[name]().markdown()
    assert tables == expected, f"run `hmnet-pipe doctor --{name} --markdown` and copy it into docs/{name}.md"
    assert said(f"--{name}", "--markdown") == expected
