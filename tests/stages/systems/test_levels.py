"""HMNeT and its variants on pyramids of any number of levels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.variants import VARIANTS

from ...rigs import text_with

WIDTHS = (5, 3, 8, 2, 6)
LAYERS = 4  # of the tiny encoder


def model_of(encoder: Path, system: str, levels: int) -> Any:
    config = ModelConfig(system, "ner", ("O", "B-PER", "I-PER"), WIDTHS[:levels], "markers", 64, {}, None)
    torch.manual_seed(0)
    return new_system(encoder, config).eval()


def batch_of(levels: int) -> Batch:
    views = torch.randn(1, 3, sum(WIDTHS[:levels]), 2, 2, generator=torch.Generator().manual_seed(1))
    return text_with(views, torch.tensor([[True, True, False]]))


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
@pytest.mark.parametrize("system", [name for name in VARIANTS if VARIANTS[name].routing == "gate"])
def test_a_gate_chooses_among_as_many_levels_as_there_are(
    system: str, levels: int, tiny_encoder: Path
) -> None:
    model, batch = model_of(tiny_encoder, system, levels), batch_of(levels)
    model.loss(batch).backward()
    gates = model.explain(batch).gates
    assert gates.shape[0] == LAYERS
    assert gates.shape[-1] == levels
    torch.testing.assert_close(gates.sum(-1), torch.ones(gates.shape[:-1]))
    assert model.gated_levels == (levels if levels > 1 else 0)  # of one level nothing is left to look at
    for level in range(model.gated_levels):
        with model.without_level(level):
            closed = model.explain(batch).gates
            assert model(batch).isfinite().all()
        assert not closed[..., level].any()
        torch.testing.assert_close(closed.sum(-1), torch.ones(gates.shape[:-1]))


@pytest.mark.parametrize(
    ("levels", "expected"), [(1, [0, 0, 0, 0]), (2, [0, 0, 1, 1]), (3, [0, 0, 1, 2]), (4, [0, 1, 2, 3])]
)
def test_blocks_of_layers_share_the_levels_from_fine_to_coarse(
    levels: int, expected: list[int], tiny_encoder: Path
) -> None:
    model, batch = model_of(tiny_encoder, "hmnet-1v3", levels), batch_of(levels)
    assert model.fusion.level_of_layer == expected
    model.loss(batch).backward()
    assert all(weight.grad is not None for weight in model.fusion.parameters())
    for system in ("hmnet-flat", "hmnet-single"):
        last = model_of(tiny_encoder, system, levels)
        assert set(last.fusion.level_of_layer) == {levels - 1}
        assert last(batch).isfinite().all()


def test_more_levels_than_layers_cannot_be_in_blocks(tiny_encoder: Path) -> None:
    with pytest.raises(
        InputError, match=r"hmnet-1v3 gives each level a layer .* 5 levels and 4 layers; train"
    ):
        model_of(tiny_encoder, "hmnet-1v3", 5)
