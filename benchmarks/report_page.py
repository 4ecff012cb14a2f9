"""How long the report of a run takes, and how much memory: 3,000 test samples and 10 trainings.

    python benchmarks/report_page.py [--samples 3000] [--seeds 5]

A corpus of the demonstration is made with so many test samples, and hmnet and bert-crf are trained on few.
Their further seeds are copies whose predictions differ at random from the first's: the report reads them all
the same. Measured is the command, in a process of its own, where all is evaluated; and, for comparison, the
first time, when it evaluates hmnet three times.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import PREDICTIONS
from hmnet_pipe.manifests.tables import read_table, table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.run.new import prepare_run
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.demo.corpus import write_demo_corpus
from hmnet_pipe.stages.learning.predictions import score_split
from hmnet_pipe.stages.learning.splits import Split
from report import Result, report
from start_up import cost

SECONDS, MEGABYTES, PAGE_MEGABYTES = 20.0, 1000.0, 10.0
# The share of labelled words whose type another seed takes for another one.
_OTHERWISE = 0.05


def make_run(folder: Path, samples: int, seeds: int) -> RunFolder:
    """Return a run with trainings of two systems and of `seeds` seeds each."""
    corpus = folder / "corpus"
    write_demo_corpus(corpus, "ner", sizes={"train": 300, "valid": 100, "test": samples})
    run = RunFolder(folder / "run")
    config = preset("demo", task="ner", text=corpus, images=corpus / "images", format="jsonl")
    config = config.override("train", {"epochs": 1, "first_evaluation": 1})
    prepare_run(run, config, SILENT)
    for name in ("detect", "extract"):
        run_stage(config.stage(name, run), SILENT)
    for system in ("hmnet", "bert-crf"):
        run_stage(config.stage("train", run, Trial(system)), SILENT)
        for seed in range(2, seeds + 1):
            another_seed(run, Trial(system), Trial(system, seed))
    return run


def another_seed(run: RunFolder, of: Trial, trial: Trial) -> None:
    """Copy a training as one of another seed, with other predictions."""
    folder = Path(shutil.copytree(run.model(of), run.model(trial)))
    shutil.copy(run.record(f"train-{of.name}"), run.record(f"train-{trial.name}"))
    rows = read_table(folder / "predictions.parquet", PREDICTIONS).to_pylist()
    drawn = np.random.default_rng(trial.seed)
    types = sorted({tag[2:] for row in rows for tag in row["gold"] if tag != "O"})
    for row in rows:
        if drawn.random() < _OTHERWISE:
            other = types[int(drawn.integers(len(types)))]
            row["predicted"] = [tag if tag == "O" else f"{tag[:2]}{other}" for tag in row["predicted"]]
    write_table(folder / "predictions.parquet", table_of(PREDICTIONS, rows))
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in ("id", "tokens", "gold")}
    nothing: list[Any] = [[] for _ in rows]
    split = Split("test", columns["id"], columns["tokens"], columns["gold"], nothing, [None] * len(rows))
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    metrics["seed"] = trial.seed
    metrics["test"] = score_split(split, [row["predicted"] for row in rows], "ner")
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = make_run(Path(name), arguments.samples, arguments.seeds)
        first = cost(["report", str(run.path)])
        again = cost(["report", str(run.path)])
        page = (run.path / "report.html").stat().st_size / 1e6
    results = [
        Result("report, seconds", again.seconds, SECONDS, at_most=True),
        Result("report, MB of memory", again.megabytes, MEGABYTES, at_most=True),
        Result("report.html, MB", page, PAGE_MEGABYTES, at_most=True),
        Result("report that evaluates, seconds", first.seconds),
        Result("report that evaluates, MB of memory", first.megabytes),
    ]
    facts = {"samples": arguments.samples, "trainings": 2 * arguments.seeds}
    report("report_page", results, facts, arguments.output)


if __name__ == "__main__":
    main()
