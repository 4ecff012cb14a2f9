"""A trial names a training, and its names lead back to it."""

from itertools import product
from pathlib import Path

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import AS_PUBLISHED, PRETRAINED, RUN, TRAINED, Trial

SYSTEMS = ("hmnet", "hmnet-1v3", "bert-crf", "seed-system")
TRIALS = [
    Trial(system, seed, shots, subset, start, features, recipe)
    for system, seed, (shots, subset), start, features, recipe in product(
        SYSTEMS,
        (1, 49, 0, 2**63 - 1),
        ((0, 1), (50, 1), (50, 2), (5, 0)),
        (PRETRAINED, TRAINED, "0123abcd"),
        ("", "grid", "my-set_2", "as-published"),
        (RUN, AS_PUBLISHED),
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
    assert Trial("hmnet", 2, 50, 3, TRAINED, "grid", AS_PUBLISHED).options == (
        "--system hmnet --seed 2 --shots 50 --subset-seed 3 --recipe as-published --from train "
        "--features grid"
    )


def test_a_recipe_names_the_trial_and_an_unknown_one_is_refused() -> None:
    trial = Trial("mtb", recipe=AS_PUBLISHED)
    assert (trial.label, trial.title) == ("seed-1-as-published", "mtb seed 1, recipe as-published")
    assert trial.extras == {"recipe": AS_PUBLISHED}
    with pytest.raises(InputError, match=r"'published' is not one of run, as-published; did you mean as-"):
        Trial("mtb", recipe="published")
