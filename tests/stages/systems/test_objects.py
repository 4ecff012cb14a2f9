"""How images enter a system: what is absent is zero, whatever the arrays hold, and gets no gradient."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hmnet_pipe.cache.spec import IMAGE, OBJECTS
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import build_system
from hmnet_pipe.stages.systems.objects import (
    ObjectEmbedding,
    cells,
    check_regions,
    entering,
    of_image,
    of_objects,
    regions,
    view_vectors,
)
from hmnet_pipe.stages.text.encoders.bert import encoder_from_config

CONFIG = ModelConfig("x", "re", ("None",), (3, 5), "markers", 16, {}, {"regions": "all"})


def a_batch(views: torch.Tensor | None, mask: torch.Tensor | None) -> Batch:
    ones = torch.ones(2, 4, dtype=torch.long)
    return Batch(ones, ones.bool(), ones, ones.bool(), None, views, mask, [0, 1])


def some_views() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    views = torch.randn(2, 3, 8, 2, 2, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    return views, mask


def test_a_view_is_the_mean_of_the_cells_of_its_last_level() -> None:
    views, mask = some_views()
    vectors, found = view_vectors(a_batch(views, mask), CONFIG)
    for sample in range(2):
        for view in range(3):
            for channel in range(5):
                at = views[sample, view, 3 + channel]
                wanted = sum(at[i, j].item() for i in range(2) for j in range(2)) / 4
                wanted = wanted if mask[sample, view] else 0.0
                assert vectors[sample, view, channel].item() == pytest.approx(wanted, abs=1e-12)
    assert torch.equal(found, mask)


def test_cells_are_those_of_the_whole_image_alone_and_row_major() -> None:
    views, mask = some_views()
    mask[1, 0] = False
    found, cell_mask = cells(a_batch(views, mask), CONFIG)
    assert found.shape == (2, 4, 5)
    assert torch.equal(found[0, 2], views[0, 0, 3:, 1, 0])
    assert cell_mask.tolist() == [[True] * 4, [False] * 4]
    assert (found[1] == 0).all()


def test_features_that_do_not_show_what_a_system_looks_at_are_refused_with_those_that_do() -> None:
    of_image_alone, of_objects_alone = (
        replace(CONFIG, features={"regions": shown}) for shown in (IMAGE, OBJECTS)
    )
    with pytest.raises(InputError, match=r"looks at objects, which .* 'image'.*--features vector"):
        check_regions(of_image_alone, OBJECTS)
    with pytest.raises(InputError, match=r"looks at the whole image, which .* 'objects'.*--features grid"):
        check_regions(of_objects_alone, IMAGE)
    of_scene = replace(CONFIG, features={"regions": "scene"})
    with pytest.raises(InputError, match=r"looks at the whole image, which .* 'scene'.*--features grid"):
        check_regions(of_scene, IMAGE)
    for config, wanted in (
        (of_scene, OBJECTS),
        (of_image_alone, IMAGE),
        (of_objects_alone, OBJECTS),
        (CONFIG, IMAGE),
    ):
        check_regions(config, wanted)


def test_the_image_and_its_objects_are_told_apart_among_the_views() -> None:
    mask = torch.tensor([[True, True, False], [False, True, True]])
    assert of_image(mask).tolist() == [[True, False, False], [False, False, False]]
    assert of_objects(mask, CONFIG).tolist() == [[False, True, False], [False, True, True]]
    assert torch.equal(of_objects(mask, replace(CONFIG, features={"regions": OBJECTS})), mask)


@pytest.mark.parametrize(("shows", "first"), [("all", 1), ("objects", 0)])
def test_the_whole_image_is_no_object(shows: str, first: int) -> None:
    views, mask = some_views()
    config = replace(CONFIG, features={"regions": shows})
    vectors, found = regions(a_batch(views, mask), config)
    assert torch.equal(vectors, view_vectors(a_batch(views, mask), config)[0][:, first:])
    assert torch.equal(found, mask[:, first:])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_what_is_absent_is_zero_whatever_the_arrays_hold(value: float) -> None:
    views, mask = some_views()
    spoilt = views.clone()
    spoilt[~mask] = value
    for way in (cells, view_vectors, regions):
        assert torch.equal(way(a_batch(views, mask), CONFIG)[0], way(a_batch(spoilt, mask), CONFIG)[0])


def test_without_views_there_is_nothing_of_the_right_width() -> None:
    vectors, mask = regions(a_batch(None, None), CONFIG)
    assert vectors.shape == (2, 0, 5)
    assert mask.shape == (2, 0)


def test_half_precision_enters_as_float32() -> None:
    assert entering(torch.ones(1, 2).half(), torch.ones(1, dtype=torch.bool)).dtype == torch.float32


def test_an_object_is_the_sum_of_its_region_label_and_box() -> None:
    torch.manual_seed(0)
    embedding = ObjectEmbedding(5, 6, labels=4, geometry=True).double()
    vectors, boxes = (torch.randn(2, 3, width, dtype=torch.float64) for width in (5, 8))
    labels = torch.tensor([[1, 2, 3], [3, 1, 2]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    spoilt = vectors.clone()
    spoilt[1, 2] = float("nan")
    spoilt.requires_grad_()
    found = embedding(spoilt, mask, labels, boxes)
    for i in range(2):
        for j in range(3):
            wanted = (
                embedding.features.weight @ vectors[i, j]
                + embedding.features.bias
                + embedding.labels.weight[labels[i, j]]
                + embedding.geometry.weight @ boxes[i, j]
            )
            wanted = wanted if mask[i, j] else torch.zeros(6, dtype=torch.float64)
            assert torch.allclose(found[i, j], wanted, rtol=0, atol=1e-9)
    found.sum().backward()
    assert torch.equal(spoilt.grad[1, 2], torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("system", "shown", "seen"),
    [
        ("hmnet", OBJECTS, [True, True, True]),
        ("hmnet-onlyobj", "all", [False, True, True]),
        ("hmnet-onlyobj", OBJECTS, [True, True, True]),
        ("hmnet-onlyglobal", "all", [True, False, False]),
        ("hmnet-onlyglobal", IMAGE, [True, False, False]),
    ],
)
def test_a_variant_of_hmnet_looks_at_its_views_wherever_the_features_have_them(
    system: str, shown: str, seen: list[bool]
) -> None:
    model = hmnet_of(system, shown)
    assert model.looks_at(torch.ones(1, 3, dtype=torch.bool)).tolist() == [seen]


def test_a_variant_of_hmnet_refuses_features_that_do_not_show_what_it_looks_at() -> None:
    for system, shown, fitting in (("hmnet-onlyobj", IMAGE, "vector"), ("hmnet-onlyglobal", OBJECTS, "grid")):
        with pytest.raises(InputError, match=f"{system} looks at .*; train it with --features {fitting}"):
            hmnet_of(system, shown)


def hmnet_of(system: str, shown: str) -> Any:
    values = {"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1}
    encoder = encoder_from_config({**values, "num_attention_heads": 2, "intermediate_size": 8})
    return build_system(replace(CONFIG, system=system, features={"regions": shown}), encoder)
