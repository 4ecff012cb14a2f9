"""A trial names a training, and its names lead back to it."""

from itertools import product
from pathlib import Path

import pytest
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import PRETRAINED, TRAINED, Trial

SYSTEMS = ("hmnet", "hmnet-1v3", "bert-crf", "seed-system")
TRIALS = [
    Trial(system, seed, shots, subset, start, features)
    for system, seed, (shots, subset), start, features in product(
        SYSTEMS,
        (1, 49, 0, 2**63 - 1),
        ((0, 1), (50, 1), (50, 2), (5, 0)),
        (PRETRAINED, TRAINED, "0123abcd"),
        ("", "grid", "my-set_2"),
    )
]


def test_names_without_extras_are_what_they_always_were() -> None:
    trial, run = Trial("hmnet", 1), RunFolder(Path("runs/x"))
    assert (trial.name, trial.title) == ("hmnet-seed-1", "hmnet seed 1")
    assert run.model(trial) == Path("runs/x/models/hmnet/seed-1")
    assert run.finetuned(trial) == Path("runs/x/models/hmnet/finetuned-seed-1")
    assert run.refreshed(trial) == Path("runs/x/refreshed/hmnet-seed-1")
    assert trial.extras == {}


def test_a_name_and_a_folder_lead_back_to_the_trial() -> None:
    run = RunFolder(Path("runs/x"))
    for trial in TRIALS:
        assert Trial.named(trial.name) == trial
        assert Trial.of(run.model(trial)) == trial
        assert Trial.of(run.finetuned(trial), "finetuned-") == trial


def test_no_two_trials_write_to_one_place() -> None:
    run = RunFolder(Path("runs/x"))
    places = [*map(run.model, TRIALS), *map(run.finetuned, TRIALS)]
    assert len(set(places)) == 2 * len(TRIALS)
    assert len({trial.name for trial in TRIALS}) == len(TRIALS)


@pytest.mark.parametrize("name", ["hmnet", "hmnet-seed-", "seed-1", "hmnet-seed-1-shots-5", "hmnet-seed-1-x"])
def test_what_is_no_trial_is_none(name: str) -> None:
    assert Trial.named(name) is None


def test_the_options_name_the_trial() -> None:
    assert Trial("hmnet", 2, 50, 3, TRAINED, "grid").options == (
        "--system hmnet --seed 2 --shots 50 --subset-seed 3 --from train --features grid"
    )
