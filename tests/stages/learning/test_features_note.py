"""A system that is given another feature set than the one that it was made for says so."""

import re
from pathlib import Path

import pytest
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD, FeatureSpec, Transform
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.learning.fit import read_data
from hmnet_pipe.stages.learning.recipe import TrainingJob, TrainSettings

SPEC = FeatureSpec(
    "resnet50", "w" * 64, Transform(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear"), (2048,), 2, 4, "float16"
)


@pytest.mark.parametrize(
    ("system", "features", "note"),
    [
        ("umt", "", None),
        ("umt", "grid", None),
        ("umt", "pyramid", "umt reads pyramid, not grid, which it was made for: .* 4 views .*4 cells"),
        ("umgf", "coarse", "umgf reads coarse, not vector"),
        ("hmnet", "pyramid", None),
    ],
)
def test_a_training_on_another_set_says_what_the_system_sees(
    system: str, features: str, note: str | None, tiny_encoder: Path, tmp_path: Path
) -> None:
    row = {"id": "0", "split": "train", "task": "ner", "tokens": ["ada"], "tags": ["O"]}
    write_table(tmp_path / "samples.parquet", table_of(SAMPLES, [row]))
    recipe, said = TrainSettings(), list[str]()
    job = TrainingJob(
        "train",
        "train",
        "",
        "ner",
        Trial(system, features=features),
        recipe,
        recipe.rates,
        tiny_encoder,
        tmp_path / "samples.parquet",
        tmp_path / "run.toml",
        tmp_path / "model",
        tmp_path / "checkpoints",
        logs=None,
    )
    read_data(job, None, Tools(say=said.append), SPEC)
    notes = [line for line in said if "was made for" in line]
    assert bool(notes) == (note is not None)
    assert note is None or re.search(note, notes[0])
