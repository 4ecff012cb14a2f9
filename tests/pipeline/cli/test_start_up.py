"""Commands that compute nothing start without torch, which takes seconds and hundreds of MB to import."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cli import main

from ...running import Demos, bring_up_to_date

TEXT = Trial("bert-crf")
SIZES = {"train": 16, "valid": 6, "test": 6}

# An import of what is None in sys.modules is an ImportError.
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from hmnet_pipe.pipeline.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def finished(demos: Demos, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Return a finished run with a system that reads features and one that does not."""
    run = Path(shutil.copytree(demos.run(sizes=SIZES), tmp_path_factory.mktemp("start-up") / "run"))
    for trial in (Trial("hmnet"), TEXT):
        bring_up_to_date(run, "train", trial=trial, encoder=str(tiny_encoder), epochs=1, first_evaluation=1)
    return run


def started(*arguments: object) -> str:
    words = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", ["", *sorted(main.commands)])
def test_help_needs_no_torch(command: str) -> None:
    assert "Usage:" in started(*command.split(), "--help")


def test_status_of_a_finished_run_needs_no_torch(finished: Path) -> None:
    said = started("status", finished)
    assert "everything is up to date" in said
    assert "blocked" not in said


@pytest.mark.parametrize("command", ["prepare", "detect", "extract"])
def test_a_stage_that_is_up_to_date_needs_no_torch(finished: Path, command: str) -> None:
    assert "up to date, nothing to do" in started(command, finished)


@pytest.mark.parametrize("command", ["table", "lock", "verify"])
def test_what_reads_a_run_needs_no_torch(finished: Path, command: str) -> None:
    assert started(command, finished)


def test_archive_needs_no_torch(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    assert "1 shard done" in started("archive", run)
