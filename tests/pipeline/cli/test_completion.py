"""What shells offer after TAB, as click's own completion classes find it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.stages.systems.registry import SYSTEMS
from hmnet_pipe.stages.vision.backbones import BACKBONES
from hmnet_pipe.stages.vision.detectors import DETECTORS

from ...running import begin


def offered(*words: str) -> list[str]:
    """Return what is offered where the last of the words is unfinished: words, or "dir" or "file"."""
    *before, begun = words
    items = BashComplete(main, {}, "hmnet-pipe", "_HMNET_PIPE_COMPLETE").get_completions(before, begun)
    return [item.value if item.type == "plain" else item.type for item in items]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, and work in it, with a run of each task and two deeper ones."""
    for name, task in (("mine", "ner"), ("posts", "re"), ("runs/a", "ner"), ("runs/b", "ner")):
        begin(tmp_path / name, tmp_path, task)
    hostile = RunFolder(tmp_path / "mi\nne\x1b[31m").config
    hostile.parent.mkdir()
    hostile.touch()
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_and_options_are_offered() -> None:
    assert offered("st") == ["status"]
    assert "--max-length" in offered("train", "x", "--m")


@pytest.mark.parametrize("command", ["train", "finetune", "evaluate", "table"])
def test_systems_are_offered_those_for_the_task_of_the_run(command: str, there: Path) -> None:
    for run, task in (("mine", "ner"), ("posts", "re")):
        assert offered(command, run, "--system", "") == [
            info.name for info in SYSTEMS.values() if task in info.tasks
        ]
    assert offered(command, "nowhere", "--system", "") == list(SYSTEMS)
    assert offered(command, "posts", "--system", "bert-c") == []
    assert offered(command, "mine", "--system", "bert-c") == ["bert-crf"]


def test_runs_are_offered_and_where_there_are_none_folders(there: Path) -> None:
    assert offered("status", "") == ["mine", "posts", "runs/a", "runs/b"]
    assert offered("detect", "runs/") == ["runs/a", "runs/b"]
    assert offered("train", "./m") == ["./mine"]
    assert offered("verify", f"{there}/po") == [f"{there}/posts"]
    assert offered("doctor", "pic") == ["dir"]
    assert offered("evaluate", "mine", "--data", "po") == ["posts"]


def test_names_of_settings_are_offered_and_files_where_one_may_stand() -> None:
    assert offered("extract", "x", "--backbone", "") == list(BACKBONES)
    assert offered("detect", "x", "--detector", "") == list(DETECTORS)
    assert offered("extract", "x", "--dtype", "b") == ["bfloat16"]
    assert offered("detect", "x", "--weights", "") == ["default", "random"]
    assert offered("detect", "x", "--weights", "my") == ["file"]
    assert offered("detect", "x", "--objects", "") == []
    assert offered("prepare", "x", "--preset", "twitter") == ["twitter2015", "twitter2017"]
    assert offered("prepare", "x", "--task", "n") == ["ner"]
    assert offered("prepare", "x", "--format", "m") == ["mnre"]
    assert offered("evaluate", "x", "--split", "") == ["train", "valid", "test"]


def test_feature_sets_of_the_run_are_offered_too(there: Path) -> None:
    with RunFolder(there / "mine").config.open("a") as config:
        config.write("\n[features.coarse]\nside = 1\n")
    for command in ("extract", "train", "archive"):
        assert offered(command, "mine", "--features", "") == [
            "pyramid",
            "grid",
            "vector",
            "scene-vector",
            "coarse",
        ]
    assert offered("extract", "posts", "--features", "p") == ["pyramid"]


def test_a_shell_is_answered_without_torch(there: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None
sys.argv[0] = "hmnet-pipe"
from hmnet_pipe.__main__ import main
main()
"""
    asked = {"_HMNET_PIPE_COMPLETE": "bash_complete", "COMP_WORDS": "hmnet-pipe train posts --system mt"}
    environment = {**os.environ, **asked, "COMP_CWORD": "4"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("plain,mtb\n", "")
