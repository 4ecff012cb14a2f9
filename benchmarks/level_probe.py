"""What each level of the demonstration's backbone tells of what decides in the diagnostic corpus.

    python benchmarks/level_probe.py [--pictures 480] [--cue texture]

For each cue, pictures are drawn that are in no corpus, and the detector of the preset finds their objects. A
linear probe learns what decides from one level of one view, the whole picture or the best object: from the
mean of the level's map, from 2x2 cells as the pyramid holds it, or from a grid of 4x4 cells. It is scored on
pictures that it has not seen, five times a fifth of them. Observed: 35 seconds on one core.

What is required: the object's level 1 tells the texture and its level 4 does not; the object tells the detail
and the whole picture does not; the whole picture tells the scene and the object does not. One object alone
does not tell the agreement of two, and no linear probe of a picture does.
"""

import argparse
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from hmnet_pipe.pipeline.run.recipes import PRESETS
from hmnet_pipe.stages.demo.cues import CUES, draw_picture
from hmnet_pipe.stages.demo.diagnostic import drafts
from hmnet_pipe.stages.demo.pens import PixelBox
from hmnet_pipe.stages.demo.scenes import stream
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.detectors.build import build_detector
from hmnet_pipe.stages.vision.pooling import pooled_and_joined
from hmnet_pipe.stages.vision.views import cut_views, normalise
from PIL import Image
from report import Result, report
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision.ops import box_iou

VIEWS = ("whole", "object")
SIDES = (1, 2, 4)

# By cue, view and level: the least share that must be right, or the largest that may be.
LEAST = {("texture", "object", 1): 0.95, ("detail", "object", 4): 0.95, ("scene", "whole", 3): 0.9}
MOST = {
    ("texture", "object", 4): 0.4,
    ("detail", "whole", 1): 0.35,
    ("detail", "whole", 4): 0.35,
    ("scene", "object", 1): 0.4,
    ("scene", "object", 4): 0.35,
    ("agreement", "object", 4): 0.6,
}

Features = dict[tuple[str, int, int], npt.NDArray[np.float32]]
"""By view, level (from 1) and side; one row a picture."""


@dataclass(frozen=True)
class Example:
    """A picture as a corpus stores it, where its objects are, and its answer."""

    image: Image.Image
    boxes: Sequence[PixelBox]
    answer: str


def drawn(cue: str, count: int) -> list[Example]:
    """Return pictures of a cue that are in no corpus."""
    rng = stream(f"level probe: {cue}")
    pictures: list[Example] = []
    while len(pictures) < count:
        for draft in drafts("ner", 200, rng):
            [(group, answer)] = draft.answers
            if group != cue or draft.picture is None or len(pictures) == count:
                continue
            file = io.BytesIO()
            shown = draw_picture(draft.picture, rng)
            shown.image.save(file, "jpeg", quality=90)
            pictures.append(Example(Image.open(file).convert("RGB"), shown.boxes, answer))
    return pictures


def features_of(pictures: Sequence[Example]) -> tuple[Features, float, float]:
    """Return what the levels hold of each picture and of its best object; without one, of the picture.

    With it return the share of objects that were found, and of pictures in which something else was.
    """
    stages = PRESETS["diagnostic"].tables
    min_score, size = stages["detect"]["min_score"], stages["extract"]["size"]
    detector = build_detector(stages["detect"]["detector"], "default", min_score)
    backbone = build_backbone(stages["extract"]["backbone"], "default")
    transform = backbone.info.transform(size)
    rows: dict[tuple[str, int, int], list[npt.NDArray[np.float32]]] = {}
    objects = seen = besides = 0
    for picture in pictures:
        boxes = [found.box for found in detector.top_objects(picture.image, 3, min_score)]
        overlaps = box_iou(torch.tensor(picture.boxes), torch.tensor(boxes).reshape(-1, 4)) >= 0.5
        objects, seen = objects + len(picture.boxes), seen + int(overlaps.any(dim=1).sum())
        besides += not overlaps.any(dim=0).all()
        cut = torch.from_numpy(cut_views(picture.image, boxes[:1], transform))
        views = normalise(cut, transform.mean, transform.std)
        with torch.inference_mode():
            maps = backbone(views)
        for level, made in enumerate(maps, start=1):
            for side in SIDES:
                cells = pooled_and_joined([made], side).half().float().flatten(1).numpy()
                for view, row in zip(VIEWS, (0, -1), strict=True):
                    rows.setdefault((view, level, side), []).append(cells[row])
    features = {key: np.stack(values) for key, values in rows.items()}
    return features, seen / objects, besides / len(pictures)


def accuracy(features: npt.NDArray[np.float32], answers: list[str]) -> float:
    """Return the share that a linear probe gets right, of pictures that it has not seen."""
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(0, 5, 6)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of features that never vary
        return float(cross_val_score(probe, features, answers, cv=5).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=480)
    parser.add_argument("--cue", choices=list(CUES), action="append")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    results, found = [], {}
    for cue in options.cue or CUES:
        pictures = drawn(cue, options.pictures)
        features, seen, besides = features_of(pictures)
        results.append(Result(f"{cue}, share of objects that are found", seen, 0.95))
        results.append(Result(f"{cue}, share of pictures in which something else is", besides))
        for (view, level, side), cells in features.items():
            right = accuracy(cells, [picture.answer for picture in pictures])
            found[f"{cue} {view} {level} {side}"] = right
            key = (cue, view, level)
            asked, at_most = (MOST.get(key), True) if key in MOST else (LEAST.get(key), False)
            if side == 2:
                what = f"{cue}, {view}, level {level}, 2x2 cells"
                results.append(Result(what, right, asked, at_most))
            else:
                results.append(Result(f"{cue}, {view}, level {level}, {side}x{side} cells", right))
    report("level_probe", results, {"pictures": options.pictures, "accuracy": found}, options.output)


if __name__ == "__main__":
    main()
