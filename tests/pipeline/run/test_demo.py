"""The demonstration says what images are worth, and README what it prints.

Relations only: entities take twice as long and show the same (`make demo`).
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hmnet_pipe.pipeline.report.text import demo_table
from hmnet_pipe.pipeline.run.demo import DemoScores, run_demo
from hmnet_pipe.pipeline.run.runner import Report
from hmnet_pipe.stages.base.tools import Tools

README = Path(__file__).resolve().parents[3] / "README.md"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoScores, list[Report], list[Report]]:
    """Return the table, what the stages reported, and what they report when it is run again."""
    first: list[Report] = []
    again: list[Report] = []
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        table = run_demo(Path("runs/demo"), Tools(), first.append, tasks=("re",))
    assert [path.name for path in folder.iterdir()] == ["runs"]
    assert run_demo(folder / "runs/demo", Tools(), again.append, tasks=("re",)) == table
    return table, first, again


def f1(table: DemoScores, system: str, group: str) -> float:
    return table["re"][system]["per_group"][group]["f1"]


def test_text_alone_guesses_what_the_image_decides_and_hmnet_does_not(
    shown: tuple[DemoScores, list[Report], list[Report]],
) -> None:
    table, _, _ = shown
    assert f1(table, "mtb", "vision") < 0.4  # four relations, equally frequent
    assert f1(table, "hmnet", "vision") >= 0.95


def test_other_images_take_it_back_and_leave_what_the_text_decides(
    shown: tuple[DemoScores, list[Report], list[Report]],
) -> None:
    table, _, _ = shown
    assert f1(table, "hmnet, images shuffled", "vision") < 0.5
    assert f1(table, "hmnet, images shuffled", "text") >= f1(table, "hmnet", "text") - 0.01
    assert f1(table, "hmnet", "text") >= 0.95


def test_run_again_it_does_nothing(shown: tuple[DemoScores, list[Report], list[Report]]) -> None:
    _, first, again = shown
    assert [report.state for report in first] == ["done"] * 5
    assert [report.state for report in again] == ["fresh"] * 5


def test_run_again_it_needs_no_torch(shown: tuple[DemoScores, list[Report], list[Report]]) -> None:
    place = shown[2][0].output
    assert place is not None
    program = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from hmnet_pipe.pipeline.run.demo import run_demo
from hmnet_pipe.stages.base.tools import Tools
states = []
run_demo(Path(sys.argv[1]), Tools(), lambda report: states.append(report.state), tasks=("re",))
print(*states)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(place.parent)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["fresh"] * 5, done.stderr


def test_the_table_is_what_the_readme_shows(shown: tuple[DemoScores, list[Report], list[Report]]) -> None:
    """Its numbers are of one processor; no score here is further off than another one's rounding explains."""
    head, _, *rows = demo_table(shown[0]).splitlines()
    readme = [line.strip() for line in README.read_text(encoding="utf-8").splitlines()]
    assert head.strip() in readme
    begin = readme.index(head.strip())
    for row in rows:
        name, *scores = re.split(r"  +(?=[01]\.)", row.strip())
        found = [line for line in readme[begin:] if line.startswith(f"{name}  ")]
        assert len(found) == 1, f"{README} has no row {name}"
        printed = re.split(r"  +(?=[01]\.)", found[0])[1:]
        assert [float(score) for score in scores] == pytest.approx(
            [float(score) for score in printed], abs=0.1
        )
