"""What the table of docs/backbones.md says that ran: extract, a step of training, and one end to end."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hmnet_pipe.cache.shards import Shard
from hmnet_pipe.stages.base.arithmetic import Arithmetic
from hmnet_pipe.stages.demo.scenes import draw_scene, stream
from hmnet_pipe.stages.extract.unit import ShardUnit, Target
from hmnet_pipe.stages.extract.work import extract_shard
from hmnet_pipe.stages.systems.batch import ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.end_to_end import EndToEnd
from hmnet_pipe.stages.vision.backbones import backbone_info
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.backbones.families import FAMILIES, OF_TIMM, OF_TORCHVISION
from hmnet_pipe.stages.vision.plan import ImageUnit
from hmnet_pipe.stages.vision.sets import PYRAMID
from hmnet_pipe.stages.vision.views import read_views

from ...backbones import save_backbone, save_timm
from ...rigs import text_with

SMALLEST = {
    "resnet": "resnet18",
    "resnext": "resnext50_32x4d",
    "wide_resnet": "wide_resnet50_2",
    "convnext": "convnext_tiny",
    "efficientnet": "efficientnet_b0",
    "regnet": "regnet_y_400mf",
    "swin": "swin_t",
    "vgg": "vgg11_bn",
}
PLAIN = Arithmetic("cpu", "fp32", "torch")
LABELS = ("O", "B-PER", "I-PER")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> ImageUnit:
    path = tmp_path_factory.mktemp("images") / "ball.png"
    draw_scene(["ball"], stream("test other eyes", 0))[0].save(path)
    return ImageUnit(hashlib.sha256(path.read_bytes()).hexdigest(), str(path), ((8.0, 4.0, 60.0, 90.0),))


@pytest.mark.parametrize(
    "name", [*OF_TORCHVISION, *(f"timm:{name}" for name in OF_TIMM), *(f"hf:{name}" for name in FAMILIES)]
)
def test_every_kind_is_extracted_and_trained_on(
    name: str, image: ImageUnit, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision's also end to end, from pixels to the same features and a gradient in its last stage."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kind, _, own = name.partition(":")
    outside = name not in OF_TORCHVISION
    backbone, choice = SMALLEST.get(name, ""), "random"
    if outside:
        save = save_timm if kind == "timm" else save_backbone
        backbone, choice = f"{kind}:{save(tmp_path / 'eyes', own)}", "default"
    info = backbone_info(backbone, choice)
    spec = PYRAMID.spec(info, 64, weights="w", objects=1, dtype="float32", precision="fp32")
    target = Target(spec, choice, str(tmp_path / "features"), "00000", backbone)
    (result,) = extract_shard(ShardUnit((target,), PLAIN, (image,)))
    assert not result.failed
    features = torch.from_numpy(np.array(Shard(target.path).pyramid))
    assert features.shape == (1, *spec.row_shape)
    assert features.isfinite().all()
    assert features.std() > 0

    config = ModelConfig("hmnet", "ner", LABELS, spec.levels, "markers", 64, {}, None)
    torch.manual_seed(0)
    model = new_system(tiny_encoder, config).eval()
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss = model.loss(text_with(features, mask))
    loss.backward()
    gates = [gate.weight.grad for gate in model.fusion.gates]
    assert all(grad is not None and grad.shape == (len(info.levels), 32) and grad.any() for grad in gates)
    if outside:
        return
    pixels = torch.from_numpy(read_views(image, spec.transform))[None]
    with torch.random.fork_rng():
        end_to_end = EndToEnd(model, build_backbone(backbone, choice), spec.pooled, unfreeze=1).eval()
    batch = text_with(pixels, mask)
    torch.testing.assert_close(end_to_end.with_features(batch).views, features, rtol=1e-4, atol=1e-4)
    again = end_to_end.loss(batch)
    again.backward()
    torch.testing.assert_close(again, loss, rtol=1e-4, atol=1e-4)
    parts = end_to_end.backbone.parts
    assert all(weight.grad is not None for module in parts[-1] for weight in module.parameters())
    assert all(weight.grad is None for module in parts[0] for weight in module.parameters())


def test_every_family_of_torchvision_has_a_smallest_network() -> None:
    assert tuple(SMALLEST) == OF_TORCHVISION
