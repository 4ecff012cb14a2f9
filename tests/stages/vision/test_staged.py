"""torchvision's networks that are cut into levels: VGG, ConvNeXt, Swin, EfficientNet and RegNet."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hmnet_pipe.manifests.errors import WeightsError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.stages.base.arithmetic import Arithmetic, processor_name, system_name
from hmnet_pipe.stages.extract.settings import ExtractSettings
from hmnet_pipe.stages.extract.stage import Extract
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from torchvision.models.feature_extraction import create_feature_extractor

# Where torchvision's own graph has the last map at 1/4, 1/8, 1/16 and 1/32 of the pixels.
NODES = {
    "convnext_tiny": [f"features.{i}" for i in (1, 3, 5, 7)],
    "efficientnet_b0": [f"features.{i}" for i in (2, 3, 5, 7)],
    "regnet_y_400mf": [f"trunk_output.block{i}" for i in (1, 2, 3, 4)],
    "swin_t": [f"features.{i}" for i in (1, 3, 5, 7)],
    "vgg11_bn": [f"features.{i}" for i in (13, 20, 27, 28)],
}


PARAMS = [pytest.param(name, marks=[pytest.mark.slow] if name.startswith("vgg") else []) for name in NODES]


@pytest.fixture(scope="module", params=PARAMS)
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    """Return a name, torchvision's network with random weights, and the file of all of these."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = torchvision.models.get_model(request.param, weights=None).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(0.1)
    file = tmp_path_factory.mktemp(request.param) / "whole.pth"
    torch.save(network.state_dict(), file)
    return request.param, network, file


def test_levels_are_the_maps_that_torchvision_has_there(named: tuple[str, Any, Path]) -> None:
    """At a size that no stride divides, with the weights of the whole network from a file."""
    name, network, file = named
    backbone = build_backbone(name, str(file))
    pixels = torch.randn(2, 3, 100, 100, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps = backbone(pixels)
        expected = list(create_feature_extractor(network, NODES[name])(pixels).values())
    if name.startswith("swin"):
        expected = [level.permute(0, 3, 1, 2) for level in expected]
    assert [level.shape[1] for level in maps] == list(backbone.info.levels)
    for level, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(level, theirs, rtol=0, atol=0)


def test_parts_are_the_whole_network_once_and_it_saves_and_loads(
    named: tuple[str, Any, Path], tmp_path: Path
) -> None:
    name, _, file = named
    backbone = build_backbone(name, str(file))
    parts = backbone.parts
    assert len(parts) == 1 + len(backbone.info.levels)
    found = [id(weight) for part in parts for module in part for weight in module.parameters()]
    assert sorted(found) == sorted(id(weight) for weight in backbone.parameters())
    torch.save(backbone.network.state_dict(), tmp_path / "own.pth")
    again = build_backbone(name, str(tmp_path / "own.pth")).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in backbone.state_dict().items())


def test_a_file_that_lacks_a_layer_is_refused(named: tuple[str, Any, Path], tmp_path: Path) -> None:
    name, network, _ = named
    state = network.state_dict()
    missing = next(key for key in state if key.endswith("weight") and "0" in key)
    del state[missing]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(WeightsError, match=r"less\.pth does not fit the architecture"):
        build_backbone(name, str(tmp_path / "less.pth"))


def test_other_backbones_than_resnets_take_torchs_kernels_whatever_a_record_says(tmp_path: Path) -> None:
    """Planned as the next backbone after another: what that one computed with is not this one's."""
    fused = Arithmetic.of("cpu", "auto")
    for before, now, expected in (
        ("resnet50", "convnext_tiny", ("fp32", "torch")),
        ("convnext_tiny", "resnet50", (fused.precision, fused.kernels)),
    ):
        run = RunFolder(tmp_path / now)
        first, second = (Extract(run, ExtractSettings(name, "random"), 3) for name in (before, now))
        facts = {
            "settings": {"device": "auto", "precision": "auto"},
            "machine": {"gpu": "none", "processor": processor_name(), "system": system_name()},
            "versions": {"torch": version("torch")},
        }
        run.record("extract").parent.mkdir(parents=True)
        record = StageRecord("extract", 1, first.parameters(), {}, {}, {}, facts)
        record.write(run.record("extract"))
        assert StageRecord.known(run.record("extract")) is not None
        assert (second.arithmetic.precision, second.arithmetic.kernels) == expected
    assert Extract(run, ExtractSettings("swin_t", precision="bf16"), 3).arithmetic.precision == "bf16"


def test_the_size_of_a_view_is_the_backbones_own_unless_another_is_set() -> None:
    run = RunFolder(Path("nowhere"))
    for settings, size in (
        (ExtractSettings("resnet50"), 224),
        (ExtractSettings("swin_v2_t"), 256),
        (ExtractSettings("swin_v2_t", size=128), 128),
    ):
        assert f"to {size}x{size};" in Extract(run, settings, 3).parameters()["transform"]
