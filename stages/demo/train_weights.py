"""Train the demonstration's detector, from scratch, on scenes that are drawn during the training.

    python -m hmnet_pipe.stages.demo.train_weights demo_fasterrcnn.safetensors

There are two phases. First the ResNet alone learns to name the kinds in a view: a crop of an object or a
whole scene, at several resolutions, as the feature pyramid will see them. Then the detector is trained on
that body with fixed batch statistics, and continues to name views, so that the same weights serve detection
and features.

It runs on one thread, so that the same kind of machine gives the same weights again. Observed: 36 minutes on
a busy 2-core machine.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import ResNet
from torchvision.models.detection import FasterRCNN
from torchvision.transforms.functional import normalize, pil_to_tensor

from ...cache.spec import IMAGENET_MEAN, IMAGENET_STD
from ..vision.demo_nets import demo_fasterrcnn, demo_resnet
from .scenes import KINDS, SceneObject, draw_scene, stream

__all__ = [
    "main",
    "random_scene",
    "train_detector",
    "train_resnet",
    "view_tensor",
    "views_of",
]

# In pixels. The demonstration uses views of 112; the larger ones keep the features useful at other sides too.
_VIEW_SIDES = (112, 112, 160, 224)

Scene = tuple[Image.Image, list[SceneObject]]


def random_scene(rng: Generator) -> Scene:
    """Return a scene of one to four objects of any kinds."""
    count = int(rng.choice(4, p=(0.35, 0.25, 0.25, 0.15))) + 1
    return draw_scene([KINDS[index] for index in rng.integers(0, len(KINDS), size=count)], rng)


def views_of(scene: Scene, rng: Generator | None = None) -> Iterator[tuple[Image.Image, list[str]]]:
    """Yield the views of a scene and the kinds in each: the whole picture, then the box of every object.

    With `rng`, boxes are moved by up to a tenth of their sides, like a detector's.
    """
    picture, objects = scene
    yield picture, [kind for kind, _ in objects]
    for kind, box in objects:
        edges = np.asarray(box, dtype=np.float64)
        if rng is not None:
            sides = np.tile([box[2] - box[0], box[3] - box[1]], 2)
            edges = edges + rng.uniform(-0.1, 0.1, size=4) * sides
        x0, y0, x1, y1 = edges.round().clip(0, picture.width).astype(int).tolist()
        yield picture.crop((x0, y0, x1, y1)), [kind]


def view_tensor(view: Image.Image, side: int) -> Tensor:
    """Return a view as the backbone takes it: (3, side, side), resized and normalised."""
    resized = view.resize((side, side), Image.Resampling.BILINEAR)
    pixels: Tensor = normalize(
        pil_to_tensor(resized).float() / 255.0, list(IMAGENET_MEAN), list(IMAGENET_STD)
    )
    return pixels


def _naming_batch(rng: Generator, pixels: int) -> tuple[Tensor, Tensor]:
    """Return views of fresh scenes, all at one randomly drawn side, and 1 for each kind in each of them.

    Shapes (views, 3, side, side) and (views, kinds). views * side * side is about `pixels`, so that every
    batch costs about the same.
    """
    side = _VIEW_SIDES[int(rng.integers(len(_VIEW_SIDES)))]
    views: list[tuple[Image.Image, list[str]]] = []
    while len(views) < pixels // side**2:
        views += views_of(random_scene(rng), rng)
    present = [[float(kind in kinds) for kind in KINDS] for _, kinds in views]
    return torch.stack([view_tensor(view, side) for view, _ in views]), torch.tensor(present)


def train_resnet(net: ResNet, rng: Generator, steps: int, learning_rate: float = 4e-3) -> None:
    """Train `net` to name the kinds in views, for `steps` batches of fresh scenes."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    net.train()
    for step in range(steps):
        pixels, present = _naming_batch(rng, 48 * 112**2)
        loss = functional.binary_cross_entropy_with_logits(net(pixels), present)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        _report("resnet", step, steps, loss)


def train_detector(
    detector: FasterRCNN,
    namer: nn.Linear,
    rng: Generator,
    steps: int,
    batch: int = 16,
    learning_rate: float = 2e-3,
) -> None:
    """Train `detector` for `steps` batches of fresh scenes.

    namer: names the kinds in views from the last stage of the detector's body.
    """
    body = detector.backbone.body
    parameters = [*detector.parameters(), *namer.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    detector.train()
    # The statistics come from views at every resolution: whole scenes alone would move them away from those
    # of crops.
    body.eval()
    for step in range(steps):
        scenes = [random_scene(rng) for _ in range(batch)]
        images = [pil_to_tensor(picture).float() / 255.0 for picture, _ in scenes]
        losses = detector(images, [_target(objects) for _, objects in scenes])
        pixels, present = _naming_batch(rng, 2 * batch * 112**2)
        logits = namer(body(pixels)["3"].mean(dim=(2, 3)))
        loss = sum(losses.values()) + functional.binary_cross_entropy_with_logits(logits, present)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        _report("detector", step, steps, loss)


def _target(objects: Sequence[SceneObject]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([box for _, box in objects], dtype=torch.float32),
        "labels": torch.tensor([1 + KINDS.index(kind) for kind, _ in objects]),
    }


def _report(phase: str, step: int, steps: int, loss: Tensor) -> None:
    if step % 50 == 0 or step == steps - 1:
        print(
            f"{time.strftime('%H:%M:%S')} {phase} step {step + 1} of {steps}: loss {loss.item():.3f}",
            flush=True,
        )


def main(output: Path, resnet_steps: int = 800, detector_steps: int = 2000) -> None:
    """Train both phases and write the detector's state to the safetensors file `output`."""
    # The number of threads decides how sums are split, and so the result; one thread runs on every machine.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = demo_resnet()
    train_resnet(net, stream("demo weights: resnet"), resnet_steps)
    detector = demo_fasterrcnn()
    # The detector's body has no `fc`; every other key must be there.
    left_over = detector.backbone.body.load_state_dict(net.state_dict(), strict=False)
    assert left_over.unexpected_keys == ["fc.weight", "fc.bias"], left_over
    assert not left_over.missing_keys, left_over
    train_detector(detector, net.fc, stream("demo weights: detector"), detector_steps)
    save_file(detector.state_dict(), output)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m hmnet_pipe.stages.demo.train_weights OUTPUT.safetensors")
    main(Path(sys.argv[1]))
