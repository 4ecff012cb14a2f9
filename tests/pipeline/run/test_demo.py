"""The demonstration says what images are worth. Relations only: entities take twice as long and show the same (`make demo`)."""

import pytest
from hmnet_pipe.pipeline.run.demo import DemoTable, run_demo
from hmnet_pipe.pipeline.run.runner import Report
from hmnet_pipe.stages.base.tools import Tools

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoTable, list[Report], list[Report]]:
    """The table, what the stages reported, and what they report when the demonstration is run again."""
    folder = tmp_path_factory.mktemp("demo")
    first: list[Report] = []
    again: list[Report] = []
    table = run_demo(folder, Tools(), first.append, tasks=("re",))
    assert run_demo(folder, Tools(), again.append, tasks=("re",)).scores == table.scores
    return table, first, again


def f1(table: DemoTable, system: str, group: str) -> float:
    return table.scores["re"][system]["per_group"][group]["f1"]


def test_text_alone_guesses_what_the_image_decides_and_hmnet_does_not(
    shown: tuple[DemoTable, list[Report], list[Report]],
) -> None:
    table, _, _ = shown
    assert f1(table, "mtb", "vision") < 0.4  # four relations, equally frequent
    assert f1(table, "hmnet", "vision") >= 0.95


def test_other_images_take_it_back_and_leave_what_the_text_decides(
    shown: tuple[DemoTable, list[Report], list[Report]],
) -> None:
    table, _, _ = shown
    assert f1(table, "hmnet, images shuffled", "vision") < 0.5
    assert f1(table, "hmnet, images shuffled", "text") >= f1(table, "hmnet", "text") - 0.01
    assert f1(table, "hmnet", "text") >= 0.95


def test_run_again_it_does_nothing(shown: tuple[DemoTable, list[Report], list[Report]]) -> None:
    _, first, again = shown
    assert [report.state for report in first] == ["done"] * 5
    assert [report.state for report in again] == ["fresh"] * 5


def test_the_table_is_what_the_readme_shows(shown: tuple[DemoTable, list[Report], list[Report]]) -> None:
    lines = shown[0].text().splitlines()
    assert lines[0].split("  ")[0] == "task"
    assert [line.split()[1] for line in lines[2:]] == ["mtb", "hmnet", "hmnet,"]
