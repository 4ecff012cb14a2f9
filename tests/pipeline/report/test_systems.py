"""The list of systems, and the scores that were published."""

import re
from pathlib import Path

from click.testing import CliRunner
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.report.systems import systems_markdown, systems_table
from hmnet_pipe.stages.systems.published import DATA_SETS, PUBLISHED
from hmnet_pipe.stages.systems.registry import SYSTEMS


def test_every_system_is_a_row_with_what_it_reads() -> None:
    lines = {line.split()[0]: line for line in systems_table().splitlines()[2:]}
    assert list(lines) == list(SYSTEMS)
    assert re.fullmatch(r"hmnet +ner, re +subwords +pyramid", lines["hmnet"])
    assert re.fullmatch(r"bert-crf +ner +subwords +nothing", lines["bert-crf"])


def test_the_command_lists_the_systems_of_a_task() -> None:
    shown = CliRunner().invoke(main, ["systems", "--task", "re"])
    assert shown.exit_code == 0
    named = [line.split()[0] for line in shown.output.splitlines()[2:]]
    assert named == [name for name, info in SYSTEMS.items() if "re" in info.tasks]
    assert CliRunner().invoke(main, ["systems", "--markdown"]).output == systems_markdown()


def test_a_published_number_stands_beside_its_source() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in systems_markdown().splitlines()[2:]}
    assert "75.98 (HMNeT, Table 1)" in rows["hmnet"]
    assert "60.86 (Zheng et al. 2021; HMNeT, Table 1)" in rows["mtb"]


def test_numbers_that_contradict_one_another_are_marked() -> None:
    marked = {(name, data) for name, rows in PUBLISHED.items() for data, row in rows.items() if row.note}
    assert {("hmnet", "MNRE-2"), ("mtb", "MNRE-2"), ("adapcoatt-bert-crf", "Twitter-2017")} <= marked
    assert ("hmnet", "Twitter-2015") not in marked
    assert "retractions" in PUBLISHED["umgf"]["Twitter-2015"].note
    assert all(set(rows) <= set(DATA_SETS) for rows in PUBLISHED.values())


def test_the_page_of_the_systems_is_that_of_the_registry() -> None:
    page = (Path(__file__).parents[3] / "docs" / "systems.md").read_text(encoding="utf-8")
    table = page.partition("<!-- systems -->\n")[2].partition("<!-- end -->")[0]
    assert table == systems_markdown(), "run `hmnet-pipe systems --markdown` and copy it into docs/systems.md"


def test_the_tests_that_the_page_names_are_there() -> None:
    root = Path(__file__).parents[3]
    named = set(re.findall(r"`(test_\w+)`", (root / "docs" / "systems.md").read_text(encoding="utf-8")))
    there = {
        name
        for path in (root / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 10
    assert named <= there


def test_every_row_of_the_papers_table_is_a_system() -> None:
    assert set(PUBLISHED) <= set(SYSTEMS)
