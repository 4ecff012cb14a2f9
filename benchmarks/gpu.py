"""What a GPU makes of extract, detect, train and predict, as ratios to bare torch on the same GPU in one run.

    python benchmarks/gpu.py                              on whatever GPU there is
    python benchmarks/gpu.py --device cpu --quick         a smoke test: small, and no figure of any worth

Nothing is downloaded and no data is needed: images are drawn, texts have random words and lengths like those
of tweets, weights are random. Writes gpu.json and gpu.md into --output.

Bare torch is what a user would write instead. For extract and detect: torchvision's network in bf16, and
torch's own DataLoader with a process for every core that decodes, crops and resizes with Pillow. For train
and predict: transformers' BERT with torch's own attention, a linear head, cross entropy, bf16, fused AdamW
and clipping, over the same batches, made beforehand and kept on the GPU.

Each figure is the median over the rounds. "GPU busy" is the share of the time in which the driver saw a
kernel run, and "peak memory" what all processes together had on the GPU at most.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from gpu_texts import measure_texts
from gpu_turns import QUICK, Measured, Sizes, halved, take_turns
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD, Transform
from hmnet_pipe.manifests.machine import usable_cores
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS, IMAGES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.pipeline.report.text import text_table
from hmnet_pipe.stages.base.arithmetic import resolve_device
from hmnet_pipe.stages.vision.images import open_image
from hmnet_pipe.stages.vision.views import cut_views, normalise
from photo_run import make_run, timed_stage, warm_cluster, with_boxes
from PIL import Image
from report import Result, Row, report
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

TRANSFORM = Transform(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
DETECTOR = "fasterrcnn_resnet50_fpn_v2"


def draw_photographs(folder: Path, count: int = 16) -> Path:
    """Draw pictures of 1024 x 768 pixels that a JPEG decoder has as much work with as with photographs."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((1024, 768), Image.Resampling.BICUBIC), np.int16)
        grain = rng.normal(0, 8, smooth.shape).astype(np.int16)
        picture = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{number}.jpg", quality=90)
    return folder


class Views(torch.utils.data.Dataset[Tensor]):
    """The views of each image of a run, as a first script would cut them."""

    def __init__(self, run: RunFolder) -> None:
        self._paths = {row["key"]: row["path"] for row in read_table(run.images, IMAGES).to_pylist()}
        boxes: dict[str, list[Any]] = {key: [] for key in self._paths}
        for row in read_table(run.detections, DETECTIONS).to_pylist():
            boxes[row["image_key"]].append(tuple(row[name] for name in ("x0", "y0", "x1", "y1")))
        self._images = [(self._paths[key], found) for key, found in boxes.items()]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> Tensor:
        path, boxes = self._images[number]
        return torch.from_numpy(cut_views(open_image(Path(path)), boxes, TRANSFORM))


class Pictures(Views):
    """The images of a run, decoded."""

    def __getitem__(self, number: int) -> Tensor:
        made: Tensor = pil_to_tensor(open_image(Path(self._images[number][0])))
        return made


def loader(data: Views, batch: int, device: torch.device, together: Any) -> Iterator[Any]:
    """Return torch's own loader with a process for every core."""
    return iter(
        torch.utils.data.DataLoader(
            data,
            batch,
            num_workers=min(usable_cores(), len(data)),
            pin_memory=device.type == "cuda",
            collate_fn=together,
            multiprocessing_context="fork",
        )
    )


def measure_extract(folder: Path, photos: Path, sizes: Sizes, device: torch.device) -> dict[str, Measured]:
    run = make_run(folder / "extract", photos, sizes.images)
    with_boxes(run)
    network = torchvision.models.resnet50(weights=None).eval().to(device, memory_format=torch.channels_last)
    network.fc = nn.Identity()
    data = Views(run)

    def forward(batch: int) -> Callable[[], int]:
        pixels = torch.rand(batch, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
        turns = -(-4 * sizes.images // batch)

        def bare() -> int:
            with torch.inference_mode(), halved(device):
                for _ in range(turns):
                    network(pixels)
            return turns * batch // 4

        return bare

    def script() -> int:
        with torch.inference_mode(), halved(device):
            for views in loader(data, 16, device, torch.cat):
                pixels = normalise(views.to(device, non_blocking=True), IMAGENET_MEAN, IMAGENET_STD)
                network(pixels).cpu()
        return len(data)

    contenders: dict[str, Callable[[], int]] = {
        **{f"torch, forward alone, {batch} views": forward(batch) for batch in (32, 256)},
        "torch, DataLoader and forward": script,
    }
    return with_stage("extract", contenders, run, photos, folder, sizes, device, len(data))


def measure_detect(folder: Path, photos: Path, sizes: Sizes, device: torch.device) -> dict[str, Measured]:
    run = make_run(folder / "detect", photos, sizes.detected)
    with_boxes(run)
    build: Any = torchvision.models.get_model
    network = build(DETECTOR, weights=None, weights_backbone=None).eval().to(device)
    data = Pictures(run)

    def script(batch: int) -> Callable[[], int]:
        def run_() -> int:
            with torch.inference_mode(), halved(device):
                for pictures in loader(data, batch, device, list):
                    found = network([each.to(device, torch.float32) / 255 for each in pictures])
                    [each["boxes"].cpu() for each in found]
            return len(data)

        return run_

    contenders = {f"torch, DataLoader and forward, {batch} images": script(batch) for batch in (1, 8)}
    return with_stage("detect", contenders, run, photos, folder, sizes, device, len(data))


def with_stage(
    name: str,
    contenders: dict[str, Callable[[], int]],
    run: RunFolder,
    photos: Path,
    folder: Path,
    sizes: Sizes,
    device: torch.device,
    images: int,
) -> dict[str, Measured]:
    """Measure the contenders, and the stage itself with each number of workers, one cluster after another."""
    found = take_turns(name, "images", contenders, sizes.rounds, device)
    unit = "shard_rows" if name == "extract" else "chunk"
    for workers in sizes.workers:
        options = {"weights": "random", "device": str(device), unit: max(1, min(64, images // (2 * workers)))}
        if name == "detect":
            options["detector"] = DETECTOR
        with warm_cluster(workers) as (cluster, _):
            small = make_run(folder / f"{name}-{workers}", photos, 2 * workers)
            with_boxes(small)
            timed_stage(cluster, small, name, {**options, unit: 1})  # every worker builds its network

            def stage(cluster: Any = cluster, options: Any = options) -> int:
                timed_stage(cluster, run, name, options)
                return images

            called = f"{name}, {workers} workers"
            found |= take_turns(name, "images", {called: stage}, sizes.rounds - 1 or 1, device)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, cpu")
    parser.add_argument("--photos", type=Path, help="folder of *.jpg to use instead of drawn pictures")
    parser.add_argument("--quick", action="store_true", help="small sizes, only to see whether it runs")
    parser.add_argument("--workers", type=int, nargs="+", help="numbers of workers for extract and detect")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--samples", type=int, help="texts that are trained on and predicted")
    parser.add_argument("--compiled", action="store_true", help="train with a compiled text encoder as well")
    parser.add_argument("--parts", nargs="+", default=["extract", "detect", "texts"])
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    device = resolve_device(options.device)
    if device.type == "cpu" and options.device == "auto":
        raise SystemExit(
            "torch finds no GPU here: there is nothing to measure (to see that it runs: --device cpu --quick)"
        )
    sizes = QUICK if options.quick else Sizes()
    if options.workers:
        sizes = replace(sizes, workers=tuple(options.workers))
    if options.rounds:
        sizes = replace(sizes, rounds=options.rounds)
    sizes = replace(sizes, compiled=options.compiled)
    if options.samples:
        sizes = replace(sizes, samples=options.samples)
    torch.manual_seed(0)
    tables: dict[str, dict[str, Measured]] = {}
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = options.photos or draw_photographs(folder / "photos")
        if "texts" in options.parts:
            tables["train"], tables["predict"], facts = measure_texts(folder, sizes, device)
        if "extract" in options.parts:
            tables["extract"] = measure_extract(folder, photos, sizes, device)
        if "detect" in options.parts:
            tables["detect"] = measure_detect(folder, photos, sizes, device)
    results: list[Result] = []
    rows: list[Row] = []
    lines: list[list[Any]] = []
    for stage, table in tables.items():
        peers = {name: of.rate for name, of in table.items() if name.startswith("torch")}
        whole = {name: rate for name, rate in peers.items() if "alone" not in name}
        best, peer = (max(group, key=lambda name: group[name]) for group in (peers, whole))
        limit = f"{best}: {peers[best]:.0f} {table[best].unit}/s" if best != peer else ""
        for contender, of in table.items():
            rate, ratio = f"{of.rate:.0f} {of.unit}/s", of.rate / peers[best]
            if contender not in peers:
                results.append(Result(f"{contender}, over {best}", ratio))
                rows.append(Row(contender, peer, limit, rate, of.rate / peers[peer]))
            shares = ["" if value is None else value for value in of.facts.values()]
            lines.append([stage, contender, rate, "" if contender in peers else ratio, *shares])
    heads = ["stage", "contender", "rate", "over the best of torch", "GPU busy, %", "peak memory, GiB"]
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    report(
        "gpu",
        results,
        {
            "device": card,
            "training": facts,
            "tables": {stage: {n: vars(m) for n, m in of.items()} for stage, of in tables.items()},
        },
        options.output,
        rows,
    )
    print(f"\n{card}, torch {torch.__version__}\n{text_table(heads, lines)}")
    whole_table: list[list[Any]] = [heads, ["---"] * len(heads), *lines]
    cells = [
        [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in line] for line in whole_table
    ]
    markdown = "\n".join("| " + " | ".join(line) + " |" for line in cells)
    (options.output / "gpu.md").write_text(
        f"{card}, torch {torch.__version__}\n\n{markdown}\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
