"""`hmnet-pipe demo`: both tasks on the generated corpus, with three systems.

The systems are text only, HMNeT, and HMNeT with the test images shuffled. With finetune there are three
others: HMNeT on the cache, trained end to end from there, and trained again on the cache that the fine-tuned
backbone makes.
"""

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...manifests.run import DEFAULT_SET, RunFolder
from ...manifests.schemas import IMAGES, SAMPLES
from ...manifests.tables import read_table
from ...manifests.trial import Trial
from ...stages.base.tools import Tools
from ...stages.evaluate.recorded import causes_of, evaluation_name, fresh_evaluation
from ...stages.finetune.settings import FinetuneSettings
from ...stages.learning.metrics import read_metrics
from ...stages.prepare.settings import PrepareSettings
from .config import RunConfig
from .new import prepare_run
from .presets import preset
from .refresh import refresh_features
from .runner import Report, run_stage

__all__ = ["DemoScores", "run_demo", "run_finetune_demo", "sample_command"]

_TEXT_ONLY = {"ner": "bert-crf", "re": "mtb"}
SEED = 1
_HMNET = Trial("hmnet", SEED)


DemoScores = dict[str, dict[str, Any]]
"""Test scores by task and system.

The system "hmnet, images shuffled" is hmnet with the test set's images dealt out at random, "hmnet, end to
end" is what finetune made of hmnet, and "hmnet, refreshed cache" is a new hmnet on the features of finetune's
backbone.
"""


def run_demo(
    folder: Path, tools: Tools, report: Callable[[Report], None], tasks: Sequence[str] = ("ner", "re")
) -> DemoScores:
    """Make folder/ner and folder/re, complete runs, and return their test scores. Skip what is up to date."""
    table: DemoScores = {}
    for task in tasks:
        text_only = _TEXT_ONLY[task]
        run = RunFolder(folder / task)
        corpus = (run.path / "corpus").resolve()
        config = preset("demo", task=task, text=corpus, images=corpus / "images", format="jsonl")
        report(prepare_run(run, config, tools))
        for name in ("detect", "extract"):
            report(run_stage(config.stage(name, run), tools))
        systems: dict[str, Any] = {}
        for system in (text_only, "hmnet"):
            trial = Trial(system, SEED)
            report(run_stage(config.stage("train", run, trial), tools))
            systems[system] = read_metrics(run.model(trial))["test"]
        systems["hmnet, images shuffled"] = _shuffled(config, run, tools)
        table[task] = systems
    return table


def _shuffled(config: RunConfig, run: RunFolder, tools: Tools) -> dict[str, Any]:
    """Return the test scores of the run's finished training with the images shuffled.

    They are taken from the last evaluation if nothing has changed since.
    """
    stage = config.stage("train", run, _HMNET)
    folder, negative = stage.place, config.of(PrepareSettings).negative
    precision = stage.parameters()["precision"]
    made_from = causes_of(folder, _HMNET.system, run, DEFAULT_SET, precision, negative)
    path = folder / f"evaluation-{evaluation_name('test', shuffled_images=True)}.json"
    if (found := fresh_evaluation(path, made_from)) is not None:
        return found.scores
    from ...stages.evaluate.evaluation import evaluate

    return evaluate(folder, run, shuffle_images=True, negative=negative, tools=tools)[0]


def sample_command(folder: Path) -> str:
    """Return the command that uses the demonstration's model on the first test post with an image."""
    run = RunFolder(folder / "ner")
    paths = {row["key"]: row["path"] for row in read_table(run.images, IMAGES).to_pylist()}
    for row in read_table(run.samples, SAMPLES).to_pylist():
        if row["split"] == "test" and row["image_key"] in paths and any(tag != "O" for tag in row["tags"]):
            text, image = " ".join(row["tokens"]), os.path.relpath(paths[row["image_key"]])
            return shlex.join(["hmnet-pipe", "predict", str(run.path), "--text", text, "--image", image])
    raise AssertionError("every corpus of the demonstration has such a post")


def run_finetune_demo(
    folder: Path, tools: Tools, report: Callable[[Report], None], tasks: Sequence[str] = ("ner", "re")
) -> DemoScores:
    """Bring the demonstration up to date, train end to end, and return the test scores of the three ways."""
    run_demo(folder, tools, report, tasks)
    table: DemoScores = {}
    for task in tasks:
        run = RunFolder(folder / task)
        config = RunConfig.read(run.config)
        trial = replace(_HMNET, start=config.of(FinetuneSettings).token())
        report(run_stage(config.stage("finetune", run, trial), tools))
        report(refresh_features(config, run, trial, tools))
        new = RunFolder(run.refreshed(trial))
        report(run_stage(config.stage("train", new, _HMNET), tools))
        models = {
            "hmnet, cache": run.model(_HMNET),
            "hmnet, end to end": run.finetuned(trial),
            "hmnet, refreshed cache": new.model(_HMNET),
        }
        table[task] = {name: read_metrics(model)["test"] for name, model in models.items()}
    return table
