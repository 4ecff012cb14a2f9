"""The TOML file of a grid: what it means, and what is refused in one sentence."""

from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.experiment.cells import Experiment
from hmnet_pipe.pipeline.experiment.grid import SHIPPED, Block, Draw, grid_path, read_grid
from hmnet_pipe.stages.learning.recipe import TrainSettings

from ...running import begin

HEAD = '[data.x]\nrun = "x"\n'
PLAIN = '[trainings.a]\nsystems = ["bert-crf"]\n'


def grid_at(folder: Path, text: str) -> Path:
    path = folder / "grid.toml"
    path.write_text(text)
    return path


def candidates(search: dict[str, tuple[float, ...]], recipe: str = "run", **settings: Any) -> dict[str, Any]:
    block = Block("a", ("x",), ("hmnet",), recipe=recipe, search=search)
    return block.candidates(set(search), {**vars(TrainSettings()), **settings})


def test_values_to_choose_from_name_their_recipes() -> None:
    assert candidates({}) == {"run": {}}
    assert candidates({}, "few") == {"few": {}}
    assert list(candidates({"learning_rate": (1e-5, 2e-5, 1.5e-4, 0.1)}, "few")) == [
        "few_lr_1e5",
        "few_lr_2e5",
        "few_lr_15e5",
        "few_lr_1e1",
    ]
    both = candidates({"learning_rate": (1e-5, 2e-5), "epochs": (3, 30)})
    assert both == {
        "lr_1e5_epochs_3": {"learning_rate": 1e-5, "epochs": 3},
        "lr_1e5_epochs_30": {"learning_rate": 1e-5, "epochs": 30},
        "lr_2e5_epochs_3": {"learning_rate": 2e-5, "epochs": 3},
        "lr_2e5_epochs_30": {"learning_rate": 2e-5, "epochs": 30},
    }
    for recipe in both:
        assert Trial.named(Trial("hmnet", recipe=recipe).name) == Trial("hmnet", recipe=recipe)


def test_values_that_trainings_have_already_are_not_trained_under_a_second_name() -> None:
    found = candidates({"learning_rate": (1e-5, 3e-5)}, learning_rate=3e-5)
    assert found == {"lr_1e5": {"learning_rate": 1e-5}, "run": {"learning_rate": 3e-5}}


def test_draws_are_by_class_or_by_share_each_once() -> None:
    block = Block("a", ("x",), ("hmnet",), shots=(0, 5), percent=(10,), natural=(False, True))
    assert block.draws == [Draw(), Draw(5), Draw(5, natural=True), Draw(percent=10)]
    assert [str(draw) for draw in block.draws] == ["", "5 shots", "5 shots, natural share of nothing", "10%"]


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_the_grids_that_come_with_the_package_are_sound(path: Path) -> None:
    grid = read_grid(path)
    assert grid_path(Path(path.stem)) == path
    assert path.read_text().startswith("# ")
    assert grid.blocks


OTHER = '[trainings.b]\nsystems = ["hmnet"]\n'
WRONG = {
    "": "there is no run to train on; add a table",
    "data = 3": "data must hold tables",
    "[data.x]": r"\[data.x\] lacks `run`",
    '[data.x]\nruns = "x"': r"\[data.x\] the key 'runs' is not one of .*did you mean run",
    "[data.x]\nrun = 3": "data.x.run must be a text, not 3",
    '[data.x]\nrun = "x"\npublished = "Twitter-2016"': "'Twitter-2016' is not one of Twitter-2015",
    '[data.x]\nrun = "x"\n[data.x.train]\nepoch = 3': r"\[data.x.train\] the key 'epoch' is not one of",
    HEAD: "there is nothing to train; add a table",
    f"{HEAD}[trainings.a]": r"\[trainings.a\] lacks `systems`",
    f'{HEAD}[trainings.a]\nsystems = ["hmnett"]': r"'hmnett' is not one of .*did you mean hmnet",
    f'{HEAD}{PLAIN}data = "y"': r"trainings.a.data 'y' is not one of x",
    f"{HEAD}{PLAIN}seed = 1": r"\[trainings.a\] the key 'seed' is not one of .*did you mean seeds",
    f"{HEAD}{PLAIN}seeds = [1.5]": "trainings.a.seeds must be a whole number, not 1.5",
    f"{HEAD}{PLAIN}seeds = [true]": "trainings.a.seeds must be a whole number, not True",
    f"{HEAD}{PLAIN}seeds = [-1]": r"\[trainings.a\] seed must be a whole number from 0",
    f"{HEAD}{PLAIN}percent = 101": r"\[trainings.a\] percent must be a whole number from 0 to 100",
    f"{HEAD}{PLAIN}search = {{ rate = [1] }}": r"search 'rate' is not one of",
    f"{HEAD}{PLAIN}search = {{ learning_rate = 1e-5 }}": "search.learning_rate must be a list of numbers",
    f"{HEAD}{PLAIN}search = {{ learning_rate = [nan] }}": "search.learning_rate must be a list of numbers",
    f'{HEAD}{PLAIN}recipe = "as-published"\nsearch = {{ epochs = [1] }}': "nothing to search",
    f"{HEAD}{PLAIN}[recipes.few]\nepoch = 3": r"\[recipes.few\] the key 'epoch' is not one of",
    f'{HEAD}{PLAIN}against = "b"': r"trainings.a: the table 'b' is not one of",
    f'{HEAD}{PLAIN}start = "a"': r"trainings.a: the table 'a' is not one of",
    f'{HEAD}{PLAIN}{OTHER}start = "a"\nstart_data = "y"': r"trainings.b.start_data 'y' is not one of x",
    f'{HEAD}{PLAIN}shots = [1]\n{OTHER}start = "a"': r"\[trainings.b\] start: a draws .* name a table",
    f'{HEAD}{PLAIN}{OTHER}start = "a"': r"\[trainings.b\] systems: hmnet is not among .* add it there",
    "[data": "is not valid TOML",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_grid_that_is_wrong_is_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=WRONG[text]) as caught:
        read_grid(grid_at(tmp_path, text))
    assert "grid.toml" in str(caught.value)


def test_a_grid_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"grid 'table2' is not one of .*did you mean table1"):
        grid_path(Path("table2"))
    with pytest.raises(InputError, match=r"grid.toml cannot be read"):
        read_grid(tmp_path / "grid.toml")


def test_what_the_runs_decide_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path / "x", tmp_path)
    unknown = grid_at(tmp_path, f'{HEAD}{PLAIN}recipe = "few"')
    with pytest.raises(InputError, match=r"trainings.a.recipe 'few' is not one of run, as-published"):
        _ = Experiment(read_grid(unknown)).rows
    other_task = grid_at(tmp_path, f'{HEAD}[trainings.a]\nsystems = ["mtb"]')
    with pytest.raises(InputError, match="mtb"):
        _ = Experiment(read_grid(other_task)).rows
    with pytest.raises(InputError, match=r"--data y: .*grid.toml has only x"):
        Experiment(read_grid(grid_at(tmp_path, HEAD + PLAIN)), ("y",))


def test_only_the_rates_that_a_system_reads_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path / "x", tmp_path)
    block = "systems = ['bert-crf', 'hbilstm-crf']\nsearch = { learning_rate = [1e-5, 2e-5] }"
    experiment = Experiment(read_grid(grid_at(tmp_path, f"{HEAD}[trainings.a]\n{block}")))
    assert [list(row.candidates) for row in experiment.rows] == [["lr_1e5", "lr_2e5"], ["run"]]
    assert set(experiment.recipes("x")) == {"lr_1e5", "lr_2e5"}
