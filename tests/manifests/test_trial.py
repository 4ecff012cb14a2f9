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
        (RUN, AS_PUBLISHED, "few", "few_lr_3e5"),
    )
] + [
    Trial("hmnet", 1, shots, 2, recipe=recipe, percent=percent, natural=natural)
    for (shots, percent, natural), recipe in product(
        ((5, 0, True), (0, 5, False), (0, 50, False)), (RUN, "few")
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


def test_a_recipe_names_the_trial_and_what_is_none_is_refused() -> None:
    trial = Trial("mtb", recipe=AS_PUBLISHED)
    assert (trial.label, trial.title) == ("seed-1-as-published", "mtb seed 1, recipe as-published")
    assert trial.extras == {"recipe": AS_PUBLISHED}
    own = Trial("mtb", recipe="few", shots=5, natural=True)
    assert own.label == "seed-1-shots-5-natural-subset-1-by-few"
    assert own.title == "mtb seed 1, shots 5, natural, subset seed 1, recipe few"
    assert own.options == "--system mtb --seed 1 --shots 5 --natural --subset-seed 1 --recipe few"
    assert Trial("mtb", percent=5).options == "--system mtb --seed 1 --percent 5 --subset-seed 1"
    for name in ("publi-shed", "", "Few", "few.1"):
        with pytest.raises(InputError, match=r"is not one of run, as-published, a name of your own"):
            Trial("mtb", recipe=name)


def test_draws_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match=r"--shots and --percent cannot both be given"):
        Trial("mtb", shots=5, percent=5)
    with pytest.raises(InputError, match=r"--natural is for --shots"):
        Trial("mtb", percent=5, natural=True)
    with pytest.raises(InputError, match=r"percent must be a whole number from 0 to 100, not 101"):
        Trial("mtb", percent=101)
