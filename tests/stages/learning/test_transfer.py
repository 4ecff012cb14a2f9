"""Training that starts from a trained model: what goes over, what is new, and what does not fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hmnet_pipe.manifests.errors import HmnetPipeError
from hmnet_pipe.stages.learning.transfer import kept_options, source_of, take_over
from hmnet_pipe.stages.systems.batch import ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.system import System
from hmnet_pipe.stages.text.limits import MARKERS
from hmnet_pipe.stages.text.subwords import Subwords

FEATURES = {
    "backbone": "demo_resnet",
    "weights": "0",
    "transform": {"size": 8, "mean": [0.5], "std": [0.5], "interpolation": "BICUBIC"},
    "levels": [3, 6],
    "pooled": 2,
    "views": 4,
    "dtype": "float32",
}
LABELS = {"ner": ("O", "B-PER", "I-PER"), "re": ("None", "/per/per", "/per/loc")}
EMBEDDINGS = "encoder.embeddings.word_embeddings.weight"


def config_of(task: str, system: str = "hmnet", channels: tuple[int, ...] = (3, 6)) -> ModelConfig:
    return ModelConfig(system, task, LABELS[task], channels, "markers", 16, {}, FEATURES)


def new(task: str, encoder: Path, start: Path | None = None, system: str = "hmnet", seed: int = 1) -> System:
    """Return a new model as train builds it, before it takes anything over."""
    torch.manual_seed(seed)
    reader = Subwords.of_encoder(encoder, task) if start is None else Subwords.of_model(start).for_task(task)
    return new_system(encoder, config_of(task, system), reader)


def trained(task: str, encoder: Path, folder: Path, start: Path | None = None) -> System:
    """Return a model with weights of its own in `folder`."""
    model = new(task, encoder, start)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(
        folder, Subwords.of_encoder(encoder, task) if start is None else reader_of(start, task)
    )
    return model


def reader_of(start: Path, task: str) -> Subwords:
    return Subwords.of_model(start).for_task(task)


@pytest.mark.parametrize(("before", "after"), [("ner", "re"), ("re", "ner"), ("re", "re"), ("ner", "ner")])
def test_everything_goes_over_but_the_head_and_the_markers_rows_do(
    tiny_encoder: Path, tmp_path: Path, before: str, after: str
) -> None:
    source = trained(before, tiny_encoder, tmp_path / "a")
    model, fresh = (new(after, tiny_encoder, tmp_path / "a") for _ in range(2))
    take_over(model, tmp_path / "a")
    theirs, unmoved = source.state_dict(), fresh.state_dict()
    for name, value in model.state_dict().items():
        if model.is_head(name):
            assert torch.equal(value, unmoved[name]), f"{name} is not new"
            continue
        rows = len(theirs[name])
        assert torch.equal(value[:rows], theirs[name]), name
        assert torch.equal(value[rows:], unmoved[name][rows:])
        assert name == EMBEDDINGS or len(value) == rows
    words = len(Subwords.of_encoder(tiny_encoder, "ner").tokenizer)
    markers = len(MARKERS) if "re" in (before, after) else 0
    assert len(model.state_dict()[EMBEDDINGS]) == words + markers
    ids = reader_of(tmp_path / "a", after).tokenizer.convert_tokens_to_ids(list(MARKERS))
    assert not markers or ids == list(range(words, words + 4)), "the rows are those of the markers"


def test_markers_survive_the_way_through_a_model_of_entities(tiny_encoder: Path, tmp_path: Path) -> None:
    first = trained("re", tiny_encoder, tmp_path / "a")
    between = new("ner", tiny_encoder, tmp_path / "a")
    take_over(between, tmp_path / "a")
    between.save_pretrained(tmp_path / "b", reader_of(tmp_path / "a", "ner"))
    last = new("re", tiny_encoder, tmp_path / "b")
    take_over(last, tmp_path / "b")
    assert torch.equal(last.state_dict()[EMBEDDINGS], first.state_dict()[EMBEDDINGS])


def test_a_start_moves_no_random_number(tiny_encoder: Path, tmp_path: Path) -> None:
    trained("ner", tiny_encoder, tmp_path / "a")
    model = new("re", tiny_encoder, tmp_path / "a")
    state = torch.random.get_rng_state()
    take_over(model, tmp_path / "a")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_does_not_fit_is_one_sentence(tiny_encoder: Path, tiny_roberta: Path, tmp_path: Path) -> None:
    trained("ner", tiny_encoder, tmp_path / "a")
    with pytest.raises(HmnetPipeError, match=r"is a model of hmnet, not of umgf; give one of the same"):
        take_over(new("re", tiny_encoder, None, "umgf"), tmp_path / "a")
    model = new("re", tiny_encoder)
    model.config = replace(model.config, features={**FEATURES, "pooled": 1})
    with pytest.raises(HmnetPipeError, match=r"was trained on other features"):
        take_over(model, tmp_path / "a")
    with pytest.raises(HmnetPipeError, match=r"encoder of type bert, and the new model one of type roberta"):
        take_over(new("re", tiny_roberta), tmp_path / "a")
    wide = replace(config_of("ner"), encoder={})
    other = new_system(tiny_encoder, replace(wide, levels=(3, 7)), Subwords.of_encoder(tiny_encoder, "ner"))
    with pytest.raises(HmnetPipeError, match=r"has fusion.* of the shape .*; train with the encoder and the"):
        take_over(other, tmp_path / "a")
    for read in (kept_options, source_of):
        with pytest.raises(HmnetPipeError, match=r"holds no trained model"):
            read(tmp_path)


def test_a_source_is_named_by_its_task_and_labels(tiny_encoder: Path, tmp_path: Path) -> None:
    for task in ("ner", "re"):
        trained(task, tiny_encoder, tmp_path / task)
    names = [source_of(tmp_path / task) for task in ("ner", "re")]
    assert [name.split("-")[0] for name in names] == ["ner", "re"]
    assert names[0].split("-")[1] != names[1].split("-")[1]
