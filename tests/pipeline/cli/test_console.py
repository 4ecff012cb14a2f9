"""What commands print besides results: progress, with or without a terminal; several values of an option."""

import re

import pytest
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.cli.console import lent_tools


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
