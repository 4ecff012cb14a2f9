"""What training through the backbone costs: time and memory per step, by the number of unfrozen stages.

    python benchmarks/finetune_cost.py [--steps 3]

The dimensions are those of bert-base and ResNet-50 with random weights, 8 texts of 32 sub-words, and 4 views
of 224 pixels each. Training on the cache is measured for comparison. Every row is a process of its own, so
that its peak of memory is its own.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from hmnet_pipe.stages.base.arithmetic import autocast, resolve_precision
from hmnet_pipe.stages.learning.optimizer import make_optimizer, parameter_groups
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.end_to_end import EndToEnd
from hmnet_pipe.stages.systems.system import Model
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from report import Result, report
from train_speed import BATCH, LABELS, SPEC, make_encoder

LENGTH, WORDS, SIDE = 32, 20, 224


def batch_of(pixels: bool) -> Batch:
    generator = torch.Generator().manual_seed(0)
    views = (
        torch.randint(0, 256, (BATCH, SPEC.views, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
        if pixels
        else torch.rand(BATCH, *SPEC.row_shape, generator=generator).half()
    )
    return Batch(
        input_ids=torch.randint(5, 30000, (BATCH, LENGTH), generator=generator),
        attention_mask=torch.ones(BATCH, LENGTH, dtype=torch.bool),
        positions=torch.arange(1, WORDS + 1).expand(BATCH, WORDS),
        position_mask=torch.ones(BATCH, WORDS, dtype=torch.bool),
        labels=torch.zeros(BATCH, WORDS, dtype=torch.long),
        views=views,
        view_mask=torch.ones(BATCH, SPEC.views, dtype=torch.bool),
        ids=list(range(BATCH)),
    )


def measure(
    encoder: Path, unfreeze: int | None, recompute: bool, steps: int, precision: str
) -> dict[str, float]:
    """Return the seconds per step and the bytes of memory at its peak. unfreeze: None trains on the cache."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    settings, device = TrainSettings(), torch.device("cpu")
    system = new_system(encoder, ModelConfig("hmnet", "ner", LABELS, SPEC.levels, "markers", 128, {}, None))
    model: Model = system
    if unfreeze is not None:
        model = EndToEnd(
            system,
            build_backbone("resnet50", "random", recompute=recompute),
            SPEC.pooled,
            unfreeze=unfreeze,
        )
    optimizer = make_optimizer(parameter_groups(model, {**settings.rates, "backbone": 1e-5}, 0.01), settings)
    batch = batch_of(pixels=unfreeze is not None)
    model.train()
    times = []
    for _ in range(1 + steps):
        started = time.perf_counter()
        with autocast(device, resolve_precision(precision, device)):
            loss = model.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - started)
    return {
        "seconds": statistics.median(times[1:]),
        "bytes": 1024.0 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3, help="timed steps per row, after one untimed step")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.row:
        encoder, unfreeze, recompute = options.row
        choice = None if unfreeze == "cache" else int(unfreeze)
        print(
            json.dumps(measure(Path(encoder), choice, recompute == "True", options.steps, options.precision))
        )
        return
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        encoder = make_encoder(Path(folder))
        for unfreeze, recompute in [
            ("cache", False),
            *((number, False) for number in range(6)),
            (4, True),
            (5, True),
        ]:
            name = (
                "train, on the cache"
                if unfreeze == "cache"
                else f"finetune, unfreeze {unfreeze}{', recompute' if recompute else ''}"
            )
            command = [sys.executable, __file__, "--steps", options.steps, "--precision", options.precision]
            command += ["--row", encoder, unfreeze, recompute]
            child = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
            rows[name] = json.loads(child.stdout.splitlines()[-1])
            print(name, rows[name], file=sys.stderr)
    cache = rows["train, on the cache"]
    results = []
    for name, row in rows.items():
        results += [
            Result(f"{name}: s per step", row["seconds"]),
            Result(f"{name}: times train's", row["seconds"] / cache["seconds"]),
        ]
        results.append(Result(f"{name}: GB at the peak", row["bytes"] / 1e9))
    report("finetune_cost", results, {"rows": rows, "steps": options.steps}, options.output)


if __name__ == "__main__":
    main()
