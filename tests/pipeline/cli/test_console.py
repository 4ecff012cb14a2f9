"""What commands print besides results: progress, with or without a terminal; several values of an option."""

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hmnet_pipe.manifests.files import disk_remedy
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.cli.console import lent_tools, show


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with lent_tools(quiet=False, line_seconds=0.0) as tools:
        bar = tools.bar(10, "detect", "image")
        bar.update(3)
        bar.set_postfix_str("loss 0.5")
        bar.update()
        bar.close()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "\r" not in printed.err
    first, second = printed.err.splitlines()
    assert re.fullmatch(r"detect: 3 of 10 images, [\d.]+/s", first)
    assert re.fullmatch(r"detect: 4 of 10 images, [\d.]+/s, loss 0\.5", second)


def test_what_is_soon_done_prints_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with lent_tools(quiet=False) as tools:
        bar = tools.bar(3, "detect", "image")
        for _ in range(3):
            bar.update()
        bar.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "seeds"),
    [
        ([], (1,)),
        (["--seed", "7"], (7,)),
        (["--seeds", "1", "49", "1234"], (1, 49, 1234)),
        (["--seeds", "1", "49", "--epochs", "3"], (1, 49)),
        (["--seed", "1", "--seed", "2"], (1, 2)),
        (["--seeds=1", "--seeds", "2", "3"], (1, 2, 3)),
        (["--seeds", "-5", "2"], (-5, 2)),
    ],
)
def test_an_option_takes_several_seeds(words: list[str], seeds: tuple[int, ...]) -> None:
    for command in ("train", "finetune"):
        assert main.commands[command].make_context(command, ["runs/x", *words]).params["seeds"] == seeds


@pytest.mark.parametrize("words", [["--seeds", "1", "49", "runs/x"], ["runs/x", "--seeds", "1", "49"]])
def test_a_run_behind_the_seeds_is_no_seed(words: list[str]) -> None:
    context = main.commands["train"].make_context("train", words)
    assert str(context.params["run"]) == "runs/x"
    assert context.params["seeds"] == (1, 49)


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["systems"], "what this command prints cannot be written to its stdout: No space left on device"),
        (["systems", "--help"], "the disk that holds what this command writes is full; make room"),
        (["--help"], "the disk that holds what this command writes is full; make room"),
    ],
)
def test_a_full_stdout_is_not_taken_for_the_disk_of_the_working_directory(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FULL.open("w", buffering=1) as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(SystemExit) as ended:
            main(words)
        monkeypatch.undo()
        # What its buffer still holds can never be written.
        with suppress(OSError):
            full.close()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Error: {said}")


@pytest.mark.parametrize("words", [["systems"], ["--help"]])
def test_a_reader_that_has_seen_enough_ends_a_command_quietly(
    words: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        with pytest.raises(SystemExit):
            main(words)
        monkeypatch.undo()
        with suppress(OSError):
            pipe.close()
    assert capfd.readouterr().err == ""


def test_a_closed_stdout_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    show("nobody reads this")


def test_a_forbidden_file_is_named_with_what_was_wanted_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(code: int, name: str) -> str:
        return disk_remedy(OSError(code, "", str(tmp_path / name)), tmp_path)

    (tmp_path / "weights.pth").touch()
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.R_OK)
    assert of(errno.EACCES, "weights.pth").startswith(f"{tmp_path / 'weights.pth'} cannot be read")
    assert of(errno.EACCES, ".tmp-12-run.toml").startswith(f"{tmp_path / 'run.toml'} cannot be written")
    assert of(errno.EROFS, "stages").startswith(f"{tmp_path / 'stages'} is on a read-only file system")
    assert of(errno.ENOSPC, "samples.parquet").startswith(f"the disk that holds {tmp_path} is full")
