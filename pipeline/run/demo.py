"""`hmnet-pipe demo`: both tasks on the generated corpus, text-only against HMNeT against HMNeT with the test images shuffled.

With finetune: HMNeT on the cache, trained end to end from there, and trained again on the cache that the fine-tuned backbone makes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...manifests.run import RunFolder
from ...stages.base.tools import Tools
from ...stages.demo.corpus import write_demo_corpus
from ...stages.evaluate.evaluation import evaluate
from ...stages.learning.scores import Scores
from ..report.text import text_table
from .config import RunConfig, preset
from .refresh import refresh_features
from .runner import Report, run_stage

__all__ = ["DemoTable", "run_demo", "run_finetune_demo"]

_TEXT_ONLY = {"ner": "bert-crf", "re": "mtb"}
SEED = 1


@dataclass(frozen=True)
class DemoTable:
    """Test scores by task and system; the system "hmnet, images shuffled" is hmnet with the test set's images dealt out at random,
    "hmnet, end to end" is what finetune made of hmnet, and "hmnet, refreshed cache" a new hmnet on the features of finetune's backbone."""

    scores: dict[str, dict[str, Scores]]

    def to_json(self) -> dict[str, Any]:
        return self.scores

    def text(self) -> str:
        head = ["task  system", "F1 overall", "F1 visually decided", "F1 text-decided"]
        rows = [
            [
                f"{task:<4}  {system}",
                scores["f1"],
                *(scores["per_group"].get(group, {}).get("f1") for group in ("vision", "text")),
            ]
            for task, systems in self.scores.items()
            for system, scores in systems.items()
        ]
        return text_table(head, rows)


def run_demo(
    folder: Path, tools: Tools, report: Callable[[Report], None], tasks: Sequence[str] = ("ner", "re")
) -> DemoTable:
    """Make folder/ner and folder/re, complete runs, and return their test scores. What is up to date is not done again."""
    table: dict[str, dict[str, Scores]] = {}
    for task in tasks:
        text_only = _TEXT_ONLY[task]
        run = RunFolder(folder / task)
        corpus = run.path / "corpus"
        # The last file that the generator writes stands for all.
        if not (corpus / "test.jsonl").is_file():
            write_demo_corpus(corpus, task, tools=tools)
        config = preset(
            "demo", task=task, text=corpus.resolve(), images=(corpus / "images").resolve(), format="jsonl"
        )
        config.write(run.config)
        for name in ("prepare", "detect", "extract"):
            report(run_stage(config.stage(name, run), tools))
        systems: dict[str, Scores] = {}
        for system in (text_only, "hmnet"):
            report(run_stage(config.stage("train", run, system=system, seed=SEED), tools))
            metrics = json.loads((run.model(system, SEED) / "metrics.json").read_text(encoding="utf-8"))
            systems[system] = metrics["test"]
        systems["hmnet, images shuffled"] = evaluate(
            run.model("hmnet", SEED), run, shuffle_images=True, tools=tools
        )[0]
        table[task] = systems
    return DemoTable(table)


def run_finetune_demo(
    folder: Path, tools: Tools, report: Callable[[Report], None], tasks: Sequence[str] = ("ner", "re")
) -> DemoTable:
    """Bring the demonstration in `folder` up to date, then train end to end, and return the test scores of the three ways."""
    run_demo(folder, tools, report, tasks)
    table: dict[str, dict[str, Scores]] = {}
    for task in tasks:
        run = RunFolder(folder / task)
        config = RunConfig.read(run.config)
        report(run_stage(config.stage("finetune", run, system="hmnet", seed=SEED), tools))
        report(refresh_features(config, run, "hmnet", SEED, tools))
        new = RunFolder(run.refreshed("hmnet", SEED))
        report(run_stage(config.stage("train", new, system="hmnet", seed=SEED), tools))
        models = {
            "hmnet, cache": run.model("hmnet", SEED),
            "hmnet, end to end": run.finetuned("hmnet", SEED),
            "hmnet, refreshed cache": new.model("hmnet", SEED),
        }
        table[task] = {
            name: json.loads((model / "metrics.json").read_text(encoding="utf-8"))["test"]
            for name, model in models.items()
        }
    return DemoTable(table)
