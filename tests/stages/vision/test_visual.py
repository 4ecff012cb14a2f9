"""Views, weights, detectors and pyramids: what detect and extract do to one image."""

import copy
import hashlib
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hmnet_pipe.cache.shards import Shard
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD, FeatureSpec, Transform
from hmnet_pipe.manifests.errors import InputError, WeightsError
from hmnet_pipe.stages.base.arithmetic import Arithmetic, autocast
from hmnet_pipe.stages.demo.scenes import draw_scene, stream
from hmnet_pipe.stages.extract.unit import ShardUnit, Target
from hmnet_pipe.stages.extract.work import extract_shard, stored
from hmnet_pipe.stages.vision.backbones import BACKBONES, backbone_info
from hmnet_pipe.stages.vision.backbones.backbone import Backbone
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.demo import DEMO_WEIGHTS
from hmnet_pipe.stages.vision.detectors import torchvision as detector_module
from hmnet_pipe.stages.vision.detectors.build import build_detector
from hmnet_pipe.stages.vision.detectors.torchvision import _WITHOUT_EPSILON, TorchvisionDetector
from hmnet_pipe.stages.vision.fused import for_inference
from hmnet_pipe.stages.vision.plan import ImageUnit
from hmnet_pipe.stages.vision.pooling import pooled_and_joined
from hmnet_pipe.stages.vision.views import cut_views, normalise
from hmnet_pipe.stages.vision.weights import weights_of
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.resnet import resnet50
from torchvision.ops import FrozenBatchNorm2d, box_iou
from torchvision.transforms.functional import normalize, pil_to_tensor


def view_of(size: int) -> Transform:
    return backbone_info("resnet50").transform(size)


def normalised(views: torch.Tensor) -> torch.Tensor:
    return normalise(views, IMAGENET_MEAN, IMAGENET_STD)


def features_of(backbone: Backbone, views: torch.Tensor) -> torch.Tensor:
    return pooled_and_joined(backbone(views), 2)


def picture(width: int = 40, height: int = 30) -> Image.Image:
    """Return a picture in which every pixel has another colour, and none is black."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray((np.stack([x * 6, y * 8, x + y], axis=-1) + 9).astype(np.uint8))


def test_views_are_the_image_and_then_its_boxes_resized_without_regard_to_aspect() -> None:
    image = picture()
    views = cut_views(image, [(10, 5, 30, 25), (0, 0, 40, 10)], view_of(16))
    assert views.shape == (3, 16, 16, 3)
    assert views.dtype == np.uint8
    expected = [image, image.crop((10, 5, 30, 25)), image.crop((0, 0, 40, 10))]
    for view, region in zip(views, expected, strict=True):
        assert np.array_equal(view, np.asarray(region.resize((16, 16), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize(
    ("box", "first", "last"),
    [
        ((-5, -5, 100, 100), (0, 0), (39, 29)),
        ((39.9, 29.9, 60, 60), (39, 29), (39, 29)),
        ((12.2, 7.1, 12.3, 7.2), (12, 7), (13, 8)),
        ((20, 20, 10, 10), (20, 20), (20, 20)),
        ((-9, -9, -1, -1), (0, 0), (0, 0)),
    ],
)
def test_a_box_beyond_the_edge_or_thinner_than_a_pixel_is_a_view_of_the_pixels_nearest_to_it(
    box: tuple[float, float, float, float], first: tuple[int, int], last: tuple[int, int]
) -> None:
    """first and last: the corner pixels (x, y), in between whose colours a view of this box lies."""
    view = cut_views(picture(), [box], view_of(8))[1].reshape(-1, 3)
    lowest, highest = (np.array(picture().getpixel(corner)) for corner in (first, last))
    assert (view >= lowest).all()
    assert (view <= highest).all()
    assert view.any(axis=1).all()  # no pixel of the picture is black
    if first == (0, 0) and last == (39, 29):
        assert np.array_equal(view, cut_views(picture(), [], view_of(8))[0].reshape(-1, 3))


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 500)])
def test_the_thinnest_images_have_views(size: tuple[int, int]) -> None:
    assert (
        cut_views(Image.new("RGB", size, (9, 8, 7)), [(0, 0, *size)], view_of(4)).reshape(-1, 3).tolist()
        == [[9, 8, 7]] * 32
    )


def test_normalisation_is_torchvisions() -> None:
    views = cut_views(picture(), [], view_of(24))
    expected = normalize(pil_to_tensor(Image.fromarray(views[0])).float() / 255, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(normalised(torch.from_numpy(views))[0], expected, rtol=0, atol=1e-5)


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return torch's cache folder for downloads, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    return tmp_path / "hub/checkpoints"


def test_the_publishers_own_file_in_torchs_cache_is_what_default_means(
    torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        resnet = torchvision.models.resnet18(weights=None)
    torch.save(resnet.state_dict(), torch_home / "new.pth")
    name = f"resnet18-{hashlib.sha256((torch_home / 'new.pth').read_bytes()).hexdigest()[:8]}.pth"
    (torch_home / "new.pth").rename(torch_home / name)
    published = replace(BACKBONES["resnet18"], weights=f"https://example.org/{name}")
    monkeypatch.setitem(BACKBONES, "resnet18", published)
    pyramid: Any = build_backbone("resnet18", "default")
    assert torch.equal(pyramid.network.conv1.weight, resnet.conv1.weight)
    assert weights_of("resnet18", "default").path() == torch_home / name
    assert (
        weights_of("resnet18", str(torch_home / name)).digest() == weights_of("resnet18", "default").digest()
    )


def test_another_file_under_the_publishers_name_is_refused(torch_home: Path) -> None:
    """Whole or cut short: the sha256 that stands in the name decides."""
    name = Path(torchvision.models.ResNet18_Weights.DEFAULT.url).name
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), torch_home / name)
    for _ in range(2):
        for use in (weights_of("resnet18", "default").digest, lambda: build_backbone("resnet18", "default")):
            with pytest.raises(WeightsError, match=r"its sha256 begins with .* instead of f37072fd") as error:
                use()
            assert str(torch_home / name) in str(error.value)
        (torch_home / name).write_bytes((torch_home / name).read_bytes()[:1000])


def test_a_cache_folder_that_cannot_be_made_is_answered_as_weights_that_are_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file" / "torch"))
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth is not here .* --weights FILE"):
        weights_of("resnet18", "default").path()


@pytest.mark.parametrize(
    "source", [weights_of("resnet50", "default"), weights_of("fasterrcnn_resnet50_fpn_v2", "default")]
)
def test_missing_weights_name_file_address_and_place(
    torch_home: Path, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no download, wherever this test runs
    with pytest.raises(WeightsError) as error:
        source.path()
    name = Path(source.default).name
    for word in (name, source.default, str(torch_home / name), "--weights FILE"):
        assert word in str(error.value)
    assert os.listdir(torch_home) == []  # noqa: PTH208


def test_safetensors_and_torch_files_of_the_same_weights_load_alike(tmp_path: Path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    one, two = (
        build_backbone("resnet18", str(tmp_path / name)).state_dict() for name in ("w.pth", "w.safetensors")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(
        torch.equal(value, one[f"resnet.{name}"])
        for name, value in state.items()
        if not name.startswith("fc.")
    )


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch exploded",))


def test_nothing_but_tensors_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Path("bomb.pth").open("wb") as file:
        pickle.dump({"conv1.weight": _Bomb()}, file)
    torch.save({"conv1.weight": _Bomb()}, "bomb2.pth")
    for name in ("bomb.pth", "bomb2.pth"):
        with pytest.raises(WeightsError, match=name):
            build_backbone("resnet18", name)
    assert not Path("exploded").exists()


def test_weights_of_another_architecture_an_empty_file_and_a_missing_one_are_named(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "18.pth")
    with pytest.raises(WeightsError, match=r"18\.pth does not fit the architecture"):
        build_backbone("resnet50", str(tmp_path / "18.pth"))
    (tmp_path / "empty.pth").touch()
    with pytest.raises(WeightsError, match=r"empty\.pth"):
        build_backbone("resnet18", str(tmp_path / "empty.pth"))
    with pytest.raises(InputError, match=r"none\.pth is not a file"):
        build_backbone("resnet18", str(tmp_path / "none.pth"))


def test_random_weights_come_only_by_that_name_and_are_the_same_twice() -> None:
    state = torch.get_rng_state()
    one, two = build_backbone("resnet18", "random"), build_backbone("resnet18", "random")
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_the_demo_pyramid_is_the_demo_detectors_own_body() -> None:
    state = load_file(DEMO_WEIGHTS)
    pyramid = build_backbone("demo_resnet", "default").network.state_dict()
    assert pyramid
    assert all(torch.equal(value, state[f"backbone.body.{name}"]) for name, value in pyramid.items())


def test_a_level_is_the_mean_over_adaptive_bins_of_its_stage() -> None:
    pyramid = build_backbone("demo_resnet", "default")
    views = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        got = features_of(pyramid, views)
        net = pyramid.network
        last = net.layer4(
            net.layer3(net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(views)))))))
        )
    side = last.shape[-1]
    top, bottom = slice(0, -(-side // 2)), slice(side // 2, side)  # 7 rows: 0..3 and 3..6
    expected = torch.stack(
        [last[:, :, rows, columns].mean(dim=(2, 3)) for rows in (top, bottom) for columns in (top, bottom)],
        dim=-1,
    )
    torch.testing.assert_close(got[:, -pyramid.info.levels[-1] :].flatten(2), expected, rtol=1e-5, atol=1e-6)


def test_detected_objects_are_torchvisions_best_by_score() -> None:
    image, _ = draw_scene(["person", "building", "tree"], stream("test visual"))
    detector = build_detector("demo_fasterrcnn", "default", 0.0)
    objects = detector.top_objects(image, 3, 0.0)
    with torch.inference_mode():
        found = detector.network([pil_to_tensor(image).float() / 255])[0]
    best = sorted(range(len(found["scores"])), key=lambda i: -float(found["scores"][i]))[:3]
    assert [found_object.score for found_object in objects] == [float(found["scores"][i]) for i in best]
    assert [found_object.box for found_object in objects] == [tuple(found["boxes"][i].tolist()) for i in best]
    assert detector.top_objects(image, 3, 1.1) == []
    assert len(detector.top_objects(image, 1, 0.0)) == 1


def test_a_detector_with_other_classes_is_read_from_its_weights(tmp_path: Path) -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    own = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    detector = build_detector(name, str(tmp_path / "own.pth"), 0.0)
    assert isinstance(detector, TorchvisionDetector)
    names = ["__background__", "class-1", "class-2", "class-3", "class-4"]
    assert list(detector.names.values()) == names
    coco = build_detector(name, "random", 0.05)
    assert isinstance(coco, TorchvisionDetector)
    assert coco.names[1] == "person"


def test_values_beyond_float16_are_its_largest_and_not_infinite() -> None:
    values = torch.tensor([[1e6, -1e6, 0.5]])
    assert stored(values, "float16").tolist() == [[65504.0, -65504.0, 0.5]]
    assert stored(values, "float32").tolist() == values.tolist()


def spec_of(backbone: str, size: int) -> FeatureSpec:
    info = backbone_info(backbone)
    return FeatureSpec(backbone, "w", info.transform(size), info.levels, 2, 4, "float32")


def scenes(folder: Path, name: str, count: int) -> list[ImageUnit]:
    """Return pictures with none to three boxes in turn."""
    images = []
    for number in range(count):
        path = folder / f"{number}.png"
        draw_scene(["ball"], stream(name, number))[0].save(path)
        boxes = tuple((8.0 * i, 4.0, 60.0 + i, 90.0) for i in range(number % 4))
        images.append(ImageUnit(hashlib.sha256(path.read_bytes()).hexdigest(), str(path), boxes))
    return images


def test_a_shard_holds_each_images_own_views_and_a_bad_image_only_fails_itself(tmp_path: Path) -> None:
    """Against one view at a time through the network, in the order of the images."""
    images = scenes(tmp_path, "test shard", 5)
    Path(images[2].path).write_bytes(b"not an image")
    pyramid = build_backbone("demo_resnet", "default")
    spec = spec_of("demo_resnet", 64)
    (result,) = extract_shard(
        ShardUnit((Target(spec, "default", str(tmp_path), "00000"),), FP32, tuple(images))
    )
    assert [row.image_key for row in result.rows] == [images[i].key for i in (0, 1, 3, 4)]
    assert [key for key, _ in result.failed] == [images[2].key]
    shard = Shard(tmp_path / "shard-00000.h5")
    for row, image in enumerate(images[:2] + images[3:]):
        views = cut_views(Image.open(image.path).convert("RGB"), image.boxes, view_of(64))
        assert shard.view_mask[row].tolist() == [True] * len(views) + [False] * (4 - len(views))
        with torch.inference_mode():
            for view, pixels in enumerate(views):
                expected = features_of(pyramid, normalised(torch.from_numpy(pixels[None])))[0].numpy()
                np.testing.assert_allclose(shard.pyramid[row, view], expected, rtol=1e-4, atol=1e-4)
        assert not shard.pyramid[row, len(views) :].any()


def _with_statistics(network: Any, seed: int) -> Any:
    """Return normalisations as training leaves them, so that folding them has something to get wrong."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, FrozenBatchNorm2d)):
            size = module.running_mean.shape
            module.running_mean.copy_(torch.randn(size, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(size, generator=generator) + 0.5)
            module.weight.data.copy_(torch.rand(size, generator=generator) * 0.6 + 0.7)
            module.bias.data.copy_(torch.randn(size, generator=generator) * 0.1)
    return network.eval().requires_grad_(False)


FP32, BF16 = Arithmetic.of("cpu", "fp32"), Arithmetic.of("cpu", "bf16")
needs_onednn = pytest.mark.skipif(
    FP32.kernels != "onednn", reason="this processor's convolutions are torch's own"
)
needs_bf16 = pytest.mark.skipif(
    BF16.kernels != "onednn", reason="no bf16 convolutions here, not even slow ones"
)


@needs_onednn
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "demo_resnet"])
def test_fused_kernels_give_the_features_of_float64(name: str) -> None:
    pyramid = _with_statistics(build_backbone(name, "random"), 0)
    views = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = features_of(copy.deepcopy(pyramid).double(), views.double())
        fused = features_of(for_inference(pyramid, FP32), views)
    assert (fused - expected).abs().max() < 1e-5 * expected.abs().max()
    kinds = {type(module) for module in pyramid.modules()}
    assert not kinds & {torch.nn.Conv2d, torch.nn.BatchNorm2d}


@needs_bf16
def test_bf16_features_point_where_fp32_ones_do() -> None:
    """The cosine of each view and level; what a pretrained ResNet-50 gives is measured by
    benchmarks/extract_speed.py."""
    name = "resnet50"
    pyramid = _with_statistics(build_backbone(name, "random"), 0)
    levels = list(pyramid.info.levels)
    views = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact = features_of(copy.deepcopy(pyramid), views).split(levels, dim=1)
        with autocast(torch.device("cpu"), "bf16"):
            coarse = features_of(for_inference(pyramid, BF16), views).float().split(levels, dim=1)
    for one, other in zip(exact, coarse, strict=True):
        cosine = torch.cosine_similarity(one.flatten(1), other.flatten(1))
        assert cosine.min() >= 0.999
        assert not torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arithmetic", [pytest.param(FP32, marks=needs_onednn), pytest.param(BF16, marks=needs_bf16)]
)
def test_the_size_of_the_first_image_changes_no_later_number(arithmetic: Any) -> None:
    """Weights are packed for the maps of the first call; which images a worker gets first is chance."""
    first, *later = (
        torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(n))
        for n, side in ((1, 33), (4, 160), (2, 96))
    )
    used = for_inference(build_backbone("resnet50", "random"), arithmetic)
    with torch.inference_mode(), autocast(torch.device("cpu"), arithmetic.precision):
        used(first)
        for views in later:
            fresh = for_inference(build_backbone("resnet50", "random"), arithmetic)
            assert torch.equal(features_of(used, views), features_of(fresh, views))


@pytest.mark.slow
@needs_onednn
@pytest.mark.parametrize(
    "name", ["fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_320_fpn"]
)
def test_fused_kernels_give_a_detectors_maps_and_proposals(name: str) -> None:
    network = _with_statistics(build_detector(name, "random", 0.05).network, 0)
    pixels = torch.rand(1, 3, 128, 160, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = copy.deepcopy(network).double()
        maps, exact = network.backbone(pixels), expected.backbone(pixels.double())
        heads = [
            network.roi_heads.box_head(torch.ones(2, 256, 7, 7)),
            *chain(*network.rpn.head(list(maps.values()))),
        ]
        for_inference(network, FP32)
        fused = network.backbone(pixels)
        fused_heads = [
            network.roi_heads.box_head(torch.ones(2, 256, 7, 7)),
            *chain(*network.rpn.head(list(fused.values()))),
        ]
    for level in exact:
        assert (fused[level] - exact[level]).abs().max() < 1e-5 * exact[level].abs().max()
    for one, other in zip(heads, fused_heads, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


@pytest.mark.slow
def test_the_first_coco_detector_computes_as_torchvision_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torchvision takes no epsilon with that one file; a copy under another name is the same file, and others
    keep theirs."""
    official = _with_statistics(
        torchvision.models.get_model("fasterrcnn_resnet50_fpn", weights=None, weights_backbone=None), 2
    )
    official.backbone.body.bn1.running_var.mul_(1e-4)
    state = {
        name: value
        for name, value in official.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "copy.pth")
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        monkeypatch.setattr(
            detector_module,
            "_WITHOUT_EPSILON",
            weights_of("fasterrcnn_resnet50_fpn", str(tmp_path / "copy.pth")).digest()[:8],
        )
        first = build_detector("fasterrcnn_resnet50_fpn", str(tmp_path / "copy.pth"), 0.05).network.backbone(
            pixels
        )["0"]
        monkeypatch.undo()
        other = build_detector("fasterrcnn_resnet50_fpn", str(tmp_path / "copy.pth"), 0.05).network.backbone(
            pixels
        )["0"]
        kept = official.backbone(pixels)["0"]
        frozen = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
        body = {
            name.removeprefix("backbone.body."): value
            for name, value in state.items()
            if name.startswith("backbone.body.")
        }
        frozen.load_state_dict(body, strict=False)
        overwrite_eps(frozen, 0.0)
        official.backbone.body = IntermediateLayerGetter(
            frozen, {f"layer{i}": str(i - 1) for i in (1, 2, 3, 4)}
        )
        expected = official.backbone(pixels)["0"]
    assert (first - expected).abs().max() < 1e-5 * expected.abs().max()
    assert torch.equal(other, kept)
    assert (first - other).abs().max() > 1e-3 * expected.abs().max()
    detection = torchvision.models.detection
    files = (
        detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
        detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
    )
    assert [start in file.url for start, file in zip(_WITHOUT_EPSILON, files, strict=True)] == [True, True]


def test_an_images_features_are_its_own_whatever_lies_beside_it(tmp_path: Path) -> None:
    images = scenes(tmp_path, "test alone", 6)
    spec = spec_of("resnet18", 96)
    target = Target(spec, "random", str(tmp_path), "all")
    unit = ShardUnit((target,), FP32, tuple(images))
    extract_shard(unit)
    whole = Shard(target.path).pyramid
    for row, image in enumerate(images):
        alone = replace(target, name=f"alone-{row}")
        extract_shard(replace(unit, targets=(alone,), images=(image,)))
        assert np.array_equal(Shard(alone.path).pyramid[0], whole[row])


def test_a_named_device_is_asked_for_only_where_it_must_be_known() -> None:
    """A machine without a GPU sends work to machines that have one."""
    assert Arithmetic.of("cuda", "bf16") == Arithmetic("cuda", "bf16", "torch")
    if not torch.cuda.is_available():
        for ask in (lambda: Arithmetic.of("cuda", "auto"), Arithmetic.of("cuda", "bf16").check):
            with pytest.raises(InputError, match="--device cuda cannot be used here"):
                ask()
    with pytest.raises(InputError, match="--device gpu cannot be used here"):
        Arithmetic.of("gpu", "fp32")
    with pytest.raises(InputError, match="precision 'fp8'"):
        Arithmetic.of("cpu", "fp8")


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["onednn", "torch"])
def test_bf16_finds_the_boxes_that_fp32_finds(kernels: str) -> None:
    """Where torchvision computed boxes in bf16 it lost 5 of 100 at this IoU."""
    if BF16.kernels != "onednn":
        pytest.skip("no bf16 convolutions here, not even slow ones")
    plain, coarse = (build_detector("demo_fasterrcnn", "default", 0.3) for _ in range(2))
    for_inference(coarse.network, replace(BF16, kernels=kernels))
    found = whole = 0
    for number in range(30):
        image, _ = draw_scene(["person", "building", "tree"], stream("test bf16", number))
        exact = plain.top_objects(image, 3, 0.3)
        with autocast(torch.device("cpu"), "bf16"):
            other = coarse.top_objects(image, 3, 0.3)
        iou = box_iou(torch.tensor([each.box for each in exact]), torch.tensor([each.box for each in other]))
        same = torch.tensor([[a.label == b.label for b in other] for a in exact])
        found, whole = found + int(((iou >= 0.9) & same).any(dim=1).sum()), whole + len(exact)
    assert whole > 60
    assert found >= 0.97 * whole


def test_torchs_own_kernels_give_the_same_features(tmp_path: Path) -> None:
    """What runs on GPUs and on other processors than x86."""
    path = tmp_path / "0.png"
    draw_scene(["ball"], stream("test kernels"))[0].save(path)
    image = ImageUnit(hashlib.sha256(path.read_bytes()).hexdigest(), str(path), ((8.0, 4.0, 60.0, 90.0),))
    spec = spec_of("demo_resnet", 64)
    got = []
    for kernels in {FP32.kernels, "torch"}:
        target = Target(spec, "default", str(tmp_path), kernels)
        unit = ShardUnit((target,), replace(FP32, kernels=kernels), (image,))
        extract_shard(unit)
        got.append(np.array(Shard(target.path).pyramid))
    np.testing.assert_allclose(got[0], got[-1], rtol=1e-4, atol=1e-5)


_PEAK = """
import resource, sys
from hmnet_pipe.cache.spec import FeatureSpec
from hmnet_pipe.stages.base.arithmetic import Arithmetic
from hmnet_pipe.stages.extract.unit import ShardUnit, Target
from hmnet_pipe.stages.extract.work import extract_shard
from hmnet_pipe.stages.vision.backbones import backbone_info
from hmnet_pipe.stages.vision.plan import ImageUnit
folder, *images = sys.argv[1:]
info = backbone_info("demo_resnet")
spec = FeatureSpec("demo_resnet", "w", info.transform(64), info.levels, 2, 2, "float16")
units = tuple(ImageUnit(*image.split(":"), ((0.0, 0.0, 1000.0, 1000.0),)) for image in images)
arithmetic = Arithmetic.of("cpu", "fp32")
target = Target(spec, "default", folder, str(len(units)))
(result,) = extract_shard(ShardUnit((target,), arithmetic, units))
assert len(result.rows) == len(units), result.failed
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_many_large_images_take_no_more_memory_than_a_few(tmp_path: Path) -> None:
    """Each is 75 MB once decoded; the same peak for 4 and for 16 of them, to less than one."""
    images = []
    for number in range(16):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (5000, 5000), (number, 0, 0)).save(path, compress_level=1)
        images.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}:{path}")
    peaks = []
    for count in (4, 16):
        child = subprocess.run(
            [sys.executable, "-c", _PEAK, tmp_path, *images[:count]],
            capture_output=True,
            text=True,
            check=False,
        )
        assert child.returncode == 0, child.stderr
        peaks.append(int(child.stdout))
    assert peaks[1] - peaks[0] < 5000 * 5000 * 3
