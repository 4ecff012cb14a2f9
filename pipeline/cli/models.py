"""The commands about systems and their trained models: evaluate, table and systems."""

from pathlib import Path

import click

from ...manifests.errors import InputError
from ...manifests.run import RunFolder
from ...manifests.schemas import SPLITS
from ...manifests.trial import Trial
from .completion import one_of, runs
from .completion import systems as offered_systems
from .console import lent_tools, print_json, show
from .group import command
from .options import json_option, run_argument, trial_options

__all__: list[str] = []


@command()
@run_argument
@click.option(
    "--system", default="hmnet", shell_complete=offered_systems, help="The system that was trained."
)
@click.option("--seed", type=int, default=1, help="The seed that it was trained with.")
@trial_options
@click.option("--finetuned", is_flag=True, help="Use the model that finetune made, on the images themselves.")
@click.option("--split", default="test", shell_complete=one_of(SPLITS), help="train, valid or test.")
@click.option(
    "--shuffle-images",
    is_flag=True,
    help="Deal the images out at random, to see how much a model that uses them loses.",
)
@click.option("--explain", is_flag=True, help="Also write gates and attention to views, for figures.")
@click.option(
    "--calibrate",
    is_flag=True,
    help="Also say how far probabilities can be trusted, and fit a temperature on the validation split.",
)
@click.option(
    "--keep-temperature",
    "keep",
    is_flag=True,
    help="With --calibrate: keep that temperature in the model's folder, for the probabilities of later "
    "predictions. No label changes.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    shell_complete=runs,
    help="Another run, whose samples are scored instead.",
)
@json_option
def evaluate(
    run: Path,
    system: str,
    seed: int,
    shots: int,
    subset_seed: int,
    features: str,
    recipe: str,
    finetuned: bool,
    split: str,
    shuffle_images: bool,
    explain: bool,
    calibrate: bool,
    keep: bool,
    data: Path | None,
    as_json: bool,
) -> None:
    """Score a trained model on a split.

    Reads models/SYSTEM/seed-N/, samples.parquet and features/. Writes evaluation-SPLIT.json and .parquet
    (gold and predicted labels) into the model's folder, and prints precision, recall and F1: overall, per
    type and per group. --explain also writes explanation-SPLIT.parquet: each layer's gate probabilities and
    each word's attention to each view. --calibrate adds the expected calibration error and the reliability
    table of the model's probabilities, as they are and with the temperature that fits the validation split;
    --keep-temperature writes it into temperature.json.

    \b
    Example: hmnet-pipe evaluate runs/twitter2015 --system hmnet --split valid
    """
    from ..report.text import calibration_table, score_table
    from ..run.evaluate import evaluate_trial

    if keep and not calibrate:
        raise InputError("--keep-temperature: there is none without --calibrate; give both")
    trial = Trial(system, seed, shots, subset_seed if shots else 1, features=features, recipe=recipe)
    with lent_tools(quiet=as_json) as tools:
        scores, path = evaluate_trial(
            RunFolder(run),
            trial,
            RunFolder(data or run),
            finetuned=finetuned,
            split=split,
            shuffle_images=shuffle_images,
            explain=explain,
            calibrate=calibrate,
            keep=keep,
            tools=tools,
        )
    if as_json:
        print_json({"scores": scores, "output": str(path)})
        return
    what = f"evaluate: {split}{' with shuffled images' if shuffle_images else ''} -> {path}"
    tables = [score_table(scores), *([calibration_table(scores["calibration"])] if calibrate else [])]
    show(*"\n\n".join(tables).split("\n"), what)


@command()
@run_argument
@click.option(
    "--system",
    "systems",
    multiple=True,
    shell_complete=offered_systems,
    help="Only this system; may be given more than once.",
)
@click.option("--seed", "seeds", multiple=True, type=int, help="Only this seed; may be given more than once.")
@click.option(
    "--against",
    default="",
    metavar="SYSTEM",
    help="Also test each row's difference in test F1 from this system, over the seeds that both have.",
)
@json_option
def table(run: Path, systems: tuple[str, ...], seeds: tuple[int, ...], against: str, as_json: bool) -> None:
    """Print one row per system and setting: mean and deviation of F1 over its seeds.

    Reads metrics.json of every finished training in RUN, and with --against predictions.parquet. Writes
    nothing. --against adds the mean difference with its 95% interval (bootstrap over seeds and sentences) and
    the p-value of approximate randomisation by sentences, alone and corrected for all rows (Holm).

    \b
    Example: hmnet-pipe table runs/twitter2015 --system bert-crf --system hmnet --against bert-crf
    """
    from ..report.text import trials_table
    from ..run.trainings import differences, finished_trainings

    folder = RunFolder(run)
    metrics = finished_trainings(folder, systems, seeds)
    tested = differences(folder, metrics, against) if against else None
    if as_json:
        print_json({"trainings": metrics, "differences": tested} if against else metrics)
    else:
        show(*trials_table(metrics, tested).split("\n"))


@command()
@click.option("--task", type=click.Choice(["ner", "re"]), help="Only the systems for this task.")
@click.option("--markdown", is_flag=True, help="Print the table of docs/systems.md.")
def systems(task: str | None, markdown: bool) -> None:
    """List the systems that `train` knows, and what each reads.

    Reads nothing. Writes nothing but what it prints.

    \b
    Example: hmnet-pipe systems --task re
    """
    from ..report.systems import systems_markdown, systems_table

    printed = systems_markdown() if markdown else systems_table(task or "")
    show(*printed.removesuffix("\n").split("\n"))
