"""Prediction: posts with images over bare networks, texts over transformers' pipeline, and a million posts.

    python benchmarks/predict_speed.py --photos DATA/photos [--texts DATA/twitter2015/valid.txt] [--rounds 3]
    python benchmarks/predict_speed.py --only million [--posts 1000000]
    python benchmarks/predict_speed.py --photos DATA/photos --quick     # whether all of it runs

Images: posts with a photograph each through the default detector and backbone and a model of hmnet, from
files to predictions, over the bare forward passes of the same detector and backbone on tensors, with the same
arithmetic, on all workers at once. Weights of the networks are random: they change no speed that is compared.
The workers are started before the first round, and what is compared is the command's work after that.

Texts: a model of bert-crf as a Predictor, with the probabilities of its spans, over transformers' own
token-classification pipeline with the same encoder, batch size and threads: as it comes, in fp32, and in the
precision of the model. --texts: a file in columns, a word a line; without one, words of tweets' lengths are
drawn.

A million posts: `hmnet-pipe predict` on text alone with a small encoder, on a tenth of them and on all, each
as a process of its own: seconds, those of the processor, and the peak memory of the largest process and of
all together.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from encoders import small_encoder
from hmnet_pipe import Predictor
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cluster.dask import default_workers
from hmnet_pipe.pipeline.cluster.memory import keep_freed_memory
from hmnet_pipe.pipeline.predict.command import predict_file
from hmnet_pipe.pipeline.predict.part import Models
from hmnet_pipe.pipeline.predict.predictor import PredictOptions
from hmnet_pipe.pipeline.predict.stage import Source
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.arithmetic import Arithmetic, autocast
from hmnet_pipe.stages.base.tools import SILENT, Tools
from hmnet_pipe.stages.text.encoders.files import DEMO_ENCODER, resolve_encoder
from hmnet_pipe.stages.text.written import cells_of
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.detectors.build import build_detector
from hmnet_pipe.stages.vision.fused import for_inference
from hmnet_pipe.stages.vision.images import open_image
from photo_run import Call, on_every_worker, warm_cluster
from report import Result, Row, report
from torchvision.transforms.functional import pil_to_tensor

DETECTOR, BACKBONE, VIEWS, SIZE, BATCH = "fasterrcnn_resnet50_fpn_v2", "resnet50", 4, 224, 64
MIN_SCORE = 0.05
WORDS = ("the game at last night with my friends", "Rain in Paris again , so we stay in .", "RT @someone :")


Found = tuple[list[Result], list[Row]]


def trained(
    folder: Path, system: str, photos: Sequence[Path], encoder: Path | str = DEMO_ENCODER
) -> RunFolder:
    """Return a run with a model of a system, trained for one epoch on a few posts: its speed is real."""
    images, texts = folder / "images", folder / "texts"
    images.mkdir(parents=True)
    texts.mkdir()
    lines = []
    for number, photo in enumerate(photos):
        (images / photo.name).write_bytes(photo.read_bytes())
        words = WORDS[number % len(WORDS)].split()
        tags = [["B-ORG", "B-PER", "B-LOC", "B-MISC"][number % 4], *["O"] * (len(words) - 1)]
        lines.append(json.dumps({"tokens": words, "tags": tags, "image": photo.name}))
    for split in ("train", "valid"):
        (texts / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = RunFolder(folder / "run")
    config = preset("custom", task="ner", text=texts, images=images, format="jsonl")
    tables: dict[str, dict[str, Any]] = {
        "detect": {"detector": DETECTOR, "weights": "random", "min_score": MIN_SCORE},
        "extract": {"backbone": BACKBONE, "weights": "random"},
        "train": {"encoder": str(encoder), "epochs": 1},
    }
    for stage, values in tables.items():
        config = config.override(stage, values)
    config.write(run.config)
    visual = ("detect", "extract") if system == "hmnet" else ()
    for name in ("prepare", *visual):
        run_stage(config.stage(name, run), SILENT)
    run_stage(RunConfig.read(run.config).stage("train", run, Trial(system)), SILENT)
    return run


# Posts with images.


@dataclass(frozen=True)
class Bare:
    """What a worker does for the bare rate: the networks' arithmetic, and photographs."""

    arithmetic: Arithmetic
    photos: tuple[str, ...]


def bare_rate(call: Call) -> float:
    """Return the images per second of the detector and the backbone over tensors, in one thread."""
    given: Bare = call.details
    detector = build_detector(DETECTOR, "random", MIN_SCORE)
    for_inference(detector.network, given.arithmetic)
    backbone = for_inference(build_backbone(BACKBONE, "random"), given.arithmetic)
    pixels = [pil_to_tensor(open_image(Path(path))).float() / 255 for path in given.photos]
    views = torch.randn(VIEWS, 3, SIZE, SIZE)

    def forward(image: torch.Tensor) -> None:
        detector.network([image])
        backbone(views)

    with torch.inference_mode(), autocast(torch.device("cpu"), given.arithmetic.precision):
        forward(pixels[0])
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < call.seconds:
            forward(pixels[done % len(pixels)])
            done += 1
    return done / (time.perf_counter() - started)


def with_images(folder: Path, photos: Path, count: int, rounds: int, seconds: float) -> Found:
    sources = sorted(photos.glob("*.jpg"))
    if not sources:
        raise SystemExit(f"no *.jpg in {photos}; name a folder of photographs with --photos")
    model = trained(folder / "model", "hmnet", sources[:8])
    images = folder / "posts"
    images.mkdir()
    for number in range(count):  # other bytes each, the same picture: nothing follows a JPEG's end of image
        (images / f"{number}.jpg").write_bytes(
            sources[number % len(sources)].read_bytes() + str(number).encode()
        )
    posts = folder / "posts.jsonl"
    rows = ({"text": WORDS[number % len(WORDS)], "image": f"{number}.jpg"} for number in range(count))
    posts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    workers = default_workers()
    models = Models(str(model.model(Trial("hmnet"))), None, "", "", "", "cpu", "auto", PredictOptions())
    details = Bare(Arithmetic.of("cpu", "auto"), tuple(map(str, sources[: min(16, count)])))
    rates: dict[str, list[float]] = {"bare": [], "predict": []}
    with warm_cluster(workers) as (cluster, _):
        for round_ in range(-1, rounds):  # the first, in which the workers open the networks, does not count
            bare = on_every_worker(cluster, workers, bare_rate, seconds, details)
            started = time.perf_counter()
            found = predict_file(
                models, Source(posts, images), folder / f"found{round_}", 1000, Tools(map=cluster.map)
            )
            ours = count / (time.perf_counter() - started)
            if found.failed:
                raise SystemExit(f"{found.failed} posts failed")
            print(f"round {round_}: bare {bare:.3f}, predict {ours:.3f} images/s", flush=True)
            if round_ >= 0:
                rates["bare"].append(bare)
                rates["predict"].append(ours)
    ratio = statistics.median(a / b for a, b in zip(rates["predict"], rates["bare"], strict=True))
    ours = statistics.median(rates["predict"])
    row = Row(
        f"predict, posts with an image, {DETECTOR} and {BACKBONE}",
        "the bare forward passes of both networks on tensors, same arithmetic",
        "the networks' forward passes",
        f"{ours:.2f} posts/s",
        ratio,
    )
    return [
        Result("posts with images, posts/s", ours),
        Result("posts with images over bare detector and backbone", ratio, 0.85),
    ], [row]


# Texts alone.


def tweets(path: Path | None, count: int) -> list[str]:
    """Return texts: those of a file in columns, or random words of tweets' lengths."""
    if path is None:
        rng = np.random.default_rng(0)
        words = " ".join(WORDS).split()
        return [" ".join(rng.choice(words, rng.integers(4, 35))) for _ in range(count)]
    texts: list[str] = []
    words = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = cells_of(line)
        if len(cells) > 1:
            words.append(cells[0])
        elif words:
            texts.append(" ".join(words))
            words = []
    return list(islice(texts, count))


def with_texts(folder: Path, texts: list[str], photos: Path, rounds: int) -> Found:
    from transformers import AutoModelForTokenClassification, AutoTokenizer, logging, pipeline

    logging.set_verbosity_error()  # the head of this peer is new, and its speed is that of any

    run = trained(folder / "texts", "bert-crf", sorted(photos.glob("*.jpg"))[:8])
    find = Predictor.from_pretrained(run.model(Trial("bert-crf")), device="cpu")
    [ours] = find.models
    source = resolve_encoder(DEMO_ENCODER)
    tokenizer = AutoTokenizer.from_pretrained(source)
    kinds = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if ours.precision == "bf16" else {})
    contenders: dict[str, Callable[[], Any]] = {"Predictor": partial(find, texts)}
    for name, kind in kinds.items():
        network = AutoModelForTokenClassification.from_pretrained(
            source, num_labels=len(ours.config.labels), dtype=kind
        )
        peer = pipeline(
            "token-classification",
            model=network,
            tokenizer=tokenizer,
            aggregation_strategy="simple",
            device="cpu",
            batch_size=BATCH,
        )
        contenders[f"pipeline, {name}"] = partial(peer, texts)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(-1, rounds):
        for name, work in contenders.items():
            started = time.perf_counter()
            work()
            if round_ >= 0:
                rates[name].append(len(texts) / (time.perf_counter() - started))
                print(f"round {round_}: {name} {rates[name][-1]:.0f} posts/s", flush=True)
    rate = statistics.median(rates["Predictor"])
    results = [Result(f"texts alone, posts/s, {ours.precision}", rate)]
    rows = []
    for name in list(contenders)[1:]:
        ratio = statistics.median(a / b for a, b in zip(rates["Predictor"], rates[name], strict=True))
        asked = 2.0 if name == "pipeline, fp32" else None
        results.append(Result(f"texts alone over transformers' {name}, batches of {BATCH}", ratio, asked))
        rows.append(
            Row(
                f"predict, text alone, bert-crf of {DEMO_ENCODER}, {ours.precision}",
                f"transformers' token-classification {name}, same encoder and batches of {BATCH}",
                "the encoder's matrix products",
                f"{rate:.0f} posts/s",
                ratio,
            )
        )
    return results, rows


# A million posts.


def measured(command: list[str]) -> tuple[float, float, float, float]:
    """Run a command; return what it took.

    Its seconds, those of the processor, and the peaks of its largest process and of all its own, in GB.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    started = time.perf_counter()
    largest = together = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal largest, together
        while not done.wait(0.2):
            sizes = []
            for one in [process, *process.children(recursive=True)]:
                try:
                    # What processes share, such as libraries, is counted once for each.
                    sizes.append(one.memory_info().rss)
                except psutil.Error:
                    continue
            if sizes:
                largest, together = max(largest, *sizes), max(together, sum(sizes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    done.set()
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, worked, largest / 1e9, together / 1e9


def a_million(folder: Path, texts: list[str], photos: Path, count: int) -> Found:
    encoder = small_encoder(folder / "encoder", width=64, layers=2)
    run = trained(folder / "million", "bert-crf", sorted(photos.glob("*.jpg"))[:8], encoder)
    model = str(run.model(Trial("bert-crf")))
    work = {}
    results = []
    for number in (count // 10, count):
        posts = folder / f"{number}.txt"
        with posts.open("w", encoding="utf-8") as file:
            file.writelines(texts[i % len(texts)] + "\n" for i in range(number))
        output = folder / f"found-{number}"
        command = [sys.executable, "-m", "hmnet_pipe", "predict", model, str(posts), "--output", str(output)]
        wall, work[number], largest, together = measured([*command, "--device", "cpu", "--json"])
        lines = (output / "predictions.jsonl").open("rb")
        with lines:
            assert sum(1 for _ in lines) == number
        results += [
            Result(f"{number:,} posts of text alone, s", wall),
            Result(f"{number:,} posts of text alone, s of the processor", work[number]),
            Result(f"{number:,} posts of text alone, largest process, GB", largest, 1.5, at_most=True),
            Result(f"{number:,} posts of text alone, all processes, GB", together),
        ]
        print(f"{number:,} posts: {wall:.0f} s, {work[number]:.0f} s of the processor", flush=True)
    growth = work[count] / work[count // 10]
    return [*results, Result("the processor's seconds, all over a tenth", growth, 10.5, at_most=True)], []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--only", choices=("images", "texts", "million"))
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few posts, one round; its figures are noise")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    keep_freed_memory()  # as the command does
    seconds, many = 15.0, 2000
    if options.quick:
        options.images, options.posts, options.rounds, seconds, many = 4, 1000, 1, 1.0, 100
    texts = tweets(options.texts, many)
    results: list[Result] = []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: dict[str, Callable[[], Found]] = {
            "images": lambda: with_images(folder, options.photos, options.images, options.rounds, seconds),
            "texts": lambda: with_texts(folder, texts, options.photos, options.rounds),
            "million": lambda: a_million(folder, texts, options.photos, options.posts),
        }
        for part in parts if options.only is None else [options.only]:
            found = parts[part]()
            results += found[0]
            rows += found[1]
    words = sum(len(text.split()) for text in texts) / len(texts)
    facts = {"images": options.images, "rounds": options.rounds, "words_per_text": round(words, 1)}
    name = "predict_speed" if options.only is None else f"predict_speed_{options.only}"
    report(name, results, facts, options.output, rows)


if __name__ == "__main__":
    main()
