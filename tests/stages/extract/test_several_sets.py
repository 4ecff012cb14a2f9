"""Several feature sets from one pass over the images: each is what a pass for it alone makes, bit for bit."""

import hashlib
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hmnet_pipe.cache.shards import Shard
from hmnet_pipe.stages.base.arithmetic import Arithmetic
from hmnet_pipe.stages.demo.scenes import draw_scene, stream
from hmnet_pipe.stages.extract import work
from hmnet_pipe.stages.extract.unit import ShardUnit, Target
from hmnet_pipe.stages.extract.work import extract_shard
from hmnet_pipe.stages.vision.backbones import backbone_info
from hmnet_pipe.stages.vision.images import open_keyed
from hmnet_pipe.stages.vision.plan import ImageUnit
from hmnet_pipe.stages.vision.sets import GRID, PYRAMID, VECTOR, FeatureSet

SETS = (PYRAMID, GRID, VECTOR, FeatureSet("parts", (1, 3), 1, "objects"))
FP32, BF16 = Arithmetic.of("cpu", "fp32"), Arithmetic.of("cpu", "bf16")
# Of torch's own kernels in fp32 an image's numbers differ in the last bits when its views go alone.
ARITHMETICS = {"as chosen": FP32, "torch": replace(FP32, kernels="torch"), "bf16": BF16}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageUnit, ...]:
    """Return pictures with none to three boxes in turn; one is damaged."""
    folder, found = tmp_path_factory.mktemp("pictures"), []
    for number in range(5):
        path = folder / f"{number}.png"
        draw_scene(["ball"], stream("test several sets", number))[0].save(path)
        boxes = tuple((8.0 * i, 4.0, 60.0 + i, 90.0) for i in range(number % 4))
        found.append(ImageUnit(hashlib.sha256(path.read_bytes()).hexdigest(), str(path), boxes))
    Path(found[2].path).write_bytes(b"not an image")
    return tuple(found)


def target_of(one: FeatureSet, folder: Path, backbone: str = "demo_resnet", size: int = 112) -> Target:
    info = backbone_info(backbone)
    spec = one.spec(info, size, weights="w", objects=3, dtype="float32", precision="fp32")
    return Target(spec, "default" if backbone == "demo_resnet" else "random", str(folder / one.name), "00000")


def extracted(
    sets: tuple[FeatureSet, ...], folder: Path, images: tuple[ImageUnit, ...], arithmetic: Arithmetic
) -> dict[str, bytes]:
    """Return the shard's file of each set, all of them made together in `folder`."""
    targets = tuple(target_of(one, folder) for one in sets)
    for result in extract_shard(ShardUnit(targets, arithmetic, images)):
        assert [key for key, _ in result.failed] == [images[2].key]
        assert len(result.rows) == 4
    return {one.name: target.path.read_bytes() for one, target in zip(sets, targets, strict=True)}


@pytest.mark.parametrize("kind", ARITHMETICS)
def test_every_combination_gives_each_set_the_bytes_of_a_pass_for_it_alone(
    kind: str, images: tuple[ImageUnit, ...], tmp_path: Path
) -> None:
    arithmetic = ARITHMETICS[kind]
    alone: dict[str, bytes] = {}
    for one in SETS:
        alone |= extracted((one,), tmp_path / "alone", images, arithmetic)
    assert len({hashlib.sha256(content).digest() for content in alone.values()}) == len(SETS)
    for count in range(2, len(SETS) + 1):
        for number, sets in enumerate(combinations(SETS, count)):
            together = extracted(sets, tmp_path / f"{count}-{number}", images, arithmetic)
            assert together == {name: alone[name] for name in together}


def test_a_set_holds_its_levels_and_views_of_what_the_pyramid_holds(
    images: tuple[ImageUnit, ...], tmp_path: Path
) -> None:
    whole, parts = FeatureSet("whole", side=1), SETS[-1]
    targets = tuple(target_of(one, tmp_path) for one in (whole, parts, GRID))
    extract_shard(ShardUnit(targets, FP32, images))
    one, other, grid = (Shard(target.path) for target in targets)
    first, third = slice(0, 24), slice(24 + 48, 24 + 48 + 96)
    expected = np.concatenate([one.pyramid[:, 1:, channels] for channels in (first, third)], axis=2)
    assert np.array_equal(other.pyramid, expected)
    assert np.array_equal(other.view_mask, one.view_mask[:, 1:])
    assert grid.view_mask.all()
    # At a view of 112 the last level is 4 x 4, so that a side of 7 repeats cells; their mean is not the
    # level's.
    assert grid.pyramid.shape == (4, 1, 192, 7, 7)
    assert other.pyramid[other.view_mask].any()
    assert not other.pyramid[~other.view_mask].any()


def test_an_image_is_decoded_once_and_goes_once_through_each_backbone(
    images: tuple[ImageUnit, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    opened = open_keyed

    def counted(path: Path, key: str) -> Any:
        decoded[key] += 1
        return opened(path, key)

    monkeypatch.setattr(work, "open_keyed", counted)
    targets = tuple(target_of(one, tmp_path) for one in SETS)
    targets += (
        target_of(FeatureSet("other"), tmp_path, "resnet18"),
        target_of(FeatureSet("larger"), tmp_path, size=128),
    )
    for name, weights in (("demo_resnet", "default"), ("resnet18", "random")):
        network = work._backbone(name, weights, FP32)
        hook = network.register_forward_hook(lambda module, given, made: passed.update([module.info.name]))
        monkeypatch.setattr(network, "_hook_of_this_test", hook, raising=False)
    extract_shard(ShardUnit(targets, FP32, images))
    for name, weights in (("demo_resnet", "default"), ("resnet18", "random")):
        work._backbone(name, weights, FP32)._hook_of_this_test.remove()
    assert decoded == Counter({image.key: 1 for image in images})
    assert passed == Counter({"demo_resnet": 4 * 2, "resnet18": 4})  # of two sizes of view, and of one


def test_a_committed_shard_of_one_set_is_kept_while_the_other_is_made(
    images: tuple[ImageUnit, ...], tmp_path: Path
) -> None:
    sound = images[:2] + images[3:]
    pyramid, grid = target_of(PYRAMID, tmp_path), target_of(GRID, tmp_path)
    (before,) = extract_shard(ShardUnit((pyramid,), FP32, sound))
    stamp = pyramid.path.stat().st_mtime_ns
    kept, made = extract_shard(ShardUnit((pyramid, grid), FP32, sound))
    assert pyramid.path.stat().st_mtime_ns == stamp
    assert kept == before
    assert [row.image_key for row in made.rows] == [image.key for image in sound]
    content = bytearray(pyramid.path.read_bytes())
    content[-100] ^= 1  # in its rows or checksums
    pyramid.path.write_bytes(content)
    stamp = grid.path.stat().st_mtime_ns
    assert extract_shard(ShardUnit((pyramid, grid), FP32, sound)) == [before, made]
    assert grid.path.stat().st_mtime_ns == stamp
    assert Shard(pyramid.path).damaged_rows() == []


def test_halves_hold_the_images_once_and_write_beside_each_other(
    images: tuple[ImageUnit, ...], tmp_path: Path
) -> None:
    unit = ShardUnit(tuple(target_of(one, tmp_path) for one in (PYRAMID, GRID)), FP32, images)
    first, second = unit.halves()
    assert first.images + second.images == images
    paths = [target.path for half in (first, second) for target in half.targets]
    assert len({*paths, *(target.path for target in unit.targets)}) == 6
