"""The facts of backbones and detectors that planning knows without torch, against torchvision and the
networks."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from hmnet_pipe.cache.spec import Transform
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.detect.settings import DetectSettings
from hmnet_pipe.stages.extract.settings import ExtractSettings
from hmnet_pipe.stages.vision.backbones import BACKBONES, backbone_info
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.demo import DEMO_BACKBONE, DEMO_DETECTOR
from hmnet_pipe.stages.vision.detectors import DETECTORS, detector_info
from hmnet_pipe.stages.vision.weights import downloads_folder

# Networks that are cut into levels, of each family.
STAGED = (
    *("convnext_tiny", "convnext_base", "efficientnet_b0", "efficientnet_b2", "efficientnet_v2_s"),
    *("regnet_x_400mf", "regnet_y_1_6gf", "swin_t", "swin_v2_t", "vgg13"),
)

# What a plan of detect and extract asks for, with weights that ship with the package and weights in a file.
_PLAN = """
import sys
from hmnet_pipe.stages.extract.settings import ExtractSettings
from dataclasses import replace
from pathlib import Path
from hmnet_pipe.stages.vision.backbones import BACKBONES, backbone_info
from hmnet_pipe.stages.vision.detectors import detector_info
from hmnet_pipe.stages.vision.plan import planned_images
from hmnet_pipe.stages.vision.weights import weights_of
published = f"https://example.org/{Path(sys.argv[1]).name}"
BACKBONES["resnet50"] = replace(BACKBONES["resnet50"], weights=published)
for name, choice in (("demo_resnet", "default"), ("resnet50", sys.argv[1]), ("resnet50", "default")):
    print(weights_of(name, choice).digest())
print({name.partition(".")[0] for name in sys.modules} & {"torch", "torchvision"} or "without torch")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(name for name, info in BACKBONES.items() if info.fused), *STAGED])
def test_a_backbones_levels_and_strides_are_those_of_its_maps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's device without numbers, where a network costs neither memory nor time.

    RegNets cannot be built there; theirs are any numbers.
    """
    for drawn in ("normal_", "kaiming_uniform_", "kaiming_normal_", "uniform_"):
        monkeypatch.setattr(torch.nn.init, drawn, lambda tensor, *args, **more: tensor)
    info = backbone_info(name)
    with torch.inference_mode(), torch.device("cpu" if name.startswith("regnet") else "meta"):
        maps = build_backbone(name, "random")(torch.zeros(1, 3, 64, 64))
    assert tuple(level.shape[1] for level in maps) == info.levels
    assert tuple(64 // level.shape[2] for level in maps) == info.strides


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != DEMO_BACKBONE])
def test_a_backbones_weights_and_statistics_are_torchvisions(name: str) -> None:
    info, official = backbone_info(name), torchvision.models.get_model_weights(name).DEFAULT
    preset = official.transforms()
    assert info.weights == official.url
    assert (list(info.mean), list(info.std), [info.size]) == (preset.mean, preset.std, preset.crop_size)
    assert info.interpolation == preset.interpolation.value


@pytest.mark.parametrize("name", [name for name in DETECTORS if name != DEMO_DETECTOR])
def test_a_detectors_weights_and_categories_are_torchvisions(name: str) -> None:
    info, official = detector_info(name), torchvision.models.get_model_weights(name).DEFAULT
    assert info.weights == official.url
    assert list(info.categories) == official.meta["categories"]


def test_an_unknown_name_is_answered_with_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"backbone 'resnet5' is not one of resnet18, .*; did you mean resnet50\?"
    ):
        ExtractSettings(backbone="resnet5")
    with pytest.raises(
        InputError, match="detector 'yolo' is not one of fasterrcnn_resnet50_fpn_v2, "
    ) as error:
        DetectSettings(detector="yolo")
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    "variables",
    [{}, {"TORCH_HOME": "/a/b"}, {"XDG_CACHE_HOME": "/c"}, {"TORCH_HOME": "~/d", "XDG_CACHE_HOME": "/c"}],
)
def test_downloads_are_where_torch_hub_has_them(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert downloads_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_weights_are_found_and_digested_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"resnet50-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    file = tmp_path / "hub" / "checkpoints" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    child = subprocess.run([sys.executable, "-c", _PLAN, file], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    *digests, modules = child.stdout.splitlines()
    assert modules == "without torch"
    assert digests[1] == digests[2] != digests[0]


def test_the_sentence_of_a_transform_is_the_one_that_fingerprints_have_held_from_the_first() -> None:
    assert str(backbone_info("resnet50").transform(224)) == (
        "PIL bilinear, plain resize to 224x224; scaled to 0..1; ImageNet mean and standard deviation"
    )
    half = (0.5, 0.5, 0.5)
    assert str(Transform(8, half, half, "bicubic")) == (
        "PIL bicubic, plain resize to 8x8; scaled to 0..1; "
        "mean (0.5, 0.5, 0.5) and standard deviation (0.5, 0.5, 0.5)"
    )
