"""Detection, from image files to committed tables and crops, compared with torchvision's own Faster R-CNN.

    python benchmarks/detect_speed.py --photos DATA/photos [--images 16] [--rounds 2]

torchvision's network is called image by image in fp32.

Speed: the default detector, with random weights. Only the time spent on boxes that pass the threshold depends
on weights, and these boxes are few in any case. Both contenders take turns, each with the whole machine; each
figure is the median over the rounds. The workers are started and have their network before the first round.

Boxes: the demonstration's trained detector on scenes of the demonstration and on the photographs, at the fast
setting (and in bf16, if the fast setting is not bf16) against torchvision's own network in fp32. A box of the
top three counts as matched where the other top three contain one of the same label with an IoU of 0.9 or
more.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.pipeline.cluster.dask import default_workers
from hmnet_pipe.stages.base.arithmetic import Arithmetic, autocast
from hmnet_pipe.stages.demo.scenes import KINDS, draw_scene, stream
from hmnet_pipe.stages.vision.detectors.build import build_detector
from hmnet_pipe.stages.vision.detectors.detector import Detector
from hmnet_pipe.stages.vision.fused import for_inference
from hmnet_pipe.stages.vision.images import open_image
from photo_run import make_run, timed_stage, warm_cluster
from PIL import Image
from report import Result, Row, report
from torchvision.ops import box_iou
from torchvision.transforms.functional import pil_to_tensor

OBJECTS, MIN_SCORE = 3, 0.3


def eager_rate(detector: Detector, run: RunFolder) -> float:
    """Return the images per second of torchvision's network as it is, from files to boxes."""
    paths = read_table(run.images, IMAGES).column("path").to_pylist()
    started = time.perf_counter()
    for path in paths:
        with torch.inference_mode():
            detector.network([pil_to_tensor(open_image(Path(path))).float() / 255])
    return len(paths) / (time.perf_counter() - started)


def matched(images: list[Image.Image], arithmetic: Arithmetic) -> tuple[int, int]:
    """Return (boxes of the top three in plain fp32 that `arithmetic` also finds, all of them).

    The detector is the trained one.
    """
    plain, fast = (build_detector("demo_fasterrcnn", "default", MIN_SCORE) for _ in range(2))
    for_inference(fast.network, arithmetic)
    found = whole = 0
    for image in images:
        exact = plain.top_objects(image, OBJECTS, MIN_SCORE)
        with autocast(torch.device("cpu"), arithmetic.precision):
            other = fast.top_objects(image, OBJECTS, MIN_SCORE)
        whole += len(exact)
        if exact and other:
            same = torch.tensor([[a.label == b.label for b in other] for a in exact])
            iou = box_iou(torch.tensor([a.box for a in exact]), torch.tensor([b.box for b in other]))
            found += int(((iou >= 0.9) & same).any(dim=1).sum())
    return found, whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--detector", default="fasterrcnn_resnet50_fpn_v2")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    torch.set_num_threads(options.workers)
    arithmetic = Arithmetic.of("cpu", options.precision)
    eager = build_detector(options.detector, "random", 0.05)
    stage = {"detector": options.detector, "weights": "random", "precision": options.precision}
    times: dict[str, list[float]] = {"torchvision": [], "detect": []}
    with tempfile.TemporaryDirectory() as folder, warm_cluster(options.workers) as (cluster, start):
        run = make_run(Path(folder) / "run", options.photos, options.images)
        small = make_run(Path(folder) / "small", options.photos, 2 * options.workers)
        timed_stage(cluster, small, "detect", {**stage, "chunk": 1})
        for round_ in range(options.rounds):
            times["torchvision"].append(eager_rate(eager, run))
            times["detect"].append(
                options.images
                / timed_stage(cluster, run, "detect", {**stage, "chunk": max(1, options.images // 8)})
            )
            latest = {name: round(values[-1], 3) for name, values in times.items()}
            print(f"round {round_}: {latest} images/s", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    results = [
        Result("detect, images/s", medians["detect"]),
        Result(
            f"detect over torchvision's eager fp32 {options.detector}",
            medians["detect"] / medians["torchvision"],
            3.5,
        ),
    ]
    generator = torch.Generator().manual_seed(0)
    kinds = [
        [KINDS[i] for i in torch.randperm(len(KINDS), generator=generator)[: 1 + n % 3].tolist()]
        for n in range(options.scenes)
    ]
    pictures = {
        "scenes of the demonstration": [
            draw_scene(names, stream("detect_speed", n))[0] for n, names in enumerate(kinds)
        ],
        "photographs": [open_image(path) for path in sorted(options.photos.glob("*.jpg"))],
    }
    ways = [arithmetic]
    if arithmetic.precision != "bf16" and Arithmetic.of("cpu", "bf16").kernels == "onednn":
        ways.append(Arithmetic.of("cpu", "bf16"))
    for way in ways:
        counts = {label: matched(images, way) for label, images in pictures.items()}
        for label, (found, whole) in counts.items():
            results.append(
                Result(f"top-3 boxes as in fp32, {way.precision}, {whole} on {label}", found / whole, 0.97)
            )
    results.append(Result("start of the cluster, s", start))
    facts = {
        "images_per_second": times,
        "arithmetic": vars(arithmetic),
        "images": options.images,
        "workers": options.workers,
    }
    row = Row(
        f"detect, {options.detector}",
        "torchvision's network in fp32, image by image",
        "see detect_parts.py",
        f"{medians['detect']:.2f} images/s",
        medians["detect"] / medians["torchvision"],
    )
    report("detect_speed", results, facts, options.output, [row])


if __name__ == "__main__":
    main()
