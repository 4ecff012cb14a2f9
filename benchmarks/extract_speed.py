"""Extraction, from image files to committed shards, over a bare ResNet-50, and how exact the fast setting is.

    python benchmarks/extract_speed.py --photos DATA/photos [--images 256] [--rounds 3]

Every image has three boxes, hence four views. Weights are random: they change no speed. All contenders take
turns, each with the whole machine; each figure is the median over the rounds. The workers are started and
have their network before the first round.

The best bare forward is the best of: torch.compile with frozen weights, channels last, in batches of 32
(where there is a C++ compiler); the fused kernels in batches of 4, 8 and 32 with all threads; and the fused
kernels in batches of 4 on all workers at once, one thread each. It has the precision of the stage, and does
nothing but the forward pass over existing tensors.
"""

import argparse
import copy
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torchvision
from hmnet_pipe.pipeline.cluster.dask import default_workers
from hmnet_pipe.stages.base.arithmetic import Arithmetic, autocast
from hmnet_pipe.stages.vision.backbones.backbone import Backbone
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.demo import DEMO_WEIGHTS
from hmnet_pipe.stages.vision.fused import for_inference
from hmnet_pipe.stages.vision.images import open_image
from hmnet_pipe.stages.vision.pooling import pooled_and_joined
from hmnet_pipe.stages.vision.views import cut_views, normalise
from photo_run import Call, make_run, on_every_worker, timed_stage, warm_cluster, with_boxes
from report import Result, report
from torch import Tensor

SIZE, POOLED, VIEWS = 224, 2, 4


def rate(forward: Callable[[Tensor], object], batch: int, seconds: float = 4.0) -> float:
    """Return the views per second."""
    views = torch.randn(batch, 3, SIZE, SIZE)
    with torch.inference_mode():
        forward(views)
        forward(views)
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            forward(views)
            done += batch
    return done / (time.perf_counter() - started)


def fused(arithmetic: Arithmetic) -> Backbone:
    return for_inference(build_backbone("resnet50", "random"), arithmetic)


def rate_on_worker(call: Call) -> float:
    """Return the rate of the fused kernels in batches of an image's views, in one thread of a worker."""
    return rate(fused(call.details), VIEWS, call.seconds)


def compiled(arithmetic: Arithmetic) -> Callable[[Tensor], Tensor]:
    import torch._inductor.config

    torch._inductor.config.freezing = True
    network = build_backbone("resnet50", "random").requires_grad_(False).to(memory_format=torch.channels_last)
    run = torch.compile(network)

    def forward(views: Tensor) -> Tensor:
        with autocast(torch.device("cpu"), arithmetic.precision):
            made: Tensor = run(views.contiguous(memory_format=torch.channels_last))
            return made

    return forward


def least_cosine(network: Backbone, arithmetic: Arithmetic, photos: Path, count: int = 40) -> float:
    """Return the least cosine between `arithmetic` and plain fp32.

    It is taken over every view and level of `count` photographs with random boxes.
    """
    levels = list(network.info.levels)
    fast = for_inference(copy.deepcopy(network), arithmetic)
    found = []
    generator = torch.Generator().manual_seed(0)
    for path in sorted(photos.glob("*.jpg"))[:count]:
        image = open_image(path)
        corners = torch.rand(VIEWS - 1, 2, 2, generator=generator).sort(dim=1).values * torch.tensor(
            [image.width, image.height]
        )
        boxes = [tuple(box.flatten().tolist()) for box in corners]
        pixels = cut_views(image, boxes, network.info.transform(SIZE))
        views = normalise(torch.from_numpy(pixels), network.info.mean, network.info.std)
        with torch.inference_mode():
            exact = pooled_and_joined(network(views), POOLED).split(levels, dim=1)
            with autocast(torch.device("cpu"), arithmetic.precision):
                coarse = pooled_and_joined(fast(views), POOLED).half().float().split(levels, dim=1)
        found += [
            torch.cosine_similarity(a.flatten(1), b.flatten(1)).min().item()
            for a, b in zip(exact, coarse, strict=True)
        ]
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    torch.set_num_threads(options.workers)
    arithmetic = Arithmetic.of("cpu", options.precision)
    eager = torchvision.models.resnet50(weights=None).eval()
    packed = fused(arithmetic)

    def forward(views: Tensor) -> Tensor:
        with autocast(torch.device("cpu"), arithmetic.precision):
            made: Tensor = packed(views)
            return made

    contenders: dict[str, Callable[[], float]] = {
        "torchvision eager fp32, batches of 32": lambda: rate(eager, 32)
    }
    for batch in (4, 8, 32):
        contenders[f"fused, batches of {batch}, {options.workers} threads"] = partial(rate, forward, batch)
    if shutil.which("c++") or shutil.which("g++"):
        frozen = compiled(arithmetic)
        contenders["torch.compile, frozen, batches of 32"] = lambda: rate(frozen, 32)
    shard_rows = max(1, options.images // (4 * options.workers))  # several tasks per worker, as in a long job
    stage = {"weights": "random", "precision": options.precision, "shard_rows": shard_rows}
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, warm_cluster(options.workers) as (cluster, start):
        run = make_run(Path(folder) / "run", options.photos, options.images)
        small = make_run(Path(folder) / "small", options.photos, 2 * options.workers)
        for each in (run, small):
            with_boxes(each)
        timed_stage(cluster, small, "extract", {**stage, "shard_rows": 1})
        name = f"fused, batches of {VIEWS}, {options.workers} workers of one thread"
        contenders[name] = lambda: on_every_worker(cluster, options.workers, rate_on_worker, 4.0, arithmetic)
        contenders["extract"] = lambda: VIEWS * options.images / timed_stage(cluster, run, "extract", stage)
        for round_ in range(options.rounds):
            for name, measure in contenders.items():
                times.setdefault(name, []).append(measure())
                print(f"round {round_}: {name}: {times[name][-1]:.1f} views/s", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    whole, bare = medians.pop("extract"), medians["torchvision eager fp32, batches of 32"]
    best = max(medians, key=lambda name: medians[name])
    demo = build_backbone("demo_resnet", str(DEMO_WEIGHTS))
    resnet50 = build_backbone("resnet50", "random")
    results = [
        Result("extract, views/s", whole),
        Result("extract over torchvision's eager fp32 ResNet-50", whole / bare, 4.5),
        Result(f"extract over the best bare forward ({best})", whole / medians[best], 0.9),
    ]
    for label, network in (("trained demo_resnet", demo), ("random resnet50", resnet50)):
        results.append(
            Result(
                f"least cosine to fp32, {arithmetic.precision}, {label}",
                least_cosine(network, arithmetic, options.photos),
                0.999,
            )
        )
        coarse = Arithmetic.of("cpu", "bf16")
        if arithmetic.precision != "bf16" and coarse.kernels == "onednn":
            results.append(
                Result(
                    f"least cosine to fp32, bf16, {label}",
                    least_cosine(network, coarse, options.photos),
                    0.999,
                )
            )
    results.append(Result("start of the cluster, s", start))
    facts = {
        "views_per_second": times,
        "arithmetic": vars(arithmetic),
        "images": options.images,
        "workers": options.workers,
    }
    report("extract_speed", results, facts, options.output)


if __name__ == "__main__":
    main()
