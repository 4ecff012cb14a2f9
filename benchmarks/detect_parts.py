"""Where the time of detection goes, part by part, and what bounds each: the arithmetic, or the rest.

    python benchmarks/detect_parts.py --photos DATA/photos [--images 4] [--rounds 3]

Both networks, torchvision's in fp32 as it comes and ours, see the same photographs in turn in this process,
with all threads; the time of each part is the median over the rounds of its sum over the images. What its
convolutions and linear layers compute is counted by torch's FlopCounterMode. The limit of such a part is the
rate of one large matrix product in its precision, measured in the same run: a part at 0.8 of it can become a
quarter faster at the most. Weights are random, which changes no speed but that of what is done with the boxes
that pass the threshold.

At the end the demonstration's trained detector sees photographs alone and in batches, whose smaller images
torchvision pads to the largest: that is why ours takes one image at a time, on a GPU too.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hmnet_pipe.stages.base.arithmetic import Arithmetic, autocast
from hmnet_pipe.stages.vision.detectors.build import build_detector
from hmnet_pipe.stages.vision.images import open_image
from report import Result, Row, report
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.functional import pil_to_tensor

WHOLE = "whole"
# A part, and the module that it is. The rest of a module that has parts is a part too.
PARTS = {
    "resize": "transform",
    "backbone": "backbone.body",
    "feature pyramid": "backbone.fpn",
    "proposals: head": "rpn.head",
    "proposals: the rest, with NMS": "rpn",
    "boxes: cut from the maps": "roi_heads.box_roi_pool",
    "boxes: head": "roi_heads.box_head",
    "boxes: classes": "roi_heads.box_predictor",
    "boxes: the rest, with NMS": "roi_heads",
}


@contextmanager
def timed(network: nn.Module) -> Iterator[dict[str, float]]:
    """Yield the seconds in each part so far, which grow as the network runs."""
    spent = dict.fromkeys(PARTS, 0.0)
    running: list[tuple[str, float]] = []
    handles = []

    def enters(name: str) -> Callable[..., None]:
        return lambda *_: running.append((name, time.perf_counter()))

    def leaves(name: str) -> Callable[..., None]:
        def end(*_: Any) -> None:
            entered, started = running.pop()
            assert entered == name, f"{name} ended within {entered}"
            took = time.perf_counter() - started
            spent[name] += took
            if running:  # what is inside another is not its rest
                spent[running[-1][0]] -= took

        return end

    for name, path in PARTS.items():
        module = network.get_submodule(path)
        handles += [
            module.register_forward_pre_hook(enters(name)),
            module.register_forward_hook(leaves(name)),
        ]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def work_of(network: nn.Module, images: list[Tensor]) -> dict[str, float]:
    """Return the floating point operations of each part's convolutions and products, for an image."""
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        for image in images:
            network([image])
    counts = counter.get_flop_counts()
    name = type(network).__name__
    work = {path: float(sum(counts.get(f"{name}.{path}", {}).values())) for path in PARTS.values()}
    for path in sorted(work, key=len):  # what is inside another is not its rest
        work[path] -= sum(count for inside, count in work.items() if inside.startswith(f"{path}."))
    return {part: work[path] / len(images) for part, path in PARTS.items()}


def _pixels(path: Path) -> Tensor:
    pixels: Tensor = pil_to_tensor(open_image(path)).float() / 255
    return pixels


def product_rate(dtype: torch.dtype) -> float:
    """Return the floating point operations per second of a large matrix product, the best of several."""
    size = 2048
    one, other = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    best = 0.0
    for _ in range(12):
        started = time.perf_counter()
        one @ other
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def others_in_batches(photos: list[Tensor]) -> int:
    """Return how many photographs have other labels among their top three in batches of eight."""
    network = build_detector("demo_fasterrcnn", "default", 0.3).network
    with torch.inference_mode():
        alone = [network([photo])[0] for photo in photos]
        together = [
            found for start in range(0, len(photos), 8) for found in network(photos[start : start + 8])
        ]
    pairs = zip(alone, together, strict=True)
    return sum(not torch.equal(one["labels"][:3], other["labels"][:3]) for one, other in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    arithmetic = Arithmetic.of("cpu", options.precision)
    plain = build_detector("fasterrcnn_resnet50_fpn_v2", "random", 0.05)
    ours = copy.deepcopy(plain)
    ours.prepare(arithmetic)
    paths = sorted(options.photos.glob("*.jpg"))
    images = [_pixels(path) for path in paths[: options.images]]
    work = work_of(plain.network, images)
    seconds: dict[str, list[Mapping[str, float]]] = {"torchvision": [], "ours": []}
    for round_ in range(options.rounds + 1):
        for who, detector, precision in (
            ("torchvision", plain, "fp32"),
            ("ours", ours, arithmetic.precision),
        ):
            with (
                torch.inference_mode(),
                autocast(torch.device("cpu"), precision),
                timed(detector.network) as spent,
            ):
                started = time.perf_counter()
                for image in images:
                    detector.network([image])
                took = {**spent, WHOLE: time.perf_counter() - started}
            if round_:  # the first packs weights
                seconds[who].append(took)
            print(f"round {round_}: {who} {took[WHOLE] / len(images):.2f} s an image", flush=True)
    median = {
        who: {part: statistics.median(one[part] for one in rounds) / len(images) for part in (*PARTS, WHOLE)}
        for who, rounds in seconds.items()
    }
    half = arithmetic.precision == "bf16"
    rates = {
        "torchvision": product_rate(torch.float32),
        "ours": product_rate(torch.bfloat16 if half else torch.float32),
    }
    print("| part | GFLOP | torchvision, ms | ours, ms | ratio | of its limit |")
    print("| --- | --- | --- | --- | --- | --- |")
    for part in (*PARTS, WHOLE):
        count = work.get(part, sum(work.values()))
        was, now = (1e3 * median[who][part] for who in ("torchvision", "ours"))
        share = f"{1e3 * count / rates['ours'] / now:.2f}" if count else "-"
        print(f"| {part} | {count / 1e9:.1f} | {was:.1f} | {now:.1f} | {was / now:.2f} | {share} |")
    floor = sum(work.values()) / rates["ours"]
    photos = [_pixels(path) for path in paths[:32]]
    ratio = median["torchvision"][WHOLE] / median["ours"][WHOLE]
    bound = median["torchvision"][WHOLE] / floor
    report(
        "detect_parts",
        [
            Result("the network alone, ours over torchvision's fp32", ratio),
            Result("limit: its convolutions and products alone, at the rate of a large product", bound),
            Result("share of that limit that is reached", floor / median["ours"][WHOLE]),
            Result(
                f"photographs of {len(photos)} with other objects in batches of 8", others_in_batches(photos)
            ),
            Result("a large product, GFLOP/s, as ours", rates["ours"] / 1e9),
            Result("a large product, GFLOP/s, fp32", rates["torchvision"] / 1e9),
        ],
        {
            "seconds per image": median,
            "floating point operations per image": work,
            "precision": arithmetic.precision,
        },
        options.output,
        [
            Row(
                "detect, the network alone, fasterrcnn_resnet50_fpn_v2",
                "torchvision's network in fp32, as it comes",
                f"its convolutions and products alone at the rate of a large product: {bound:.2f}",
                f"{1 / median['ours'][WHOLE]:.2f} images/s",
                ratio,
            )
        ],
    )


if __name__ == "__main__":
    main()
