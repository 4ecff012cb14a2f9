"""The `hmnet-pipe` commands: thin wrappers over plain functions.

    hmnet-pipe prepare runs/x --preset twitter2015 --text TEXTS --images IMAGES
    hmnet-pipe detect runs/x
    hmnet-pipe extract runs/x
    hmnet-pipe train runs/x --system hmnet
    hmnet-pipe evaluate runs/x --system hmnet

What only one command needs is imported when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ... import __version__
from ...manifests.errors import HmnetPipeError, InputError, StageError
from ...manifests.files import disk_error, disk_remedy
from ...manifests.run import RunFolder
from ..cluster.memory import keep_freed_memory, release_freed_memory

if TYPE_CHECKING:
    from ...stages.base.stage import Stage
    from ...stages.base.tools import Tools
    from ...stages.learning.ranks import Ranks
    from ..run.config import RunConfig
    from ..run.runner import Report

__all__ = ["main"]

F = TypeVar("F", bound=Callable[..., Any])


class _Commands(click.Group):
    """Turns the project's errors into one line on stderr and their exit code; anything else is a fault of ours and keeps its traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are defined, which is that of a run."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HmnetPipeError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo(
                "\nInterrupted. Finished work is kept: run the same command again to resume.", err=True
            )
            ctx.exit(130)
        except OSError as error:
            if (cause := disk_error(error)) is None:
                raise
            where = Path(str(cause.filename)).parent if cause.filename else Path.cwd()
            click.echo(f"Error: {disk_remedy(cause, where)}", err=True)
            ctx.exit(StageError.exit_code)


class _Several(click.Option):
    """An option that takes one or more values, `--seeds 1 49`, and may also be given more than once."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        names = {*self.opts, *self.secondary_opts}
        option = next(found for name, found in parser._long_opt.items() if name in names)
        take_one = option.process

        def take_all(value: str, state: Any) -> None:
            take_one(value, state)
            while state.rargs and state.rargs[0].lstrip("-").isdigit():
                take_one(state.rargs.pop(0), state)

        option.process = take_all


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="hmnet-pipe")
@click.pass_context
def main(context: click.Context) -> None:
    """Extract entities (ner) and relations (re) from texts with images, with HMNeT on a cache of visual features.

    \b
    A first result, offline:
      hmnet-pipe demo runs/demo
    Your own data:
      hmnet-pipe prepare runs/mine --task ner --text mydata --images mydata/images
      hmnet-pipe detect runs/mine; hmnet-pipe extract runs/mine; hmnet-pipe train runs/mine
    """
    if context.invoked_subcommand in ("prepare", "detect", "extract", "status", "verify"):
        release_freed_memory()
    elif context.invoked_subcommand in ("train", "finetune", "demo"):
        keep_freed_memory()


def _run_argument(function: F) -> F:
    return click.argument("run", type=click.Path(path_type=Path, file_okay=False))(function)


def _json_option(function: F) -> F:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print the summary as JSON; all else goes to stderr."
    )(function)


def _cluster_options(function: F) -> F:
    function = click.option(
        "--workers", type=click.IntRange(1), help="Worker processes, one thread each [default: one a core]."
    )(function)
    return click.option(
        "--scheduler", metavar="ADDRESS", help="Use a running Dask scheduler, such as tcp://host:8786."
    )(function)


def _checkpoint_option(function: F) -> F:
    """For tests that kill trainings: it changes no result."""
    return click.option("--checkpoint-seconds", type=click.FloatRange(0), default=60.0, hidden=True)(function)


def _settings_options(stage: str) -> Callable[[F], F]:
    """One option for each field of the stage's settings; given ones are written into run.toml."""
    from ..run.config import SETTINGS

    def decorate(function: F) -> F:
        for field in reversed(fields(SETTINGS[stage])):
            text = f"{field.metadata['help']} [run.toml; at first {field.default}]"
            name = field.metadata.get("option") or field.name.replace("_", "-")
            declaration = f"--{name}/--no-{name}" if isinstance(field.default, bool) else f"--{name}"
            kind = None if isinstance(field.default, bool) else type(field.default)
            function = click.option(
                declaration, field.name, type=kind, default=None, help=text, show_default=False
            )(function)
        return function

    return decorate


@main.command()
@_run_argument
@click.option(
    "--preset",
    "preset_name",
    default="custom",
    help="custom, demo, twitter2015, twitter2017 or mnre: the paper's recipe.",
)
@click.option("--task", help="ner (entities) or re (relations); the presets of data sets know theirs.")
@click.option("--text", type=click.Path(path_type=Path), help="Folder with one text file a split.")
@click.option("--images", type=click.Path(path_type=Path), help="Folder of the images; left out: text only.")
@click.option("--format", "text_format", default="auto", help="auto, twitter, mnre or jsonl.")
@_json_option
def prepare(
    run: Path,
    preset_name: str,
    task: str | None,
    text: Path | None,
    images: Path | None,
    text_format: str,
    as_json: bool,
) -> None:
    """Read texts and look up their images.

    Reads one file a split in --text (train, valid, test; .txt as Twitter-2015/2017 and MNRE publish them, or .jsonl) and the images
    that they name. Writes RUN/run.toml, samples.parquet, images.parquet and problems.parquet (what was missing, unreadable or
    repaired). Without options on an existing run: reads the same places again.

    \b
    Example: hmnet-pipe prepare runs/twitter2015 --preset twitter2015 --text data/twitter2015 --images data/twitter2015_images
    """
    folder = RunFolder(run)
    config = _prepare_config(folder, preset_name, task, text, images, text_format)
    if (
        config.preset == "demo"
        and config.prepare.text == (run / "corpus").resolve()
        and not (run / "corpus/test.jsonl").is_file()
    ):
        from ...stages.demo.corpus import write_demo_corpus

        with _tools(None, None, quiet=as_json) as tools:
            write_demo_corpus(run / "corpus", config.task, tools=tools)
    _run_stages(
        [config.stage("prepare", folder)], as_json, remarks=lambda: _paper_counts(config.preset, folder)
    )
    config.write(folder.config)


def _prepare_config(
    folder: RunFolder,
    preset_name: str,
    task: str | None,
    text: Path | None,
    images: Path | None,
    text_format: str,
) -> RunConfig:
    """The configuration that prepare's options mean for a run, which may exist already. The demonstration brings its own texts."""
    from ..run.config import RunConfig, preset

    if preset_name == "demo" and text is None:
        task = task or (RunConfig.read(folder.config).task if folder.config.is_file() else "ner")
        text = folder.path / "corpus"
        images = images or text / "images"
    if text is not None:
        images = None if images is None else images.resolve()
        return _keeping_edits(
            preset(preset_name, task=task, text=text.resolve(), images=images, format=text_format), folder
        )
    if not folder.config.is_file():
        raise InputError(
            "prepare needs --text FOLDER, the folder with train.txt or train.jsonl (see hmnet-pipe prepare --help)"
        )
    return RunConfig.read(folder.config)


def _paper_counts(preset_name: str, folder: RunFolder) -> dict[str, Any]:
    """Not among the details of the stage's record: a run can be given another preset without any change of its tables."""
    from ...manifests.schemas import SAMPLES
    from ...manifests.tables import read_table
    from ...stages.prepare.identity import compare_with_paper

    rows = (
        row for part in read_table(folder.samples, SAMPLES).to_batches() for row in part.to_pylist()
    )  # made only where they count
    return compare_with_paper(preset_name, rows)


def _keeping_edits(config: RunConfig, folder: RunFolder) -> RunConfig:
    """A run that is prepared again keeps what its run.toml says of the other stages, unless it gets another preset or task."""
    from dataclasses import replace

    from ..run.config import RunConfig

    if not folder.config.is_file():
        return config
    old = RunConfig.read(folder.config)
    return (
        replace(old, prepare=config.prepare)
        if (old.preset, old.task) == (config.preset, config.task)
        else config
    )


@main.command()
@_run_argument
@_settings_options("detect")
@_cluster_options
@_json_option
def detect(run: Path, scheduler: str | None, workers: int | None, as_json: bool, **options: Any) -> None:
    """Find the top objects of every image.

    Reads images.parquet and the images. Writes detections.parquet (boxes in pixels, label, score), crops/ to look at, and
    stages/detect.parquet (what failed, and why). Killed, it resumes where it was.

    \b
    Example: hmnet-pipe detect runs/twitter2015 --weights fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth
    """
    _run_configured(run, "detect", options, as_json, scheduler, workers)


@main.command()
@_run_argument
@_settings_options("extract")
@_cluster_options
@_json_option
def extract(run: Path, scheduler: str | None, workers: int | None, as_json: bool, **options: Any) -> None:
    """Compute the pooled pyramid of every image and of its objects.

    Reads images.parquet, detections.parquet and the images. Writes features/ (HDF5 shards and index.parquet) and
    stages/extract.parquet (what failed, and why). Killed, it resumes where it was.

    \b
    Example: hmnet-pipe extract runs/twitter2015 --backbone resnet50 --workers 2
    """
    _run_configured(run, "extract", options, as_json, scheduler, workers)


@main.command()
@_run_argument
@click.option(
    "--system",
    "systems",
    multiple=True,
    default=("hmnet",),
    help="What to train; may be given more than once.",
)
@click.option(
    "--seed",
    "--seeds",
    "seeds",
    cls=_Several,
    multiple=True,
    type=int,
    default=(1,),
    help="One or more seeds: --seeds 1 49 1234.",
)
@_settings_options("train")
@_checkpoint_option
@_json_option
def train(
    run: Path,
    systems: tuple[str, ...],
    seeds: tuple[int, ...],
    checkpoint_seconds: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a system on the cached features, keep its best epoch, and score the test split once.

    Systems: hmnet, hmnet-single, hmnet-flat, hmnet-1v3, hmnet-onlyobj; text only: bert-crf (ner), mtb (re). Reads samples.parquet
    and, for hmnet, features/. Writes models/SYSTEM/seed-N/: model.safetensors, config.json, tokenizer/, metrics.json,
    predictions.parquet and history.parquet. Killed, it resumes from its last checkpoint. Started by torchrun, the processes share
    every batch.

    \b
    Example: hmnet-pipe train runs/twitter2015 --system bert-crf --system hmnet --seeds 1 49 1234 2021 4321
    """
    from ...stages.learning.ranks import joined_ranks
    from ...stages.systems.registry import system_is_visual

    with joined_ranks() as ranks:
        folder, config = _configured(run, "train", {**options, **_processes(ranks)}, write=ranks.leads)
        for system in systems:
            system_is_visual(system, config.task)
        _run_together(
            [config.stage("train", folder, system=system, seed=seed) for system in systems for seed in seeds],
            ranks,
            as_json,
            checkpoint_seconds,
        )
        if not ranks.leads:
            return
    if len(systems) * len(seeds) > 1 and not as_json:
        from ..report.text import seeds_table

        trained = [folder.model(system, seed) / "metrics.json" for system in systems for seed in seeds]
        click.echo(seeds_table([json.loads(path.read_text(encoding="utf-8")) for path in trained]))


@main.command()
@_run_argument
@click.option("--system", default="hmnet", help="hmnet or one of its variants.")
@click.option(
    "--seed",
    "--seeds",
    "seeds",
    cls=_Several,
    multiple=True,
    type=int,
    default=(1,),
    help="One or more seeds: --seeds 1 49 1234.",
)
@click.option(
    "--refresh",
    is_flag=True,
    help="Then extract the features of the fine-tuned backbone, as a run of their own.",
)
@_settings_options("finetune")
@_checkpoint_option
@_cluster_options
@_json_option
def finetune(
    run: Path,
    system: str,
    seeds: tuple[int, ...],
    refresh: bool,
    checkpoint_seconds: float,
    scheduler: str | None,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train text encoder, fusion and visual backbone together, from pixels.

    Reads samples.parquet, detections.parquet and the images. The recipe is that of [train] in run.toml, with what [finetune] says of
    the backbone. Writes models/SYSTEM/finetuned-seed-N/: what train writes, and backbone.safetensors. With --refresh also
    refreshed/SYSTEM-seed-N/, a run whose features are those of the new backbone: train and evaluate on it as on any other.
    Killed, it resumes from its last checkpoint. Started by torchrun, the processes share every batch.

    \b
    Example: hmnet-pipe finetune runs/twitter2015 --from train --unfreeze 2 --epochs 3 --refresh
    """
    from ...stages.learning.ranks import joined_ranks
    from ..run.refresh import refresh_features

    with joined_ranks() as ranks:
        folder, config = _configured(run, "finetune", options, write=ranks.leads)
        if processes := _processes(ranks):
            folder, config = _configured(run, "train", processes, write=ranks.leads)
        _run_together(
            [config.stage("finetune", folder, system=system, seed=seed) for seed in seeds],
            ranks,
            as_json,
            checkpoint_seconds,
        )
        if not ranks.leads:
            return
    if refresh:
        with _tools(scheduler, workers, quiet=as_json) as tools:
            for seed in seeds:
                report = refresh_features(config, folder, system, seed, tools)
                click.echo("\n".join(report.lines()), err=as_json)


@main.command()
@_run_argument
@click.option("--system", default="hmnet", help="The system that was trained.")
@click.option("--seed", type=int, default=1, help="The seed that it was trained with.")
@click.option("--finetuned", is_flag=True, help="The model that finetune made, on the images themselves.")
@click.option("--split", default="test", help="train, valid or test.")
@click.option(
    "--shuffle-images", is_flag=True, help="Deal the images out at random: what a model loses that uses them."
)
@click.option("--explain", is_flag=True, help="Also write gates and attention to views, for figures.")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Another run, whose samples are scored."
)
@_json_option
def evaluate(
    run: Path,
    system: str,
    seed: int,
    finetuned: bool,
    split: str,
    shuffle_images: bool,
    explain: bool,
    data: Path | None,
    as_json: bool,
) -> None:
    """Score a trained model on a split.

    Reads models/SYSTEM/seed-N/, samples.parquet and features/. Writes evaluation-SPLIT.json and .parquet (gold and predicted labels)
    into the model's folder, and prints precision, recall and F1, overall, per type and per group. With --explain also
    explanation-SPLIT.parquet: of each layer the gate's probabilities and each word's attention to each view.

    \b
    Example: hmnet-pipe evaluate runs/twitter2015 --system hmnet --split valid
    """
    from ...stages.evaluate.evaluation import evaluate as score

    folder, config = _configured(run, "train", {})
    device, precision = config.train.device, config.train.precision
    scored, scored_config = (folder, config) if data is None else _configured(data, "extract", {})
    with _tools(None, None, quiet=as_json) as tools:
        scores, path = score(
            folder.finetuned(system, seed) if finetuned else folder.model(system, seed),
            scored,
            split=split,
            shuffle_images=shuffle_images,
            explain=explain,
            plan=scored_config.stage("extract", scored).plan() if finetuned else None,
            device=device,
            precision=precision,
            tools=tools,
        )
    if as_json:
        click.echo(json.dumps({"scores": scores, "output": str(path)}, indent=2))
        return
    from ..report.text import score_table

    click.echo(score_table(scores))
    click.echo(f"evaluate: {split}{' with shuffled images' if shuffle_images else ''} -> {path}")


@main.command()
@_run_argument
@click.option("--system", "systems", multiple=True, help="Only this system; may be given more than once.")
@click.option("--seed", "seeds", multiple=True, type=int, help="Only this seed; may be given more than once.")
@_json_option
def table(run: Path, systems: tuple[str, ...], seeds: tuple[int, ...], as_json: bool) -> None:
    """Print one row a system: mean and deviation of F1 over its seeds.

    Reads metrics.json of every finished training in RUN. Writes nothing.

    \b
    Example: hmnet-pipe table runs/twitter2015 --system bert-crf --system hmnet
    """
    from ..report.text import finished_trainings, seeds_table

    metrics = finished_trainings(RunFolder(run), systems, seeds)
    click.echo(json.dumps(metrics, indent=2) if as_json else seeds_table(metrics))


@main.command(hidden=True)
@_run_argument
@click.option("--system", "systems", multiple=True)
@click.option("--seed", "seeds", multiple=True, type=int)
@click.argument("stages", nargs=-1, type=click.UNPROCESSED)
def changed(run: Path, systems: tuple[str, ...], seeds: tuple[int, ...], stages: tuple[str, ...]) -> None:
    """Print what the Makefile must know of a run, see sources.make_words. Writes nothing.

    STAGES are the stages' commands with the options that they will be given, each behind a `--`.

    \b
    Example: hmnet-pipe changed runs/x --system hmnet --seed 1 -- prepare --text TEXTS -- train --epochs 3
    """
    from itertools import groupby

    from ..run.config import SETTINGS
    from ..run.freshness import make_words

    folder = RunFolder(run)
    given: dict[str, dict[str, Any]] = {}
    for name, *options in (list(words) for is_mark, words in groupby(stages, "--".__eq__) if not is_mark):
        given[name] = main.commands[name].make_context(name, [str(run), *options]).params
    wanted = given.pop("prepare")
    config = _prepare_config(
        folder, *(wanted[name] for name in ("preset_name", "task", "text", "images", "text_format"))
    )
    for stage, values in given.items():
        config = config.override(stage, {field.name: values[field.name] for field in fields(SETTINGS[stage])})
    click.echo(" ".join(make_words(config, folder, systems, seeds)))


@main.command()
@_run_argument
@_json_option
def status(run: Path, as_json: bool) -> None:
    """Say of every stage whether it is up to date, and what to type next.

    Reads everything in RUN and writes nothing.

    \b
    Example: hmnet-pipe status runs/twitter2015
    """
    from ..checks.status import run_status

    result = run_status(RunFolder(run))
    click.echo(json.dumps(result.to_json(), indent=2) if as_json else "\n".join(result.lines()))


@main.command()
@_run_argument
@click.option("--fix", is_flag=True, help="Make again what is wrong, and only that.")
@click.option(
    "--rerun",
    type=click.FloatRange(0, 1),
    is_flag=False,
    flag_value=0.02,
    metavar="[SHARE]",
    help="Also compute this share of each stage again, at least one unit, and compare; without a number 0.02. 1: all, trainings too.",
    show_default=False,
)
@click.option(
    "--train", "retrain", is_flag=True, help="With --rerun: repeat the trainings too, whatever the share."
)
@_cluster_options
@_json_option
def verify(
    run: Path,
    fix: bool,
    rerun: float | None,
    retrain: bool,
    scheduler: str | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Check every output of a run against what was recorded, and every row of the cache against its checksum.

    Reads everything in RUN. Writes nothing, or with --fix what was found wrong. With --rerun a part is computed again in a temporary
    folder: "equal" to the last bit, "close" (apart as far as floating point may be, with the distances and what of machine and versions
    differs) or "different". Exits with 1 where something is wrong or different and stays so.

    \b
    Example: hmnet-pipe verify runs/twitter2015 --fix
             hmnet-pipe verify runs/twitter2015 --rerun 0.1
    """
    from ..checks.verify import mend_run, rerun_run, verify_run

    folder = RunFolder(run)
    problems = verify_run(folder)
    if not as_json:
        for problem in problems:
            click.echo(f"{problem.stage}: {problem.what}: {problem.reason}")
    left = problems
    if problems and fix:
        with _tools(scheduler, workers, quiet=as_json) as tools:
            reports = mend_run(folder, problems, tools)
        for report in reports:
            click.echo("\n".join(report.lines()), err=as_json)
        left = verify_run(folder)
    reruns = []
    if rerun is not None or retrain:
        with _tools(scheduler, workers, quiet=as_json) as tools:
            for result in rerun_run(folder, rerun or 0.0, retrain, tools):
                reruns.append(result)
                click.echo("\n".join(result.lines()), err=as_json)
    if as_json:
        found: dict[str, list[Any]] = {"problems": problems, "left": left, "reruns": reruns}
        click.echo(
            json.dumps({name: [item.to_json() for item in items] for name, items in found.items()}, indent=2)
        )
    elif not problems:
        click.echo(f"verify: everything in {run} is as recorded")
    else:
        click.echo(
            f"verify: {len(problems)} problems found, {len(left)} left"
            + ("" if fix else f"; mend them with `hmnet-pipe verify {run} --fix`")
        )
    if left or any(result.verdict == "different" for result in reruns):
        raise click.exceptions.Exit(1)


@main.command()
@_run_argument
@click.option("--restore", is_flag=True, help="Back to the layout that is mapped into memory.")
@_json_option
def archive(run: Path, restore: bool, as_json: bool) -> None:
    """Compress the features of a run in place, to about half their size; every command goes on reading them, more slowly.

    Reads RUN/features/. Writes each of its shards again, one by one; their contents stay the same, so that no stage becomes stale.
    Killed at any moment, every shard is whole: run the same command again. Needs `pip install 'hmnet-pipe[archive]'`, also to read.

    \b
    Example: hmnet-pipe archive runs/twitter2015
             hmnet-pipe archive runs/twitter2015 --restore
    """
    from ..run.archive import archive_run

    with _tools(None, None, quiet=as_json) as tools:
        report = archive_run(RunFolder(run), restore=restore, tools=tools)
    click.echo(report.to_json() if as_json else "\n".join(report.lines()))


@main.command()
@_run_argument
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it [default: RUN/hmnet-pipe.lock].",
)
@_json_option
def lock(run: Path, output: Path | None, as_json: bool) -> None:
    """Write down what a run was made from and what came out, in one small file for a paper's repository.

    Reads everything in RUN, of which every stage must be finished and up to date. Writes the lock: configuration, digests of data,
    weights and outputs, versions, machine kind, scores.

    \b
    Example: hmnet-pipe lock runs/twitter2015 --output paper/hmnet-pipe.lock
    """
    from ..reproduce.lock import lock_run, read_lock

    with _tools(None, None, quiet=as_json) as tools:
        path = lock_run(RunFolder(run), output, tools)
    if as_json:
        click.echo(json.dumps({"output": str(path), "lock": read_lock(path)}, indent=2))
        return
    click.echo(f"lock: {', '.join(read_lock(path)['stages'])} -> {path}")


@main.command()
@click.argument("lock", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--text", type=click.Path(path_type=Path), required=True, help="Folder with one text file a split."
)
@click.option(
    "--images", type=click.Path(path_type=Path), help="Folder of the images, where the lock's run had some."
)
@click.option(
    "--run",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/reproduced"),
    help="The run to make.",
)
@click.option("--encoder", help="The text encoder, where the lock's name for it does not lead to it here.")
@click.option("--detector-weights", metavar="FILE", help="The detector's weights, likewise.")
@click.option("--backbone-weights", metavar="FILE", help="The backbone's weights, likewise.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.02,
    help="The largest difference of an F1 that rounding may make.",
)
@_cluster_options
@_json_option
def reproduce(
    lock: Path, run: Path, scheduler: str | None, workers: int | None, as_json: bool, **options: Any
) -> None:
    """Make the run of a lock again, and say field by field what came out equal.

    Reads LOCK, the texts and the images; other data or weights than the lock's are named before anything is computed. Writes the run
    and RUN/reproduction.json. Killed, it resumes where it was. Exits with 1 where the result was not reproduced; where the machine, the
    versions or the precision are other ones, differences of rounding are told by their size and are no failure.

    \b
    Example: hmnet-pipe reproduce paper/hmnet-pipe.lock --text data/twitter2015 --images data/twitter2015_images --run runs/again
    """
    from ..reproduce.reproduce import reproduce as make_again

    with _tools(scheduler, workers, quiet=as_json) as tools:
        result = make_again(
            lock,
            RunFolder(run),
            tools=tools,
            report=lambda report: None if as_json else click.echo("\n".join(report.lines())),
            **options,
        )
    click.echo(json.dumps(result.to_json(), indent=2) if as_json else "\n".join(result.lines()))
    if not result.reproduced:
        raise click.exceptions.Exit(1)


@main.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False), required=False)
@_json_option
def doctor(run: Path | None, as_json: bool) -> None:
    """Say whether this machine has what the pipeline needs, and what to do where it has not.

    Reads the installation and, of RUN, the settings and the place; downloads nothing. Writes nothing that stays. Exits with 1 where
    something makes the pipeline unusable.

    \b
    Example: hmnet-pipe doctor runs/twitter2015
    """
    from ..checks.doctor import examine

    findings = examine(None if run is None else RunFolder(run))
    lines = [finding.line() for finding in findings]
    click.echo(
        json.dumps([finding.to_json() for finding in findings], indent=2) if as_json else "\n".join(lines)
    )
    if any(finding.state == "problem" for finding in findings):
        raise click.exceptions.Exit(1)


@main.command()
@_run_argument
@click.option(
    "--workers", type=click.IntRange(1), help="Worker processes for detect and extract [default: one a core]."
)
@click.option("--finetune", is_flag=True, help="Then train end to end, and again on the refreshed cache.")
@_json_option
def demo(run: Path, workers: int | None, finetune: bool, as_json: bool) -> None:
    """Run everything on a generated corpus, offline, and print what the images are worth.

    Reads nothing. Writes RUN/ner and RUN/re, two complete runs. Run again, it does nothing that is done.

    \b
    Example: hmnet-pipe demo runs/demo
    """
    from ..run.demo import run_demo, run_finetune_demo

    with _tools(None, workers, quiet=as_json) as tools:
        table = (run_finetune_demo if finetune else run_demo)(
            run, tools, lambda report: None if as_json else click.echo("\n".join(report.lines()), err=False)
        )
    click.echo(json.dumps(table.to_json(), indent=2) if as_json else table.text())


def _configured(
    run: Path, stage: str, options: dict[str, Any], *, write: bool = True
) -> tuple[RunFolder, Any]:
    """The run and its configuration, with the given options in it and, with `write`, on disk."""
    from ..run.config import RunConfig

    folder = RunFolder(run)
    config = RunConfig.read(folder.config)
    if config.override(stage, options) == config or not write:
        return folder, config.override(stage, options)
    from filelock import FileLock

    # Two commands that start at once, each with options of its own stage, must not write over each other's.
    folder.lock("run").parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.lock("run")):
        config = RunConfig.read(folder.config).override(stage, options)
        config.write(folder.config)
    return folder, config


def _run_configured(
    run: Path, stage: str, options: dict[str, Any], as_json: bool, scheduler: str | None, workers: int | None
) -> None:
    folder, config = _configured(run, stage, options)
    _run_stages([config.stage(stage, folder)], as_json, scheduler, workers)


def _processes(ranks: Ranks) -> dict[str, int]:
    """What torchrun says of [train]'s processes; nothing without it."""
    return {"processes": ranks.size} if ranks.size > 1 else {}


def _run_together(stages: list[Stage], ranks: Ranks, as_json: bool, checkpoint_seconds: float) -> None:
    """Bring trainings up to date with all ranks; rank 0 prints."""
    from dataclasses import replace

    from ..run.runner import follow_stage, lead_stage

    if ranks.leads:
        _run_stages(
            stages,
            as_json,
            run=lambda stage, tools: lead_stage(
                stage, replace(tools, checkpoint_seconds=checkpoint_seconds), ranks
            ),
        )
        return
    for stage in stages:
        follow_stage(stage, ranks)


def _run_stages(
    stages: list[Stage],
    as_json: bool,
    scheduler: str | None = None,
    workers: int | None = None,
    remarks: Callable[[], dict[str, Any]] = dict,
    run: Callable[[Stage, Tools], Report] | None = None,
) -> None:
    """Bring stages up to date, with `run` or run_stage, and print how each ended; `remarks`, made after each, are added to its details."""
    from dataclasses import replace

    from ..run.runner import run_stage

    reports = []
    with _tools(scheduler, workers, quiet=as_json) as tools:
        for stage in stages:
            report = (run or run_stage)(stage, tools)
            report = replace(report, details={**report.details, **remarks()})
            reports.append(report)
            if not as_json:
                click.echo("\n".join(report.lines()))
    if as_json:
        values = [json.loads(report.to_json()) for report in reports]
        click.echo(json.dumps(values[0] if len(values) == 1 else values, indent=2))


@contextmanager
def _tools(scheduler: str | None, workers: int | None, *, quiet: bool) -> Iterator[Tools]:
    """What the pipeline lends to stages: a cluster, progress bars on stderr, and lines for people."""
    from tqdm import tqdm

    from ...stages.base.tools import Tools
    from ..cluster.dask import Cluster

    bars = ExitStack()

    def bar(total: int, description: str, unit: str) -> Any:
        # Nothing is shown of what takes less than 2 seconds.
        shown = tqdm(
            total=total,
            desc=description,
            unit=unit,
            delay=2,
            disable=total == 0,
            file=sys.stderr,
            dynamic_ncols=True,
        )
        bars.callback(shown.close)
        bars.callback(shown.clear)
        return shown

    def say(line: str) -> None:
        tqdm.write(line, file=sys.stderr if quiet else sys.stdout)

    # A bar that an error has left open is closed before the error is told.
    with Cluster(scheduler, workers, say) as cluster, bars:
        yield Tools(map=cluster.map, bar=bar, say=say)
