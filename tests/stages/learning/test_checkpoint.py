"""When a training saves, and what of its progress another version of this package may read."""

import json
import math
import time
from pathlib import Path

import pytest
import torch
from hmnet_pipe.stages.learning.checkpoint import Checkpoints, Progress

PROGRESS = Progress(2, 7, 1, 3.25, [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 1e-17}], 1, {"f1": 1 / 3})


def test_progress_is_saved_by_name_and_read_to_the_last_bit() -> None:
    saved = json.loads(PROGRESS.dumps())
    assert saved["best_epoch"] == 1
    assert Progress.loads(PROGRESS.dumps()) == PROGRESS


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([2, 7, 1, 3.25, [], 1, None]),
        json.dumps({"epoch": 2, "step": 7}),
        json.dumps({**json.loads(PROGRESS.dumps()), "tokens": 5}),
    ],
    ids=["positions", "fewer", "more"],
)
def test_progress_of_another_version_is_not_taken_for_this_ones(text: str) -> None:
    assert Progress.loads(text) is None


def test_a_checkpoint_is_due_after_so_many_seconds_and_after_twenty_times_its_own_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    always, usual, never = (Checkpoints(tmp_path / name, every) for name, every in SECONDS.items())
    for now, due in (
        (1000.0, [True, False, False]),
        (1059.0, [True, False, False]),
        (1060.0, [True, True, False]),
    ):
        assert [checkpoints.is_due() for checkpoints in (always, usual, never)] == due, now
    save = torch.save

    def slowly(state: object, path: Path) -> None:
        nonlocal now
        now += 10
        save(state, path)

    monkeypatch.setattr(torch, "save", slowly)
    usual.save({}, 0, {})
    saved = now
    for now, is_due in ((saved + 61, False), (saved + 199, False), (saved + 200, True)):
        assert usual.is_due() == is_due, now - saved


SECONDS = {"always": 0.0, "usual": 60.0, "never": math.inf}
