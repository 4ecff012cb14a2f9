"""The committed weights detect what the demonstration draws, and their features distinguish its kinds.

The scenes were never seen in training.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hmnet_pipe.pipeline.run.recipes import PRESETS
from hmnet_pipe.stages.demo.scenes import KINDS, SceneObject, stream
from hmnet_pipe.stages.demo.train_weights import random_scene, view_tensor, views_of
from hmnet_pipe.stages.vision.demo import DEMO_LEVELS, DEMO_WEIGHTS
from hmnet_pipe.stages.vision.demo_nets import demo_fasterrcnn, demo_resnet
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import adaptive_avg_pool2d
from torchvision.models.detection import FasterRCNN
from torchvision.transforms.functional import pil_to_tensor

pytestmark = pytest.mark.slow

BODY = "backbone.body."


def as_stored(picture: Image.Image) -> Image.Image:
    """Return a picture after the corpus's JPEG compression, which training never saw."""
    file = io.BytesIO()
    picture.save(file, "jpeg", quality=90)
    return Image.open(file).convert("RGB")


def unseen_scenes(purpose: str, count: int) -> Iterator[tuple[Image.Image, list[SceneObject]]]:
    rng = stream(f"test demo weights: {purpose}")
    for _ in range(count):
        picture, objects = random_scene(rng)
        yield as_stored(picture), objects


@pytest.fixture(scope="module")
def detector() -> FasterRCNN:
    net = demo_fasterrcnn()
    net.load_state_dict(load_file(DEMO_WEIGHTS))
    return net.eval()


def test_the_file_is_small_enough_to_ship() -> None:
    assert DEMO_WEIGHTS.stat().st_size <= 6_000_000


def test_the_body_of_the_detector_is_the_backbone_but_for_its_classifier() -> None:
    body = {
        key.removeprefix(BODY): value
        for key, value in load_file(DEMO_WEIGHTS).items()
        if key.startswith(BODY)
    }
    mismatch = demo_resnet().load_state_dict(body, strict=False)
    assert mismatch.unexpected_keys == []
    assert mismatch.missing_keys == ["fc.weight", "fc.bias"]


def test_the_stages_have_the_documented_channels_and_strides() -> None:
    net = demo_resnet().eval()
    with torch.inference_mode():
        maps = net.maxpool(net.relu(net.bn1(net.conv1(torch.zeros(1, 3, 224, 224)))))
        for stage, width in enumerate(DEMO_LEVELS):
            maps = getattr(net, f"layer{stage + 1}")(maps)
            assert maps.shape == (1, width, 56 >> stage, 56 >> stage)
        assert net(torch.zeros(2, 3, 112, 112)).shape == (2, len(KINDS))


def test_average_precision_on_unseen_scenes(detector: FasterRCNN) -> None:
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, (picture, objects) in enumerate(unseen_scenes("detection", 150)):
        for kind, (x0, y0, x1, y1) in objects:
            box = [x0, y0, x1 - x0, y1 - y0]
            annotation = {
                "image_id": number,
                "category_id": 1 + KINDS.index(kind),
                "bbox": box,
                "iscrowd": 0,
            }
            annotations.append({**annotation, "id": len(annotations) + 1, "area": box[2] * box[3]})
        with torch.inference_mode():
            [result] = detector([pil_to_tensor(picture).float() / 255.0])
        for (x0, y0, x1, y1), label, score in zip(
            result["boxes"].tolist(), result["labels"].tolist(), result["scores"].tolist(), strict=True
        ):
            found.append(
                {"image_id": number, "category_id": label, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO()
        gold.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(150)],
            "annotations": annotations,
            "categories": [{"id": index, "name": name} for index, name in enumerate(KINDS, start=1)],
        }
        gold.createIndex()
        evaluation = COCOeval(gold, gold.loadRes(found), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][
        0, :, :, 0, -1
    ]  # recall steps by categories, all areas, at most 100 boxes
    assert precision.shape[1] == len(KINDS)
    assert precision.mean() >= 0.9


def test_pooled_features_of_crops_tell_the_kinds_apart(detector: FasterRCNN) -> None:
    """A linear model of level 4, pooled to 2 x 2, names the object in a crop of the demonstration's size."""
    side = PRESETS["demo"].tables["extract"]["size"]

    def features_of(purpose: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        crops = [crop for scene in unseen_scenes(purpose, 100) for crop in list(views_of(scene))[1:]]
        batches = torch.split(torch.stack([view_tensor(view, side) for view, _ in crops]), 32)
        with torch.inference_mode():
            pooled = torch.cat(
                [adaptive_avg_pool2d(detector.backbone.body(batch)["3"], 2) for batch in batches]
            )
        return pooled.flatten(1).numpy(), np.array([KINDS.index(kind) for _, [kind] in crops])

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)).fit(
        *features_of("probe training")
    )
    features, kinds = features_of("probe")
    assert len(kinds) > 200
    assert probe.score(features, kinds) >= 0.95
