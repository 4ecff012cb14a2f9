"""The commands about systems and their trained models: evaluate, table, push and systems."""

from pathlib import Path

import click

from ...manifests.errors import InputError, unknown_name
from ...manifests.run import RunFolder
from ...manifests.schemas import SPLITS
from ..report.formats import TABLE_FORMATS
from .completion import one_of, runs
from .completion import systems as offered_systems
from .console import lent_tools, print_json, show
from .group import command
from .options import json_option, run_argument, start_option, trial_options

__all__: list[str] = []


@command()
@run_argument
@click.option(
    "--system", default="hmnet", shell_complete=offered_systems, help="The system that was trained."
)
@click.option("--seed", type=int, default=1, help="The seed that it was trained with.")
@trial_options
@start_option
@click.option("--finetuned", is_flag=True, help="Use the model that finetune made, on the images themselves.")
@click.option("--split", default="test", shell_complete=one_of(SPLITS), help="train, valid or test.")
@click.option(
    "--shuffle-images",
    is_flag=True,
    help="Deal the images out at random, to see how much a model that uses them loses.",
)
@click.option(
    "--no-images",
    is_flag=True,
    help="Take all images away, to see what a model that uses them knows by the text alone.",
)
@click.option("--explain", is_flag=True, help="Also write gates and attention to views, for figures.")
@click.option(
    "--grounding",
    "ground",
    is_flag=True,
    help="Also compare the view with the most attention from a mention's words with the mention's boxes.",
)
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
    "--pipeline",
    "entities",
    metavar="MODEL",
    help="For relations: also find the mentions, by this model of entities, and score both together.",
)
@click.option(
    "--types/--no-types",
    default=True,
    help="With --pipeline: hold relations to the types of arguments in their names.",
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
    percent: int,
    natural: bool,
    subset_seed: int,
    features: str,
    recipe: str,
    start: Path | None,
    finetuned: bool,
    split: str,
    shuffle_images: bool,
    no_images: bool,
    explain: bool,
    ground: bool,
    calibrate: bool,
    keep: bool,
    entities: str | None,
    types: bool,
    data: Path | None,
    as_json: bool,
) -> None:
    """Score a trained model on a split.

    Reads models/SYSTEM/seed-N/, samples.parquet and features/. Writes evaluation-SPLIT.json and .parquet
    (gold and predicted labels) and errors-SPLIT.parquet and .md (each error with its kind and its sample)
    into the model's folder. Prints precision, recall and F1 overall, per type and per group, the kinds of
    errors, and the scores where a boundary or a type is forgiven. --explain also writes
    explanation-SPLIT.parquet: each layer's gate probabilities and each word's attention to each view.
    --grounding reads mention_boxes.parquet and detections.parquet too, and adds how often the view with the
    most attention from a mention's words is one of its boxes (IoU 0.5), and what the views allow. --calibrate
    adds the expected calibration error and the reliability table of the model's probabilities, as they are
    and with the temperature that fits the validation split; --keep-temperature writes it into
    temperature.json. --pipeline writes pipeline-SPLIT.json instead: the scores of relations whose mentions
    have to be found as well, and what that costs.

    \b
    Example: hmnet-pipe evaluate runs/twitter2015 --system hmnet --split valid
    """
    from ...stages.learning.causes import start_token
    from ..report.text import calibration_table, errors_table, grounding_table, score_table
    from ..run.evaluate import evaluate_trial
    from ..run.new import trials_of

    if keep and not calibrate:
        raise InputError("--keep-temperature: there is none without --calibrate; give both")
    if shuffle_images and no_images:
        raise InputError(
            "--shuffle-images deals images out, and --no-images takes them away; give one of them"
        )
    token = "" if start is None else start_token(start)
    subset = (shots,), (subset_seed,)
    [trial] = trials_of((system,), (seed,), *subset, features, token, (recipe,), percent, natural)
    if entities is not None:
        if finetuned or shuffle_images or no_images or explain or ground or calibrate:
            raise InputError(
                "--pipeline goes with --split, --no-types and --data alone; leave the others out"
            )
        from ..predict.command import model_meant
        from ..predict.triples import evaluate_together, triples_table

        with lent_tools(quiet=as_json) as tools:
            scores, path = evaluate_together(
                model_meant(entities, "hmnet", 1),
                RunFolder(run).model(trial),
                RunFolder(data or run),
                split,
                tools,
                types=types,
            )
        if as_json:
            print_json({"scores": scores, "output": str(path)})
        else:
            show(*triples_table(scores).split("\n"), f"evaluate: {split} -> {path}")
        return
    if not types:
        raise InputError("--no-types goes with --pipeline alone; give both, or neither")
    with lent_tools(quiet=as_json) as tools:
        scores, path = evaluate_trial(
            RunFolder(run),
            trial,
            RunFolder(data or run),
            finetuned=finetuned,
            split=split,
            shuffle_images=shuffle_images,
            no_images=no_images,
            explain=explain,
            calibrate=calibrate,
            keep=keep,
            ground=ground,
            tools=tools,
        )
    if as_json:
        print_json({"scores": scores, "output": str(path)})
        return
    images = " with shuffled images" if shuffle_images else " without images" if no_images else ""
    what = f"evaluate: {split}{images} -> {path}"
    tables = [score_table(scores), errors_table(scores["errors"])]
    tables += [grounding_table(scores["grounding"])] if ground else []
    tables += [calibration_table(scores["calibration"])] if calibrate else []
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
@click.option("--groups", is_flag=True, help="Test F1 of each group of samples instead, a column a group.")
@click.option(
    "--format",
    "form",
    default="text",
    metavar="FORMAT",
    shell_complete=one_of(TABLE_FORMATS),
    help=f"One of {', '.join(TABLE_FORMATS)}; markdown and latex are of the test split, as papers print it.",
)
@json_option
def table(
    run: Path,
    systems: tuple[str, ...],
    seeds: tuple[int, ...],
    against: str,
    groups: bool,
    form: str,
    as_json: bool,
) -> None:
    """Print one row per system and setting: mean and deviation of F1 over its seeds.

    Reads metrics.json of every finished training in RUN, and with --against predictions.parquet. Writes
    nothing. --against adds the mean difference with its 95% interval (bootstrap over seeds and sentences) and
    the p-value of approximate randomisation by sentences, alone and corrected for all rows (Holm). --format
    latex is a tabular for the package booktabs, in percent, the best of each column in bold; csv has all
    digits. --groups is for data whose samples name groups, as those of the presets demo and diagnostic do.

    \b
    Example: hmnet-pipe table runs/twitter2015 --system bert-crf --system hmnet --against bert-crf
             hmnet-pipe table runs/twitter2015 --format latex > table.tex
    """
    from ..report.formats import trials_as
    from ..report.text import groups_table
    from ..run.trainings import differences, finished_trainings

    if form not in TABLE_FORMATS:
        raise unknown_name("--format", form, TABLE_FORMATS)
    if as_json and form not in ("text", "json"):
        raise InputError(f"--json and --format {form} are two forms of one table; give one of them")
    if groups and (against or as_json or form != "text"):
        raise InputError(
            "--groups prints a table of its own as text; leave out --against, --format and --json"
        )
    folder = RunFolder(run)
    metrics = finished_trainings(folder, systems, seeds)
    if groups:
        show(*groups_table(metrics).split("\n"))
        return
    tested = differences(folder, metrics, against) if against else None
    show(*trials_as("json" if as_json else form, metrics, tested).split("\n"))


@command()
@click.argument("model", type=click.Path(file_okay=False), shell_complete=runs)
@click.argument("name", metavar="USER/NAME")
@click.option(
    "--system", default="hmnet", shell_complete=offered_systems, help="Where MODEL is a run: which system."
)
@click.option("--seed", type=int, default=1, help="Where MODEL is a run: which seed.")
@click.option("--finetuned", is_flag=True, help="Where MODEL is a run: the model that finetune made.")
@click.option(
    "--language", "languages", multiple=True, help="The language of its texts, for the card; may be repeated."
)
@click.option("--license", default="", help="The licence that it goes under, for the card, such as mit.")
@click.option(
    "--private", is_flag=True, help="Make a repository that its owner alone sees, where there is none."
)
@click.option("--dry-run", is_flag=True, help="Send nothing: list what would be sent.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="With --dry-run: also write what would be sent into this folder.",
)
@click.option("--message", default="", help="What the commit says.")
@click.option("--revision", default=None, help="The branch to send to, made where there is none.")
@click.option(
    "--predictions",
    is_flag=True,
    help="Also send predictions.parquet, with the texts of the test split.",
)
@json_option
def push(
    model: str,
    name: str,
    system: str,
    seed: int,
    finetuned: bool,
    languages: tuple[str, ...],
    license: str,
    private: bool,
    dry_run: bool,
    output: Path | None,
    message: str,
    revision: str | None,
    predictions: bool,
    as_json: bool,
) -> None:
    """Send a trained model to the Hugging Face hub.

    Reads the folder of MODEL, or of a run's model by --system and --seed. Writes one commit in the repository
    USER/NAME, which is made where there is none: weights, configuration, what reads texts, scores and the
    model card. No text of your data is sent without --predictions, and nothing at all with --dry-run. The
    token is that of HF_TOKEN or of `hf auth login`.

    \b
    Example: hmnet-pipe push runs/twitter2015/models/hmnet/seed-1 user/hmnet-twitter2015 --dry-run
    """
    from ...stages.systems.hub import check_hub_name, files_to_push, push_model, write_files
    from ..predict.command import model_meant

    if output is not None and not dry_run:
        raise InputError("--output is for --dry-run; give both, or neither")
    folder = Path(model_meant(model, system, seed, finetuned=finetuned))
    if not dry_run:
        made = push_model(
            folder,
            name,
            private=private,
            message=message,
            revision=revision,
            predictions=predictions,
            languages=languages,
            license=license,
        )
        if as_json:
            print_json({"output": made})
        else:
            show(f"push: {folder} -> {made}")
        return
    check_hub_name(name)
    files = files_to_push(folder, predictions=predictions, languages=languages, license=license)
    if output is not None:
        write_files(files, output)
    sizes = {path: len(one) if isinstance(one, bytes) else one.stat().st_size for path, one in files.items()}
    if as_json:
        print_json({"files": sizes, "output": str(output) if output is not None else None})
        return
    show(*(f"{size:>12,}  {path}" for path, size in sizes.items()))
    show(f"push: nothing was sent; {len(sizes)} files, {sum(sizes.values()):,} bytes would go to {name}")


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
