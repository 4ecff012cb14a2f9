"""Training speed of every system over the text-only one of its task, on the demonstration's corpora.

    python benchmarks/systems_speed.py [--task re] [--systems umt mega] [--rounds 3]
    python benchmarks/systems_speed.py --quick        # whether all of it runs; its figures are noise

All systems take turns on the same samples in one run, in one thread, and what is counted are seconds of the
processor, so that other work on the machine changes little; each figure is the median over the rounds.
"ready" is the same step, forward, backward and update, on batches that lie finished in memory: what a system
loses to making its batches shows there. Peak memory is that of a process of its own, which trains one epoch,
libraries included. The figures also come as a table in Markdown, a row for each system.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hmnet_pipe import FeatureCache
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cluster.memory import keep_freed_memory
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.graph import stage_named
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.demo.corpus import write_demo_corpus
from hmnet_pipe.stages.learning.batches import batches, bucketed_order
from hmnet_pipe.stages.learning.checkpoint import Checkpoints
from hmnet_pipe.stages.learning.fit import config_of, read_data
from hmnet_pipe.stages.learning.inputs import makers
from hmnet_pipe.stages.learning.loop import Task, Trainer
from hmnet_pipe.stages.learning.ranks import Ranks
from hmnet_pipe.stages.systems.batch import Batch
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.registry import SYSTEMS
from report import Result, report

TEXT_ONLY = {"ner": "bert-crf", "re": "mtb"}


@dataclass(frozen=True)
class Contender:
    """A system ready to train.

    epoch, ready: one pass over the samples, from the tables or from tensors. making: makes the batches alone.
    """

    epoch: Callable[[], None]
    ready: Callable[[], None]
    making: Callable[[], object]


def make_run(folder: Path, task: str, systems: list[str], samples: int) -> RunFolder:
    """Make a run of the demonstration with all that the systems read."""
    corpus = folder / "corpus"
    write_demo_corpus(corpus, task, sizes={"train": samples, "valid": 1, "test": 1})
    config = preset("demo", task=task, text=corpus, images=corpus / "images", format="jsonl")
    run = RunFolder(folder / "run")
    config.write(run.config)
    read = {stage for name in systems for stage in makers(SYSTEMS[name], SYSTEMS[name].feature_set())}
    order = ["prepare", "detect", *sorted(read - {"prepare", "detect"})]
    for name in order:
        run_stage(stage_named(config, run, name), SILENT)
    return run


def contender(run: RunFolder, system: str) -> Contender:
    """Return the training loop itself, as `hmnet-pipe train` makes it, and its parts."""
    stage: Any = RunConfig.read(run.config).stage("train", run, Trial(system))
    job = stage.job(stage.settings, stage.settings.rates, stage.causes(SILENT), SILENT)
    name = SYSTEMS[system].feature_set()
    cache = FeatureCache(run.features(name)) if name is not None else None
    spec = cache.spec if cache is not None else None
    torch.manual_seed(1)
    data = read_data(job, cache, SILENT, spec)
    model = new_system(job.encoder, config_of(job, data, spec), data.reader)
    # Of the validation split nothing is used: epochs are timed without their scores.
    task = Task(system, job.recipe, 1, data.splits, cache, data.reader.pad_id, job.rates, None)
    trainer = Trainer(task, model, Checkpoints(run.path / "work" / system, every=math.inf), Ranks())
    split = data.splits["train"]
    size = job.recipe.batch_size
    lengths = [len(text.input_ids) for text in split.texts]
    order = bucketed_order(lengths, size, torch.Generator().manual_seed(1))

    def made() -> list[Batch]:
        labels = {label: number for number, label in enumerate(model.config.labels)}
        return list(
            batches(
                split,
                order,
                task=job.task,
                pad_id=data.reader.pad_id,
                label_ids=labels,
                visuals=cache,
            )
        )

    finished = made()

    def ready() -> None:
        model.train()
        for batch in finished:
            trainer._forward(batch, batch.ids)
            trainer._update()
        trainer._losses.read()

    def epoch() -> None:
        trainer.train_epoch(SILENT.bar(0, "", ""), lambda name, value, step: None)
        trainer.progress.batch = 0

    return Contender(epoch, ready, made)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of the processor that all threads of this process work."""
    started = time.process_time()
    work()
    return time.process_time() - started


def peak_of(run: RunFolder, system: str) -> float:
    """Return the peak memory in MB of a process that trains one epoch."""
    command = [sys.executable, __file__, "--memory-of", system, "--run", str(run.path)]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(child.stdout.splitlines()[-1]))


def own_peak() -> float:
    """Return this process's peak memory in MB; getrusage would count what its parent had before it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def measure(folder: Path, task: str, systems: list[str], samples: int, rounds: int) -> list[Result]:
    """Return the figures of the systems of a task, the text-only one among them."""
    run = make_run(folder, task, systems, samples)
    contenders = {name: contender(run, name) for name in systems}
    for one in contenders.values():
        one.ready()  # kernels are chosen and memory is taken in the first pass
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, one in contenders.items():
            times[name].append((seconds(one.epoch), seconds(one.ready), seconds(one.making)))
    results = []
    for name, rows in times.items():
        base = times[TEXT_ONLY[task]]
        speed = statistics.median(there[0] / here[0] for here, there in zip(rows, base, strict=True))
        of_ready = statistics.median(row[1] / row[0] for row in rows)
        making = statistics.median(row[2] / row[0] for row in rows)
        peak = peak_of(run, name)
        print(f"{task} {name}: {speed:.2f}, {of_ready:.2f}, {making:.1%}, {peak:.0f} MB", flush=True)
        results += [
            Result(f"{task} {name}: samples/s over {TEXT_ONLY[task]}", speed),
            Result(f"{task} {name}: over its own step on ready tensors", of_ready, 0.8),
            Result(f"{task} {name}: making batches, share of the epoch", making),
            Result(f"{task} {name}: peak memory, MB", peak),
        ]
    return results


def markdown(task: str, results: list[Result]) -> str:
    """Return the results of a task as a table, a row for each system."""
    head = ("system", *(result.what.split(": ")[1] for result in results[:4]))
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for first in range(0, len(results), 4):
        name = results[first].what.removeprefix(f"{task} ").split(": ")[0]
        speed, of_ready, making, peak = (result.value for result in results[first : first + 4])
        lines.append(f"| `{name}` | {speed:.2f} | {of_ready:.2f} | {making:.1%} | {peak:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=list(TEXT_ONLY), help="only this task")
    parser.add_argument("--systems", nargs="*", default=[], help="only these systems")
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="32 samples, one round")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()  # as the command does; it helps all contenders alike
    torch.set_num_threads(1)  # several would spin while they wait for each other
    if options.memory_of:
        contender(RunFolder(options.run), options.memory_of).epoch()
        print(json.dumps(own_peak()))
        return
    if options.quick:
        options.samples, options.rounds = 32, 1
    results: list[Result] = []
    tables: list[str] = []
    for task in [options.task] if options.task else list(TEXT_ONLY):
        wanted = [
            name
            for name, info in SYSTEMS.items()
            if task in info.tasks and (not options.systems or name in (*options.systems, TEXT_ONLY[task]))
        ]
        with tempfile.TemporaryDirectory() as name:
            of_task = measure(Path(name), task, wanted, options.samples, options.rounds)
        results += of_task
        tables.append(markdown(task, of_task))
    report("systems_speed", results, {"samples": options.samples, "rounds": options.rounds}, options.output)
    print("", *tables, sep="\n\n")


if __name__ == "__main__":
    main()
