"""Every type of encoder that takes a visual prefix, as a small network with random weights."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hmnet_pipe.manifests.errors import WeightsError
from hmnet_pipe.stages.text.encoders.attention import Pass
from hmnet_pipe.stages.text.encoders.bert import encode, encoder_from_config, load_encoder, longest_text
from hmnet_pipe.stages.text.encoders.families import FAMILIES, REFUSED, attention_width, value_of
from hmnet_pipe.stages.text.prefix import LayerPrefix
from torch import Tensor, nn
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from ...families import HEADS, LAYERS, config_of

CELLS, LENGTHS = 5, (9, 4)


@pytest.fixture(params=FAMILIES, scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an encoder of the type, as save_pretrained writes it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: Any = encoder_from_config(config_of(request.param))
        for parameter in made.parameters():
            if parameter.dim() > 1:  # those of a new network are too small to tell layers apart
                nn.init.normal_(parameter, 0.0, 0.2)  # that of the padding too, as in public encoders
    path = tmp_path_factory.mktemp("families") / request.param
    made.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def encoder(folder: Path) -> nn.Module:
    return load_encoder(folder).eval()


def texts() -> tuple[Tensor, Tensor]:
    """Return the ids of two texts, of which the second is padded, and their mask."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 30, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return ids.masked_fill(~mask, 1), mask.long()


def prefixes_of(encoder: nn.Module, seed: int = 0) -> list[LayerPrefix]:
    config: Any = encoder.config
    generator = torch.Generator().manual_seed(seed)
    shape = (2, LAYERS, len(LENGTHS), HEADS, CELLS, attention_width(config) // HEADS)
    keys, values = torch.randn(shape, generator=generator)
    mask = torch.ones(len(LENGTHS), CELLS, dtype=torch.bool)
    return [LayerPrefix(key, value, mask) for key, value in zip(keys, values, strict=True)]


def masked(prefix: LayerPrefix) -> LayerPrefix:
    return LayerPrefix(prefix.keys, prefix.values, torch.zeros_like(prefix.mask))


def distance(first: Tensor, second: Tensor, mask: Tensor) -> float:
    """Return how far apart the states of two passes are at most, where there is text."""
    return float((first - second)[mask.bool()].abs().max())


@torch.inference_mode()
def test_each_layer_takes_its_own_prefix_once(encoder: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[LayerPrefix | None] = []
    take = Pass.take

    def noted(running: Pass) -> LayerPrefix | None:
        taken.append(take(running))
        return taken[-1]

    monkeypatch.setattr(Pass, "take", noted)
    prefixes = prefixes_of(encoder)
    ids, mask = texts()
    plain, all_layers = encode(encoder, ids, mask, None), encode(encoder, ids, mask, prefixes)
    assert taken == prefixes
    assert distance(plain, all_layers, mask) > 1e-2
    for layer in range(LAYERS):
        one = encode(encoder, ids, mask, [prefixes[i] if i == layer else None for i in range(LAYERS)])
        assert distance(plain, one, mask) > 1e-3
        assert distance(all_layers, one, mask) > 1e-3


@torch.inference_mode()
def test_plain_text_is_what_transformers_makes_of_it(encoder: nn.Module, folder: Path) -> None:
    theirs = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    ids, mask = texts()
    ids, mask = ids[:1], mask[:1]
    expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
    assert distance(encode(encoder, ids, mask, None), expected, mask) < 1e-5


@torch.inference_mode()
def test_a_prefix_that_is_masked_altogether_is_plain_text(encoder: nn.Module) -> None:
    prefixes = [masked(prefix) for prefix in prefixes_of(encoder)]
    ids, mask = texts()
    assert distance(encode(encoder, ids, mask, prefixes), encode(encoder, ids, mask, None), mask) < 1e-5


@torch.inference_mode()
def test_masked_cells_have_no_influence(encoder: nn.Module) -> None:
    ids, mask = texts()
    closed = torch.arange(CELLS).expand(len(LENGTHS), -1) < 3
    first, second = (
        [
            LayerPrefix(
                torch.where(closed[:, None, :, None], layer.keys, other.keys),
                torch.where(closed[:, None, :, None], layer.values, other.values),
                closed,
            )
            for layer, other in zip(prefixes_of(encoder), prefixes_of(encoder, seed), strict=True)
        ]
        for seed in (0, 2)
    )
    assert distance(encode(encoder, ids, mask, first), encode(encoder, ids, mask, second), mask) < 1e-5


@torch.inference_mode()
def test_padding_has_no_influence(encoder: nn.Module) -> None:
    ids, mask = texts()
    prefixes, length = prefixes_of(encoder), LENGTHS[1]
    alone = [LayerPrefix(one.keys[1:], one.values[1:], one.mask[1:]) for one in prefixes]
    for seen, of_one in ((None, None), (prefixes, alone)):
        together = encode(encoder, ids, mask, seen)[1:, :length]
        single = encode(encoder, ids[1:, :length], mask[1:, :length], of_one)
        assert distance(together, single, mask[1:, :length]) < 1e-5


@torch.inference_mode()
def test_the_attention_to_the_prefix_is_that_of_the_pass(encoder: nn.Module) -> None:
    ids, mask = texts()
    prefixes = prefixes_of(encoder)
    shares: dict[int, Tensor] = {}
    noted = encode(encoder, ids, mask, [*prefixes[:-1], None], attention_to_prefix=shares)
    assert distance(noted, encode(encoder, ids, mask, [*prefixes[:-1], None]), mask) == 0
    assert sorted(shares) == list(range(LAYERS - 1))
    for share in shares.values():
        assert share.shape == (len(LENGTHS), HEADS, max(LENGTHS), CELLS)
        total = share.sum(-1)
        assert ((total > 0) & (total < 1))[mask.bool()[:, None].expand_as(total)].all()


def test_an_encoder_is_the_same_when_it_is_loaded_again(encoder: nn.Module, tmp_path: Path) -> None:
    saved: Any = encoder
    saved.save_pretrained(tmp_path)
    filled = encoder_from_config(saved.config.to_dict()).eval()  # as a model's folder is opened
    filled.load_state_dict(encoder.state_dict())
    ids, mask = texts()
    with torch.inference_mode():
        here = encode(encoder, ids, mask, prefixes_of(encoder))
        for loaded in (load_encoder(tmp_path).eval(), filled, deepcopy(encoder)):
            assert torch.equal(encode(loaded, ids, mask, prefixes_of(encoder)), here)


def test_a_step_of_training_in_bf16_reaches_prefix_and_encoder(encoder: nn.Module) -> None:
    model = deepcopy(encoder).train()
    ids, mask = texts()
    prefixes = prefixes_of(encoder)
    for prefix in prefixes:
        prefix.keys.requires_grad_()
        prefix.values.requires_grad_()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        states = encode(model, ids, mask, prefixes)
        exact = encode(encoder, ids, mask, None)
        loss = states[mask.bool()].float().square().mean()
    loss.backward()
    optimizer.step()
    assert exact.isfinite().all()
    assert all(p.keys.grad is not None and p.keys.grad.abs().sum() > 0 for p in prefixes)
    assert all(p.values.grad is not None and p.values.grad.abs().sum() > 0 for p in prefixes)
    assert all(p.isfinite().all() for p in model.parameters())
    with torch.inference_mode():
        assert distance(encode(model.eval(), ids, mask, prefixes), encode(encoder, ids, mask, prefixes), mask)


@torch.inference_mode()
def test_states_in_bf16_are_near_those_in_fp32(encoder: nn.Module) -> None:
    ids, mask = texts()
    exact = encode(encoder, ids, mask, prefixes_of(encoder))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encode(encoder, ids, mask, prefixes_of(encoder)).float()
    assert distance(exact, rounded, mask) < 0.1 * float(exact.abs().max())


def test_what_systems_ask_of_a_configuration_is_there(encoder: nn.Module) -> None:
    asked: Any = encoder
    assert 0 <= value_of(asked.config, "hidden_dropout_prob") < 1
    assert value_of(asked.config, "intermediate_size") == 24
    assert 0 < value_of(asked.config, "layer_norm_eps") < 1e-3
    assert value_of(asked.config, "hidden_size") == 32
    assert longest_text(encoder) in (38, 40)  # those of RoBERTa start after the padding's
    asked = deepcopy(asked)
    asked.resize_token_embeddings(34, mean_resizing=False)
    assert asked.config.vocab_size == asked.get_input_embeddings().num_embeddings == 34


@pytest.mark.parametrize("kind", REFUSED)
def test_a_type_that_takes_no_prefix_is_refused_with_its_reason(tmp_path: Path, kind: str) -> None:
    assert kind not in FAMILIES
    assert kind in CONFIG_MAPPING_NAMES
    with pytest.raises(WeightsError) as refused:
        encoder_from_config({"model_type": kind})
    assert str(refused.value).startswith(f"{kind} is not an encoder that takes a prefix ({REFUSED[kind]})")


def test_a_text_for_no_adapter_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"no default_language.* set it to one of en_XX, de_DE"):
        encoder_from_config({**config_of("xmod"), "default_language": None})


def test_mixed_heads_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"talking_head.* use an encoder without"):
        encoder_from_config({**config_of("bert"), "talking_head": True})
