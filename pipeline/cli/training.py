"""The commands that train: train and finetune."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from ...manifests.run import RunFolder
from ..cluster.memory import keep_freed_memory
from .completion import systems
from .console import lent_tools, print_reports, show
from .group import command
from .options import (
    checkpoint_option,
    cluster_options,
    json_option,
    run_argument,
    seeds_option,
    settings_options,
    start_option,
    trial_options,
)

if TYPE_CHECKING:
    from ...stages.base.stage import Stage
    from ...stages.learning.ranks import Ranks

__all__: list[str] = []


@command(memory=keep_freed_memory, several=("--seed", "--seeds"))
@run_argument
@click.option(
    "--system",
    "systems",
    multiple=True,
    default=("hmnet",),
    shell_complete=systems,
    help="What to train; may be given more than once.",
)
@seeds_option
@trial_options
@start_option
@settings_options("train")
@checkpoint_option
@json_option
def train(
    run: Path,
    systems: tuple[str, ...],
    seeds: tuple[int, ...],
    shots: int,
    percent: int,
    natural: bool,
    subset_seed: int,
    features: str,
    recipe: str,
    start: Path | None,
    checkpoint_seconds: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a system on the cached features, keep its best epoch, and score the test split once.

    Reads samples.parquet and what `hmnet-pipe systems` says of each system. Writes
    models/SYSTEM/seed-N/ (with --shots: seed-N-shots-K-subset-M/): model.safetensors, config.json, tokenizer/
    or vocabulary.json, metrics.json, predictions.parquet and history.parquet. If killed, it resumes from its
    last checkpoint. When started by torchrun, the processes share every batch. With --start, optimizer,
    classifier and CRF are new, and the folder is seed-N-from- and the first digits of that model's digest.

    \b
    Example: hmnet-pipe train runs/twitter2015 --system bert-crf --system hmnet --seeds 1 49 1234 2021 4321
             hmnet-pipe train runs/twitter2015 --shots 50 --subset-seed 2
             hmnet-pipe train runs/mnre --system mtb --recipe as-published
             hmnet-pipe train runs/mnre --start runs/twitter2017/models/hmnet/seed-1
    """
    from ...stages.learning.causes import start_token
    from ...stages.learning.metrics import read_metrics
    from ...stages.learning.ranks import joined_ranks
    from ...stages.learning.recipe import TrainSettings
    from ...stages.systems.registry import system_for
    from ..report.text import trials_table
    from ..run.new import configured, trials_of

    folder = RunFolder(run)
    with joined_ranks() as ranks:
        tables = {"train": {**options, **ranks.settings}}
        config = configured(folder, tables)
        for system in systems:
            system_for(system, config.task)
        subset = (shots,), (subset_seed,)
        token = "" if start is None else start_token(start)
        starts = {} if start is None else {token: start}
        config = replace(config, starts={**config.starts, **{token: str(start) for token in starts}})
        trials = trials_of(systems, seeds, *subset, features, token, (recipe,), percent, natural)
        TrainSettings.check_options(trials[0], options, config.recipes)
        stages = [config.stage("train", folder, trial) for trial in trials]
        _run_together(stages, folder, tables, ranks, as_json, checkpoint_seconds, starts)
        if ranks.leads and len(trials) > 1 and not as_json:
            show(*trials_table([read_metrics(folder.model(trial)) for trial in trials]).split("\n"))


@command(memory=keep_freed_memory, several=("--seed", "--seeds"))
@run_argument
@click.option("--system", default="hmnet", shell_complete=systems, help="hmnet or one of its variants.")
@seeds_option
@trial_options
@click.option(
    "--refresh",
    is_flag=True,
    help="Then extract the features of the fine-tuned backbone, as a run of their own.",
)
@settings_options("finetune")
@checkpoint_option
@cluster_options
@json_option
def finetune(
    run: Path,
    system: str,
    seeds: tuple[int, ...],
    shots: int,
    percent: int,
    natural: bool,
    subset_seed: int,
    features: str,
    recipe: str,
    refresh: bool,
    checkpoint_seconds: float,
    scheduler: str | None,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train text encoder, fusion and visual backbone together, from pixels.

    Reads samples.parquet, detections.parquet and the images. The recipe is that of [train] in run.toml,
    except for what [finetune] says about the backbone. Writes models/SYSTEM/finetuned-seed-N/ (with --from
    train: finetuned-seed-N-from-train/): what train writes, and backbone.safetensors. --refresh also writes
    refreshed/SYSTEM-seed-N[-from-train]/, a run with the features of the new backbone: use it like any
    other. If killed, it resumes from its last checkpoint. When started by torchrun, the processes share every
    batch.

    \b
    Example: hmnet-pipe finetune runs/twitter2015 --from train --unfreeze 2 --epochs 3 --refresh
    """
    from ...stages.finetune.settings import FinetuneSettings
    from ...stages.learning.ranks import joined_ranks
    from ..run.new import configured, trials_of
    from ..run.refresh import refresh_features

    folder = RunFolder(run)
    with joined_ranks() as ranks:
        tables = {"finetune": options, "train": ranks.settings}
        config = configured(folder, tables)
        start = config.of(FinetuneSettings).token()
        subset = (shots,), (subset_seed,)
        trials = trials_of((system,), seeds, *subset, features, start, (recipe,), percent, natural)
        stages = [config.stage("finetune", folder, trial) for trial in trials]
        _run_together(stages, folder, tables, ranks, as_json, checkpoint_seconds)
        if not ranks.leads or not refresh:
            return
    with lent_tools(scheduler, workers, quiet=as_json) as tools:
        for trial in trials:
            report = refresh_features(config, folder, trial, tools)
            show(*report.lines(), err=as_json)


def _run_together(
    stages: Sequence["Stage"],
    run: RunFolder,
    tables: Mapping[str, Mapping[str, Any]],
    ranks: "Ranks",
    as_json: bool,
    checkpoint_seconds: float,
    starts: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Bring trainings up to date, one after another, with all ranks; rank 0 prints, and keeps the options.

    tables: the options by table. starts: the folders of models that trainings start from.
    """
    from ..run.new import add_starts, write_options
    from ..run.runner import follow_stage, lead_stage

    if not ranks.leads:
        for stage in stages:
            follow_stage(stage, ranks)
        return
    reports = []
    with lent_tools(quiet=as_json) as tools:
        tools = replace(tools, checkpoint_seconds=checkpoint_seconds)
        if starts:
            add_starts(run, starts)
        for stage in stages:
            report = lead_stage(stage, tools, ranks, partial(write_options, run, tables))
            reports.append(report)
            if not as_json:
                show(*report.lines())
    if as_json:
        print_reports(reports)
