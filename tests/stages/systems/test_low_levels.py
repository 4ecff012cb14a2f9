"""The gate and the low levels tell a fine texture: a share of the diagnostic corpus, without texts."""

import math

import numpy as np
import pytest
import torch
from hmnet_pipe.stages.demo.cues import PATTERNS, Picture, draw_picture
from hmnet_pipe.stages.demo.scenes import stream
from hmnet_pipe.stages.systems.fusion import VisualPrefix
from hmnet_pipe.stages.systems.variants import VARIANTS
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.pooling import pooled_and_joined
from hmnet_pipe.stages.vision.views import cut_views, normalise
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

pytestmark = pytest.mark.slow

TRAINED, HELD_OUT, STEPS, BATCH, RATE, HIDDEN = 320, 160, 200, 32, 2e-3, 256


@pytest.fixture(scope="module")
def textures() -> tuple[Tensor, Tensor]:
    """Return pyramids of the objects of textures, (N, 1, sum C_i, 2, 2), and the number of each pattern.

    The whole picture does not show the stripes, and is left out: with it a prefix takes three times as long.
    """
    backbone = build_backbone("demo_resnet", "default")
    transform = backbone.info.transform(112)
    pyramids = []
    for number in range(TRAINED + HELD_OUT):
        picture = Picture("texture", ("ball",), PATTERNS[number % 4])
        shown = draw_picture(picture, stream("test low levels", number))
        [(x0, y0, x1, y1)] = shown.boxes
        views = cut_views(shown.image, [(x0, y0, x1, y1)], transform)
        with torch.inference_mode():
            maps = backbone(normalise(torch.from_numpy(views), transform.mean, transform.std))
        pyramids.append(pooled_and_joined(maps, 2).numpy()[1:])
    return torch.from_numpy(np.stack(pyramids)), torch.arange(len(pyramids)) % 4


class Reader(nn.Module):
    """What a visual prefix says, read as simply as can be: the mean of its values."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        levels = build_backbone("demo_resnet", "default").info.levels
        self.prefix = VisualPrefix(levels=levels, layers=1, hidden=HIDDEN, heads=4, variant=VARIANTS[variant])
        self.head = nn.Sequential(nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, len(PATTERNS)))

    def forward(self, pyramids: Tensor) -> Tensor:
        [made] = self.prefix(pyramids, torch.ones(pyramids.shape[:2], dtype=torch.bool))
        assert made is not None
        scores: Tensor = self.head(made.values.mean(dim=2).flatten(1))
        return scores


def trained(variant: str, pyramids: Tensor, patterns: Tensor) -> tuple[Reader, float]:
    """Return a reader trained on the first pictures, and the share of the others that it gets right."""
    torch.manual_seed(0)
    reader = Reader(variant)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
    passes = [torch.randperm(TRAINED) for _ in range(math.ceil(STEPS * BATCH / TRAINED))]
    for members in torch.cat(passes).split(BATCH)[:STEPS]:
        loss = cross_entropy(reader(pyramids[members]), patterns[members])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        rate.step()
    with torch.inference_mode():
        right = reader(pyramids[TRAINED:]).argmax(dim=1) == patterns[TRAINED:]
    return reader, float(right.float().mean())


def test_the_gate_opens_for_level_1_where_a_texture_decides(textures: tuple[Tensor, Tensor]) -> None:
    reader, right = trained("hmnet", *textures)
    assert right > 0.7
    with torch.inference_mode():
        gates = reader.prefix.gates_of(textures[0][TRAINED:], torch.ones(HELD_OUT, 1, dtype=torch.bool))
    assert gates is not None
    assert gates[0][:, 0, 0].mean() > 0.4  # it began with a quarter


def test_level_4_alone_does_not_tell_a_texture(textures: tuple[Tensor, Tensor]) -> None:
    assert trained("hmnet-flat", *textures)[1] < 0.4  # 0.25 and more than 4 standard errors
