"""The list of text encoders, on the terminal and in docs/encoders.md."""

import json
from pathlib import Path

from click.testing import CliRunner
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.report.encoders import encoders_markdown
from hmnet_pipe.stages.text.encoders.families import FAMILIES, REFUSED


def said(*options: str) -> str:
    shown = CliRunner().invoke(main, ["doctor", "--encoders", *options])
    assert shown.exit_code == 0
    return shown.output


def test_doctor_lists_every_type_with_its_note_or_its_reason() -> None:
    lines = {line.split()[0]: line for line in said().splitlines() if line.strip()}
    assert {*FAMILIES, *REFUSED} <= lines.keys()
    assert all(family.example in lines[name] for name, family in FAMILIES.items())
    assert all(reason in lines[name] for name, reason in REFUSED.items())
    listed = json.loads(said("--json"))
    assert [family["name"] for family in listed["taken"]] == list(FAMILIES)
    assert listed["refused"] == REFUSED


def test_the_page_of_the_encoders_is_that_of_the_registry() -> None:
    page = (Path(__file__).parents[3] / "docs" / "encoders.md").read_text(encoding="utf-8")
    tables = page.partition("<!-- encoders -->\n")[2].partition("<!-- end -->")[0]
    expected = encoders_markdown()
    assert tables == expected, (
        "run `hmnet-pipe doctor --encoders --markdown` and copy it into docs/encoders.md"
    )
    assert said("--markdown") == expected
