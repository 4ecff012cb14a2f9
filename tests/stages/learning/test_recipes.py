"""Recipes: each optimizer and schedule against a computation of its own, resumed exactly; and the published
ones.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.manifests.trial import AS_PUBLISHED, Trial
from hmnet_pipe.pipeline.checks.status import run_status
from hmnet_pipe.pipeline.cli.group import main
from hmnet_pipe.pipeline.report.text import trials_table
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.graph import stage_named
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.learning.optimizer import make_optimizer, make_schedule
from hmnet_pipe.stages.learning.recipe import OPTIMIZERS, SCHEDULES, TrainSettings
from hmnet_pipe.stages.systems.folder import load_system
from hmnet_pipe.stages.systems.recipes import PAPER, RECIPES
from hmnet_pipe.stages.systems.registry import SYSTEMS
from hmnet_pipe.stages.train.stage import Train

OWN: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "adam": {"optimizer": "adam", "weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "weight_decay": 0.1, "momentum": 0.9},
    "linear": {"schedule": "linear"},
    "inverse": {"schedule": "inverse", "decay": 0.05},
    "step": {"schedule": "step", "decay": 0.2, "step_epochs": 2},
}


def learned(optimizer: str, gradients: list[float]) -> float:
    """Return what becomes of a parameter of 2.0, at a rate of 0.1 and a decay of 0.1, in plain numbers."""
    value, mean, square, moved = 2.0, 0.0, 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        if optimizer == "adamw":
            value -= 0.1 * 0.1 * value
        else:
            gradient += 0.1 * value
        if optimizer == "sgd":
            moved = gradient if step == 1 else 0.9 * moved + gradient
            value -= 0.1 * moved
        else:
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            unbiased = (mean / (1 - 0.9**step), square / (1 - 0.999**step))
            value -= 0.1 * unbiased[0] / (unbiased[1] ** 0.5 + 1e-8)
    return value


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_moves_a_parameter_as_its_equations_say(name: str) -> None:
    parameter = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    groups: list[dict[str, Any]] = [{"params": [parameter], "lr": 0.1, "weight_decay": 0.1}]
    optimizer = make_optimizer(groups, TrainSettings(**OWN[name]))
    gradients = [0.5, -0.2, 1.5, 0.1]
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    assert parameter.item() == pytest.approx(learned(name, gradients), abs=1e-12)


def rates(updates: int, **values: Any) -> list[float]:
    settings = TrainSettings(**values)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make_schedule(optimizer, settings, updates)
    found = []
    for _ in range(updates):
        found.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return found


FALLS: dict[str, Callable[[int], float]] = {
    "linear": lambda update: (12 - update) / 11,  # from the end of a warm-up of one update
    "inverse": lambda update: 1 / (1 + 0.05 * (update // 3)),
    "step": lambda update: 0.8 ** (update // 6),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_falls_as_its_equation_says_after_the_warm_up(name: str) -> None:
    """Four epochs of three updates."""
    expected = [min(1.0, FALLS[name](update)) for update in range(12)]
    assert rates(12, epochs=4, warmup=0.0, **OWN[name]) == pytest.approx(expected)
    rising = rates(12, epochs=4, warmup=0.25, **OWN[name])
    assert rising[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rising[3:] == sorted(rising[3:], reverse=True)
    assert rising[-1] == pytest.approx(1 / 9 if name == "linear" else expected[-1])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer": "adamm"}, r"optimizer 'adamm' is not one of adamw, adam, sgd; did you mean adam"),
        ({"schedule": "cosine"}, r"schedule 'cosine' is not one of linear, inverse, step"),
        ({"epochs": 2, "first_evaluation": 3}, r"the last of 2 epochs; .*\(--first-evaluation 2\)"),
        ({"momentum": 0.9}, r"momentum 0.9 is for optimizer = 'sgd', not 'adamw'; set it to 0 or"),
        ({"optimizer": "sgd", "momentum": 1.0}, "momentum must be at most 0.9999"),
        ({"decay": 0.05}, r"decay 0.05 is for schedule = 'inverse' or 'step', not 'linear'; set it to 0 or"),
        ({"schedule": "step", "decay": 1.0}, "decay must be below 1 with schedule = 'step', not 1.0"),
        ({"schedule": "inverse", "decay": -0.1}, "decay must be at least 0"),
        ({"step_epochs": 0}, "step_epochs must be at least 1"),
        ({"head_dropout": 1.0}, "head_dropout must be at most 0.99"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrainSettings(**values)


def stage_of(folder: Path, encoder: Path, trial: Trial, **recipe: Any) -> Train:
    run = RunFolder(folder)
    words = {"task": "ner", "tokens": ["ada", "sat"], "tags": ["B-PER", "O"]}
    rows = [
        {"id": f"{split}-{i}", "split": split, **words}
        for split, count in (("train", 8), ("valid", 2), ("test", 2))
        for i in range(count)
    ]
    write_table(run.samples, table_of(SAMPLES, rows))
    settings = {
        "epochs": 3,
        "batch_size": 2,
        "max_length": 16,
        "precision": "fp32",
        "device": "cpu",
        **recipe,
    }
    return Train(run, TrainSettings(encoder=str(encoder), **settings), "ner", trial)


def compute(stage: Train, when: Callable[[str], object] = lambda line: None) -> bytes:
    def say(line: str) -> None:
        when(line)

    stage.compute(stage.causes(), Tools(say=say, checkpoint_seconds=0))
    return (stage.place / "model.safetensors").read_bytes()


def cut_off(line: str) -> None:
    if "epoch 2 of 3" in line:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("optimizer", "schedule"), [("sgd", "inverse"), ("adam", "step")])
def test_a_killed_training_resumes_to_the_same_weights_with_each_optimizer_and_schedule(
    optimizer: str, schedule: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    recipe = {**OWN[optimizer], **OWN[schedule]}
    whole, stage = (stage_of(tmp_path / name, tiny_encoder, Trial("bert-crf"), **recipe) for name in "ab")
    with pytest.raises(KeyboardInterrupt):
        compute(stage, cut_off)
    said: list[str] = []
    assert compute(stage, said.append) == compute(whole)
    assert any("resuming after" in line for line in said)


def test_what_is_as_it_always_was_is_in_no_fingerprint(tmp_path: Path, tiny_encoder: Path) -> None:
    """A training from before there was a choice stays up to date; another choice is another training."""
    trial = Trial("bert-crf")
    parameters = stage_of(tmp_path, tiny_encoder, trial).parameters()
    new = {"word_learning_rate", "optimizer", "momentum", "schedule", "decay", "step_epochs", "head_dropout"}
    assert not new & parameters.keys()
    for name, value in OWN.items():
        if name not in ("adamw", "linear"):
            other = stage_of(tmp_path, tiny_encoder, trial, **value).parameters()
            assert {key: other[key] for key in other if parameters.get(key) != other[key]} == value


def test_the_dropout_before_the_classifier_is_the_recipes_where_it_names_one(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    for rate, options in ((-1.0, None), (0.0, {"head_dropout": 0.0}), (0.3, {"head_dropout": 0.3})):
        stage = stage_of(tmp_path / str(rate), tiny_encoder, Trial("bert-crf"), head_dropout=rate)
        compute(stage)
        assert json.loads((stage.place / "config.json").read_text()).get("options") == options
        assert load_system(stage.place).dropout.p == (rate if rate >= 0 else 0.1)
    assert RECIPES["mtb"]["re"].values["head_dropout"] == 0.5


@pytest.mark.parametrize(("name", "task"), [(n, task) for n, info in SYSTEMS.items() for task in info.tasks])
def test_every_system_has_a_published_recipe_of_sound_values(name: str, task: str) -> None:
    recipe = RECIPES[name][task]
    edited = TrainSettings(epochs=7, first_evaluation=7, optimizer="sgd", momentum=0.5, encoder="there")
    whole = replace(edited, max_length=99).of(Trial(name, recipe=AS_PUBLISHED), task, {})
    assert {key: getattr(whole, key) for key in recipe.values} == dict(recipe.values)
    assert (whole.max_length, whole.encoder) == (99, "there"), "not the recipe's to decide"
    assert whole == TrainSettings(encoder="there", max_length=99, **recipe.values), "something was kept"
    assert edited.of(Trial(name), task, {}) is edited
    assert recipe.source


def test_the_presets_hold_the_papers_recipe() -> None:
    for name, task in (("twitter2015", "ner"), ("mnre", "re")):
        settings = preset(name, task=task, text=Path(), images=None, format="auto").of(TrainSettings)
        assert settings.of(Trial("hmnet", recipe=AS_PUBLISHED), task, {}) == settings
        assert {key: getattr(settings, key) for key in PAPER[task]} == PAPER[task]


def test_a_recipe_that_is_not_published_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"no recipe of mtb is published for task 'ner'; leave out --recipe"):
        TrainSettings().of(Trial("mtb", recipe=AS_PUBLISHED), "ner", {})


def test_two_recipes_of_a_system_are_trained_beside_each_other_and_named_everywhere(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(RECIPES["bert-crf"]["ner"], values={"epochs": 1, "optimizer": "sgd", "batch_size": 4})
    monkeypatch.setitem(RECIPES, "bert-crf", {"ner": short})
    stage_of(tmp_path, tiny_encoder, Trial("bert-crf"))
    run = RunFolder(tmp_path)
    config = preset("custom", task="ner", text=tmp_path, images=None, format="jsonl")
    own = {"encoder": str(tiny_encoder), "epochs": 1, "max_length": 16, "precision": "fp32", "device": "cpu"}
    config.override("train", own).write(run.config)

    def train(*words: str) -> Any:
        return CliRunner().invoke(main, ["train", str(tmp_path), "--system", "bert-crf", *words])

    refused = train("--recipe", AS_PUBLISHED, "--batch-size", "2")
    assert refused.exit_code == 2
    assert "--batch-size and --recipe as-published cannot both be given" in refused.output
    for words in ((), ("--recipe", AS_PUBLISHED)):
        done = train(*words)
        assert done.exit_code == 0, done.output
    again = train("--recipe", AS_PUBLISHED)
    assert "up to date" in again.output
    config = RunConfig.read(run.config)
    assert config.of(TrainSettings).optimizer == "adamw", "run.toml is as it was"
    metrics = [
        json.loads((run.models / "bert-crf" / label / "metrics.json").read_text())
        for label in ("seed-1", f"seed-1-{AS_PUBLISHED}")
    ]
    assert [one.get("recipe") for one in metrics] == [None, AS_PUBLISHED]
    assert [line.split("  ")[0] for line in trials_table(metrics).splitlines()[2:]] == [
        "bert-crf",
        "bert-crf, as-published",
    ]
    states = {row.stage: row.state for row in run_status(run).stages if row.stage.startswith("train")}
    names = ["train-bert-crf-seed-1", f"train-bert-crf-seed-1-{AS_PUBLISHED}"]
    assert states == dict.fromkeys(names, "fresh")
    records = [stage_named(config, run, name).causes() for name in names]
    assert [record.parameters.get("optimizer") for record in records] == [None, "sgd"]


def test_a_recipe_of_the_runs_own_changes_some_keys_and_is_read_back(tmp_path: Path) -> None:
    config = preset("custom", task="ner", text=tmp_path, images=None, format="jsonl")
    config = replace(config, recipes={"few": {"batch_size": 2, "epochs": 40}})
    config.write(tmp_path / "run.toml")
    read = RunConfig.read(tmp_path / "run.toml")
    assert read == config
    settings = read.of(TrainSettings)
    few = settings.of(Trial("hmnet", recipe="few"), "ner", read.recipes)
    assert few == replace(settings, batch_size=2, epochs=40)
    with pytest.raises(
        InputError, match=r"--recipe 'fewer' is not one of run, as-published, few; did you mean"
    ):
        settings.of(Trial("hmnet", recipe="fewer"), "ner", read.recipes)
    TrainSettings.check_options(Trial("hmnet", recipe="few"), {"warmup": 0.2, "epochs": None}, read.recipes)
    with pytest.raises(
        InputError, match=r"--epochs and --recipe few cannot both be given: the recipe decides"
    ):
        TrainSettings.check_options(Trial("hmnet", recipe="few"), {"epochs": 3}, read.recipes)


@pytest.mark.parametrize(
    ("recipes", "words"),
    [
        (
            "[recipes.few]\nepoch = 3",
            r"run.toml: \[recipes.few\] the key 'epoch' is not one of .*mean epochs",
        ),
        ("[recipes.few]\nencoder = 'x'", r"\[recipes.few\] the key 'encoder' is not one of"),
        ("[recipes.few]\nepochs = 0", r"run.toml: \[recipes.few\]: \[train\] epochs must be at least 1"),
        ("[recipes.as-published]\nepochs = 1", r"run.toml: --recipe 'as-published' is not one of run"),
        ("[recipes]\nfew = 3", r"run.toml: recipes.few must be a table, \[recipes.few\] with"),
        ("recipes = 3", r"run.toml: \[recipes\] holds one table per recipe"),
    ],
)
def test_a_table_that_is_no_recipe_is_one_sentence(tmp_path: Path, recipes: str, words: str) -> None:
    path = tmp_path / "run.toml"
    preset("custom", task="ner", text=tmp_path, images=None, format="jsonl").write(path)
    text = path.read_text()
    path.write_text(f"{recipes}\n{text}" if recipes.startswith("recipes =") else f"{text}\n{recipes}\n")
    with pytest.raises(InputError, match=words):
        RunConfig.read(path)


def test_every_pair_of_optimizer_and_schedule_is_a_recipe() -> None:
    for optimizer, schedule in product(OPTIMIZERS, SCHEDULES):
        assert TrainSettings(**{**OWN[optimizer], **OWN[schedule]}).optimizer == optimizer
