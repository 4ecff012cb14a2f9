"""Each setting has its range in one place, and is checked there wherever its value comes from."""

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from click.testing import CliRunner
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import MOST_SEED, Trial
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.reproduce.reproduce import reproduce
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.graph import SETTINGS
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.learning.recipe import TrainSettings

NUMBERS = [
    (table, each)
    for table, settings in SETTINGS.items()
    for each in fields(settings)
    if each.type in (int, float)
]
WRONG: list[tuple[str, str, Any, str]] = [
    ("train", "learning_rate", math.nan, "a finite number"),
    ("train", "head_learning_rate", math.inf, "a finite number"),
    ("train", "fusion_learning_rate", -1e-4, "at least 0"),
    ("train", "weight_decay", -0.1, "at least 0"),
    ("train", "warmup", 1.5, "at most 1"),
    ("train", "clip_norm", -1.0, "at least 0"),
    ("train", "epochs", 10**26, "at most"),
    ("train", "max_length", 7, "at least 8"),
    ("train", "relation_head", "marker", "markers"),
    ("train", "encoder", "a" * 5000, "letters long"),
    ("detect", "min_score", 1.01, "at most 1"),
    ("detect", "min_score", -0.01, "at least 0"),
    ("detect", "objects", 101, "at most 100"),
    ("extract", "size", 100_000, "at most"),
    ("extract", "pooled", 999, "at most"),
    ("extract", "dtype", "int8", "float16"),
    ("finetune", "backbone_learning_rate", -math.inf, "a finite number"),
    ("finetune", "unfreeze", 6, "at most 5"),
]


def by_python(table: str, key: str, value: Any, folder: Path) -> None:
    SETTINGS[table](**{key: value})


def by_a_changed_configuration(table: str, key: str, value: Any, folder: Path) -> None:
    config(folder).override(table, {key: value})


def by_run_toml(table: str, key: str, value: Any, folder: Path) -> None:
    config(folder).write(folder / "run.toml")
    document = tomlkit.parse((folder / "run.toml").read_text())
    document[table][key] = value
    (folder / "run.toml").write_text(tomlkit.dumps(document))
    with pytest.raises(InputError, match=r"run\.toml: "):
        RunConfig.read(folder / "run.toml")
    RunConfig.read(folder / "run.toml")


def by_a_lock(table: str, key: str, value: Any, folder: Path) -> None:
    lock = {
        "format": 2,
        "task": "ner",
        "config": {table: {key: value}},
        "data": {"images": {"usable": 0, "digest": "0"}},
        "stages": {},
        "environments": {},
    }
    (folder / "a.lock").write_text(tomlkit.dumps(lock))
    reproduce(folder / "a.lock", RunFolder(folder / "run"), text=folder, images=None, tools=SILENT)


def config(folder: Path) -> RunConfig:
    return preset("custom", task="ner", text=folder, images=None, format="auto")


@pytest.mark.parametrize("given", [by_python, by_a_changed_configuration, by_run_toml, by_a_lock])
@pytest.mark.parametrize(("table", "key", "value", "words"), WRONG)
def test_a_setting_out_of_its_range_is_refused_wherever_it_comes_from(
    tmp_path: Path, given: Callable[..., None], table: str, key: str, value: Any, words: str
) -> None:
    with pytest.raises(InputError, match=rf"\[{table}\] {key}.*{words}") as caught:
        given(table, key, value, tmp_path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("table", "each"), NUMBERS, ids=lambda one: getattr(one, "name", one))
def test_every_number_among_the_settings_has_a_range_and_its_bounds_are_inside(table: str, each: Any) -> None:
    least, most = each.metadata["at_least"], each.metadata["at_most"]
    assert least is not None
    assert most is not None or each.type is float
    others: dict[str, Any] = {"epochs": 100_000} if each.name == "first_evaluation" else {}
    others |= {"optimizer": "sgd"} if each.name == "momentum" else {}
    others |= {"text": Path("texts"), "task": "ner"} if table == "prepare" else {}
    for bound, step in ((least, -1), (most, 1)):
        if bound is not None:
            SETTINGS[table](**{**others, each.name: each.type(bound)})
            with pytest.raises(InputError, match=each.name):
                SETTINGS[table](**{**others, each.name: each.type(bound + step)})
    for value in ("1", True, None, [1]):
        with pytest.raises(InputError, match=rf"{each.name} must be a"):
            SETTINGS[table](**{**others, each.name: value})


def test_a_whole_number_where_a_float_belongs_is_that_float() -> None:
    found = TrainSettings(learning_rate=1)  # a fingerprint tells 1 from 1.0
    assert type(found.learning_rate) is float
    assert found == TrainSettings(learning_rate=1.0)
    with pytest.raises(InputError, match="finite"):
        TrainSettings(learning_rate=10**400)


def test_a_text_with_nul_is_no_path_and_no_name(tmp_path: Path) -> None:
    for table, key in (
        ("prepare", "text"),
        ("prepare", "images"),
        ("train", "encoder"),
        ("detect", "weights"),
    ):
        values = {"text": str(tmp_path)} if table == "prepare" else {}
        tables = {"prepare": {"text": str(tmp_path)}, table: {**values, key: "a\0b"}}
        with pytest.raises(InputError, match=rf"\[{table}\] {key} holds a NUL character"):
            RunConfig.of_values({"task": "ner", **tables}, Path("run.toml"))


@pytest.mark.parametrize("name", ["a" * 300, "~nobody-of-this-name/encoder"])
def test_a_name_that_cannot_be_a_path_is_a_name(tmp_path: Path, name: str) -> None:
    from hmnet_pipe.stages.base.settings import local_files

    assert local_files(TrainSettings(encoder=name)) == {}


@pytest.mark.parametrize("name", ["twitter2051", "", 3, ["demo"]])
def test_a_preset_in_run_toml_that_is_no_preset_is_refused(tmp_path: Path, name: Any) -> None:
    values = {"preset": name, "task": "ner", "prepare": {"text": str(tmp_path)}}
    with pytest.raises(InputError, match=r"run\.toml: preset .* is not one of custom, twitter2015"):
        RunConfig.of_values(values, tmp_path / "run.toml")


@pytest.mark.parametrize("seed", [-1, MOST_SEED + 1, 1.0, "1", True])
@pytest.mark.parametrize("name", ["seed", "subset_seed", "shots"])
def test_a_seed_is_a_whole_number_that_every_generator_takes(name: str, seed: Any) -> None:
    with pytest.raises(InputError, match=rf"{name.replace('_', '-')} must be a whole number from 0 to"):
        Trial("hmnet", **{name: seed})


def test_a_folder_whose_name_has_a_seed_that_is_none_is_no_trial(tmp_path: Path) -> None:
    for digits in ("-1", str(MOST_SEED + 1), "9" * 5000, "\u0661"):
        assert Trial.of(tmp_path / f"models/hmnet/seed-{digits}") is None
        assert Trial.named(f"hmnet-seed-{digits}") is None
    trial = Trial("hmnet", MOST_SEED, 5, MOST_SEED)
    assert Trial.named(trial.name) == trial


@pytest.mark.parametrize(
    "options",
    [
        ["train", "--learning-rate", "nan"],
        ["train", "--warmup", "2"],
        ["train", "--seeds", "-1"],
        ["train", "--seed", str(2**63)],
        ["train", "--shots", "5", "--subset-seed", "-3"],
        ["detect", "--min-score", "inf"],
        ["extract", "--size", "100000"],
        ["verify", "--rerun", "nan"],
        ["train", "--checkpoint-seconds", "nan"],
    ],
)
def test_an_option_out_of_its_range_is_one_sentence_and_changes_nothing(
    tmp_path: Path, options: list[str]
) -> None:
    config(tmp_path).write(tmp_path / "run.toml")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    command, *words = options
    done = CliRunner().invoke(main, [command, str(tmp_path), *words])
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 2, done.output
    assert done.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
