"""The systems by name: known without torch, built and opened by what their configuration says."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hmnet_pipe import HMNeT
from hmnet_pipe.manifests.errors import InputError, WeightsError
from hmnet_pipe.stages.learning.optimizer import parameter_groups
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.systems.batch import ModelConfig
from hmnet_pipe.stages.systems.build import build_system, new_system
from hmnet_pipe.stages.systems.folder import load_system
from hmnet_pipe.stages.systems.hmnet import HMNeT as HMNeTClass
from hmnet_pipe.stages.systems.registry import SYSTEMS, WORDS, system_for, system_info
from hmnet_pipe.stages.systems.system import System
from hmnet_pipe.stages.systems.text_only import TextOnly
from hmnet_pipe.stages.text.encoders.bert import load_tokenizer
from hmnet_pipe.stages.text.reader import TextReader
from hmnet_pipe.stages.text.subwords import Subwords
from hmnet_pipe.stages.text.vocabulary import Words

from ...words import VOCABULARY


def config_of(name: str) -> ModelConfig:
    info = SYSTEMS[name]
    labels = ("O", "B-PER", "I-PER") if info.tasks[0] == "ner" else ("None", "/per/loc")
    levels = (3, 5, 2, 4) if info.reads else ()
    encoder = {"word_dim": 8} if info.text == WORDS else {}
    seen = info.objects or "scenes" in info.graphs
    of_objects = {"object_labels": ["bus"], "predicates": ["overlaps"], "objects": 3} if seen else {}
    options = {**info.options, **of_objects}
    return ModelConfig(name, info.tasks[0], labels, levels, "markers", 32, encoder, None, options)


def reader_of(name: str, encoder: Path) -> TextReader:
    return Words(VOCABULARY) if SYSTEMS[name].text == WORDS else Subwords(load_tokenizer(encoder))


def test_the_systems_are_known_without_torch() -> None:
    program = (
        "import sys; from hmnet_pipe.stages.systems.registry import SYSTEMS; assert SYSTEMS; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_built_saved_and_opened_by_its_name(
    name: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    reader = reader_of(name, tiny_encoder)
    model = new_system(tiny_encoder, config_of(name), reader)
    assert isinstance(model, System)
    model.save_pretrained(tmp_path, reader)
    assert json.loads((tmp_path / "config.json").read_text())["system"] == name
    opened = load_system(tmp_path)
    assert type(opened) is type(model)
    assert json.loads(json.dumps(vars(opened.config))) == json.loads(json.dumps(vars(model.config)))
    assert not opened.training
    state = opened.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    if not isinstance(model, HMNeTClass):
        with pytest.raises(WeightsError, match=f"holds a {name}; open it with `load_system`"):
            HMNeT.from_pretrained(tmp_path)
    else:
        assert HMNeT is HMNeTClass
        assert isinstance(HMNeT.from_pretrained(tmp_path), HMNeTClass)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hmnett", r"'hmnett' is not one of hmnet, .*mtb.*; did you mean hmnet\?"),
        ("bert_crf", r"did you mean bert-crf\?"),
        ("zzz", "is not one of .*mtb"),
    ],
)
def test_an_unknown_system_lists_the_known_ones_and_guesses_which_was_meant(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        system_info(name)
    with pytest.raises(InputError, match=words):
        system_for(name, "ner")


def test_a_system_of_the_other_task_is_refused_with_those_that_fit() -> None:
    with pytest.raises(InputError, match=r"'mtb' is not one of those for task 'ner': hmnet, .*, bert-crf"):
        system_for("mtb", "ner")
    assert {name for name in SYSTEMS if SYSTEMS[name].reads} <= {
        name for name in SYSTEMS if SYSTEMS[name].is_visual
    }
    assert not SYSTEMS["bert-crf"].is_visual
    assert not SYSTEMS["mtb"].is_visual


def test_a_system_says_itself_which_of_its_parts_learn_at_which_rate(tiny_encoder: Path) -> None:
    """A part that is named gets that rate, whether the optimizer has heard of it or not; the rest is the
    head.
    """

    class Other(TextOnly):
        parts: ClassVar[Mapping[str, str]] = {**TextOnly.parts, "graph": "fusion"}

    encoder = new_system(tiny_encoder, config_of("bert-crf")).encoder
    model = Other(config_of("bert-crf"), encoder)
    model.graph = torch.nn.Linear(2, 3)
    settings = TrainSettings()
    groups = parameter_groups(model, settings.rates, settings.weight_decay)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert rate[id(model.graph.weight)] == settings.fusion_learning_rate
    assert rate[id(model.classifier.weight)] == settings.head_learning_rate
    assert rate[id(next(model.encoder.parameters()))] == settings.learning_rate


def test_a_new_systems_text_side_starts_from_the_same_numbers_whatever_its_visual_side(
    tiny_encoder: Path,
) -> None:
    encoder = new_system(tiny_encoder, config_of("bert-crf")).encoder
    made = []
    for name in ("bert-crf", "hmnet", "hmnet-1v3"):
        torch.manual_seed(5)
        made.append((build_system(config_of(name), encoder).classifier.weight.clone(), torch.rand(1)))
    for weight, drawn in made[1:]:
        assert torch.equal(weight, made[0][0])
        assert torch.equal(drawn, made[0][1]), "the generator that dropout draws from has moved"
