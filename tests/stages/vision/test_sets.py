"""Named feature sets: what each holds, and when one follows from another."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hmnet_pipe.cache.spec import FeatureSpec
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.stages.vision.backbones import BACKBONES, backbone_info
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.pooling import pooled_and_joined
from hmnet_pipe.stages.vision.sets import (
    GRID,
    PYRAMID,
    SCENE_VECTOR,
    SETS,
    VECTOR,
    FeatureSet,
    derived,
    feature_set,
    serves,
)
from torch.nn.functional import adaptive_avg_pool2d


def spec_of(one: FeatureSet, size: int = 224, objects: int = 3, backbone: str = "resnet50") -> FeatureSpec:
    info = backbone_info(backbone)
    return one.spec(info, size, weights="w", objects=objects, dtype="float32", precision="fp32")


def test_the_built_in_sets_are_what_the_systems_read() -> None:
    """The arrays of ResNet-50 with three objects; their bytes as float16."""
    expected = {
        "pyramid": ((1, 2, 3, 4), "all", (4, 3840, 2, 2), 122_880),
        "grid": ((4,), "image", (1, 2048, 7, 7), 200_704),
        "vector": ((4,), "all", (4, 2048, 1, 1), 16_384),
        "scene-vector": ((4,), "scene", (3, 2048, 1, 1), 12_288),
    }
    for name, (numbers, regions, shape, size) in expected.items():
        spec = spec_of(feature_set(name))
        assert (spec.numbers, spec.regions, spec.row_shape) == (numbers, regions, shape)
        assert 2 * np.prod(spec.row_shape) == size
    assert list(SETS) == list(expected)


def test_the_pyramids_spec_is_the_one_that_caches_always_had() -> None:
    assert spec_of(PYRAMID) == FeatureSpec(
        "resnet50", "w", backbone_info("resnet50").transform(224), (256, 512, 1024, 2048), 2, 4, "float32"
    )


def test_own_sets_are_tables_and_come_before_the_built_in_ones() -> None:
    table = {"levels": [4, 3], "side": 1, "views": "objects"}
    coarse = FeatureSet.of_table("coarse", table)
    assert FeatureSet.of_table("coarse", coarse.to_table()) == coarse
    assert feature_set("coarse", {"coarse": coarse}) is coarse
    spec = spec_of(coarse)
    assert (spec.numbers, spec.levels, spec.row_shape) == ((3, 4), (1024, 2048), (3, 3072, 1, 1))
    assert FeatureSet.of_table("grid", {}) == replace(PYRAMID, name="grid")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"side": 0}, r"\[features.x\] side = 0: it must be at least 1"),
        ({"side": 999}, r"\[features.x\] side = 999: it must be at most 64"),
        ({"side": "7"}, r"\[features.x\] side = '7' is not a number"),
        ({"side": True}, "is not a number"),
        ({"levels": [True]}, "is not a list of numbers"),
        ({"levels": [0]}, "they count from 1"),
        ({"levels": [2, 2]}, "each once"),
        ({"levels": ["last"]}, "is not a list of numbers"),
        ({"levels": 4}, "is not a list of numbers"),
        ({"views": "image, objects"}, "is not one of all, image, objects"),
        ({"view": "all"}, "did you mean views"),
    ],
)
def test_a_wrong_table_is_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FeatureSet.of_table("x", table)


def test_unknown_sets_names_and_levels_are_named() -> None:
    with pytest.raises(
        InputError, match=r"'grids' is not one of pyramid, grid, vector, scene-vector; did you mean grid\?"
    ):
        feature_set("grids")
    with pytest.raises(InputError, match="small letters"):
        FeatureSet("../x")
    for levels in ((5,), (-5,), (4, -1)):
        with pytest.raises(InputError, match="resnet50 has 4 levels"):
            spec_of(FeatureSet("x", levels))
    with pytest.raises(InputError, match=r"takes objects, and \[detect\] has objects = 0"):
        spec_of(FeatureSet("x", views="objects"), objects=0)


@pytest.mark.parametrize("size", [64, 97, 112, 224])
def test_a_levels_native_side_is_its_view_over_its_stride_rounded_up(size: int) -> None:
    """What `serves` takes it for."""
    for name in ("resnet18", "demo_resnet"):
        with torch.inference_mode():
            maps = build_backbone(name, "random")(torch.zeros(1, 3, size, size))
        assert [-(-size // stride) for stride in BACKBONES[name].strides] == [of.shape[-1] for of in maps]


def test_a_side_serves_another_exactly_where_pooling_twice_is_pooling_once() -> None:
    """Every pair of sides of every native side, against torch's pooling of random maps in float64."""
    for native, size in ((7, 224), (14, 224), (8, 256), (6, 192), (12, 192)):
        number = 4 if size // native == 32 else 3
        level = torch.randn(1, 5, native, native, dtype=torch.float64, generator=torch.manual_seed(native))
        for held in range(1, native + 1):
            for wanted in range(1, native + 1):
                once = adaptive_avg_pool2d(level, wanted)
                twice = adaptive_avg_pool2d(adaptive_avg_pool2d(level, held), wanted)
                one, other = (
                    replace(spec_of(FeatureSet("x", (number,), side), size), pooled=side)
                    for side in (held, wanted)
                )
                assert serves(one, other) == torch.allclose(once, twice, rtol=1e-9, atol=1e-12), (
                    native,
                    held,
                    wanted,
                )


def test_what_serves_is_of_the_same_making_and_holds_the_levels_and_views() -> None:
    whole = spec_of(FeatureSet("whole", side=7))
    assert serves(whole, spec_of(GRID))
    assert serves(spec_of(PYRAMID), spec_of(FeatureSet("x", (1, 2), side=1)))
    assert serves(spec_of(PYRAMID), spec_of(FeatureSet("x", views="objects")))
    assert serves(spec_of(PYRAMID), spec_of(PYRAMID, objects=2))
    assert not serves(spec_of(PYRAMID), spec_of(VECTOR))  # the middle cells of 7 x 7 would count twice
    assert not serves(spec_of(PYRAMID), spec_of(GRID))
    assert not serves(spec_of(GRID), spec_of(VECTOR))  # no objects
    whole_scene = replace(spec_of(SCENE_VECTOR), views=3)  # as many objects, which are others
    assert not serves(spec_of(FeatureSet("x", side=1)), whole_scene)
    assert not serves(whole_scene, spec_of(FeatureSet("x", (-1,), side=1, views="objects")))
    assert serves(whole_scene, whole_scene)
    assert not serves(spec_of(VECTOR), spec_of(PYRAMID))
    assert not serves(spec_of(PYRAMID), spec_of(PYRAMID, objects=4))
    assert not serves(spec_of(FeatureSet("x", views="objects")), spec_of(FeatureSet("x", views="image")))
    grid = spec_of(GRID)
    others = [
        replace(grid, backbone="resnet101"),
        replace(grid, weights="v"),
        replace(grid, precision="bf16"),
        spec_of(GRID, size=225),
        replace(grid, transform=replace(grid.transform, interpolation="bicubic")),
    ]
    assert not any(serves(grid, other) for other in others)
    assert serves(replace(grid, precision=""), grid)  # a cache of before, which did not record it


def test_derived_features_are_those_of_the_maps() -> None:
    """From all levels at side 7 of all views, against pooling the maps themselves."""
    backbone, size = "demo_resnet", 224
    views = torch.randn(4, 3, size, size, generator=torch.manual_seed(0))
    with torch.inference_mode():
        maps = build_backbone(backbone, "default")(views)
        values = pooled_and_joined(maps, 7).numpy()[None]
    mask = np.array([[True, True, True, False]])
    held = spec_of(FeatureSet("held", side=7), size, backbone=backbone)
    for one, views_taken in (
        (GRID, slice(0, 1)),
        (replace(VECTOR, side=2), slice(0, 4)),
        (VECTOR, slice(0, 4)),
        (FeatureSet("x", (2, 4), 1, "objects"), slice(1, 4)),
    ):
        wanted = spec_of(one, size, backbone=backbone)
        got, got_mask = derived(values, mask, held, wanted, name=one.name)
        expected = pooled_and_joined([maps[number - 1] for number in wanted.numbers], wanted.pooled)
        assert got.shape == (1, *wanted.row_shape)
        np.testing.assert_allclose(got[0], expected[views_taken].numpy(), rtol=1e-5, atol=1e-6)
        assert np.array_equal(got_mask, mask[:, views_taken])


def test_a_set_that_does_not_follow_names_the_command_that_makes_it() -> None:
    held = spec_of(PYRAMID)
    values, mask = np.zeros((1, *held.row_shape), np.float32), np.ones((1, 4), bool)
    with pytest.raises(StageError, match="hmnet-pipe extract RUN --features vector"):
        derived(values, mask, held, spec_of(VECTOR), name="vector")
