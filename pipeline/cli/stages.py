"""The commands that make a cache of features (prepare, detect, extract), and `changed` for the Makefile."""

from collections.abc import Iterable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from ...manifests.run import DEFAULT_SET, RunFolder
from ...manifests.schemas import TASKS
from ...manifests.trial import RUN
from ...stages.prepare.readers import FORMAT_NAMES
from ..cluster.memory import release_freed_memory
from ..run.recipes import PRESETS
from .completion import feature_sets, one_of
from .console import lent_tools, print_reports, show
from .group import command, main
from .options import cluster_options, json_option, run_argument, settings_options

__all__: list[str] = []

# The keys of [prepare] that say how texts are read.
_READING = (
    "words",
    "strict_spans",
    "column",
    "labels",
    "negative",
    "deal_images",
    "deal_share",
    "mention_boxes",
)


@command(memory=release_freed_memory)
@run_argument
@click.option(
    "--preset",
    "preset_name",
    default="custom",
    shell_complete=one_of(PRESETS),
    help="custom, demo, twitter2015, twitter2017 or mnre (the paper's recipes).",
)
@click.option(
    "--task",
    shell_complete=one_of(TASKS),
    help="ner (entities) or re (relations); the presets of data sets set it.",
)
@click.option("--text", type=click.Path(path_type=Path), help="Folder with one text file per split.")
@click.option(
    "--images",
    type=click.Path(),
    help="Folder of the images; or tar files ('shards/*.tar') or an address (s3://...), from which they are "
    "copied. Leave it out to use text only.",
)
@click.option(
    "--format",
    "text_format",
    default="auto",
    shell_complete=one_of(FORMAT_NAMES),
    help=f"One of {', '.join(FORMAT_NAMES)}; auto decides by the files' names and contents.",
)
@settings_options("prepare", *_READING)
@json_option
def prepare(
    run: Path,
    as_json: bool,
    preset_name: str,
    task: str | None,
    text: Path | None,
    images: str | None,
    text_format: str,
    **reading: Any,
) -> None:
    """Read texts and look up their images.

    Reads one file per split in --text (train, valid, test; .txt as published for Twitter-2015/2017 and MNRE,
    or .jsonl) and the images that they name. Writes RUN/run.toml, samples.parquet, images.parquet and
    problems.parquet (what was missing, unreadable or repaired), and where there are boxes of mentions
    mention_boxes.parquet. Without options, on an existing run, it reads the same places again. --deal-images
    makes a run whose images have nothing to do with its texts.

    \b
    Example: hmnet-pipe prepare runs/twitter2015 --preset twitter2015 --text data/twitter2015 \\
             --images data/twitter2015_images
    """
    from ..run.new import prepare_config, prepare_run

    folder = RunFolder(run)
    config = prepare_config(folder, preset_name, task, text, images, text_format, reading)
    with lent_tools(quiet=as_json) as tools:
        report = prepare_run(folder, config, tools)
    print_reports([report]) if as_json else show(*report.lines())


@command(memory=release_freed_memory)
@run_argument
@settings_options("detect")
@cluster_options
@json_option
def detect(run: Path, scheduler: str | None, workers: int | None, as_json: bool, **options: Any) -> None:
    """Find the top objects of every image.

    Reads images.parquet and the images. Writes detections.parquet (boxes in pixels, label, score), crops/ for
    people to look at, and stages/detect.parquet (what failed, and why). If killed, it resumes where it was.
    With --boxes it reads the boxes that another detector found, and no image; what of them is refused is a
    row of stages/detect-boxes.parquet.

    \b
    Example: hmnet-pipe detect runs/twitter2015 --weights fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth
             hmnet-pipe detect runs/twitter2015 --detector hf:PekingU/rtdetr_r50vd --min-score 0.3
             hmnet-pipe detect runs/twitter2015 --boxes boxes.jsonl
    """
    if options["detector"] and options["boxes"]:
        raise click.UsageError("give --detector, or with --boxes what another detector found.")
    if options["detector"] and options["boxes"] is None:
        options |= {"boxes": "", "annotations": ""}  # it takes the place of a file that run.toml names
    _run_configured(run, "detect", (None,), options, as_json, scheduler, workers)


@command(memory=release_freed_memory)
@run_argument
@click.option(
    "--features",
    "sets",
    multiple=True,
    default=(DEFAULT_SET,),
    metavar="SET",
    shell_complete=feature_sets,
    help="pyramid, grid, vector, scene-vector (objects of scene graphs) or a table [features.SET] of "
    "run.toml; one pass makes several.",
)
@settings_options("extract")
@cluster_options
@json_option
def extract(
    run: Path,
    sets: tuple[str, ...],
    scheduler: str | None,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compute feature sets, such as the pooled pyramid of every image and of its objects.

    Reads images.parquet, detections.parquet (for scene-vector: scenes.parquet) and the images. Writes
    features/SET/ (HDF5 shards and index.parquet) and stages/extract.parquet (what failed, and why;
    stages/extract-SET.parquet for sets other than pyramid). If killed, it resumes where it was.

    \b
    Example: hmnet-pipe extract runs/twitter2015 --backbone resnet50 --workers 2
             hmnet-pipe extract runs/twitter2015 --features pyramid --features grid
    """
    _run_configured(run, "extract", dict.fromkeys(sets), options, as_json, scheduler, workers)


@command(memory=release_freed_memory)
@run_argument
@settings_options("scenes")
@json_option
def scenes(run: Path, as_json: bool, **options: Any) -> None:
    """Make a scene graph of every image, for the systems that read one (mega, bert-sg).

    Reads detections.parquet, images.parquet and, for the labels that go together, the training split of
    samples.parquet; or, with --graphs, your own scene graphs: a JSON object or a row of parquet for each
    image, or custom_prediction.json of Scene-Graph-Benchmark. Writes scenes.parquet and
    stages/scenes.parquet, which has a row for each record that was refused, with its file, line and reason.

    \b
    Example: hmnet-pipe scenes runs/mnre
             hmnet-pipe scenes runs/mnre --graphs scene_graphs.jsonl --features scene_features.h5
    """
    _run_configured(run, "scenes", (None,), options, as_json, None, None)


@command(memory=release_freed_memory)
@run_argument
@settings_options("dependencies")
@json_option
def dependencies(run: Path, as_json: bool, **options: Any) -> None:
    """Make a dependency tree of every text, for the systems that read one (mega).

    Reads samples.parquet and, by --parser, nothing (chain), your trees in CoNLL-U, or the words through spaCy
    or stanza with a model that you name. Writes dependencies.parquet and stages/dependencies.parquet, which
    has a row for each sample without a tree, with its reason.

    \b
    Example: hmnet-pipe dependencies runs/mnre --parser spacy --model en_core_web_sm
             hmnet-pipe dependencies runs/mnre --parser conllu --model trees.conllu
    """
    _run_configured(run, "dependencies", (None,), options, as_json, None, None)


def _run_configured(
    run: Path,
    kind: str,
    members: Iterable[Any],
    options: dict[str, Any],
    as_json: bool,
    scheduler: str | None,
    workers: int | None,
) -> None:
    from ..run.new import configured, write_options
    from ..run.runner import run_together

    folder, tables = RunFolder(run), {kind: options}
    config = configured(folder, tables)
    stages = [config.stage(kind, folder, member) for member in members]
    with lent_tools(scheduler, workers, quiet=as_json) as tools:
        reports = run_together(stages, tools, accepted=partial(write_options, folder, tables))
    if as_json:
        print_reports(reports)
    else:
        show(*(line for report in reports for line in report.lines()))


@command(hidden=True)
@run_argument
@click.option("--system", "systems", multiple=True)
@click.option("--seed", "seeds", multiple=True, type=int)
@click.option("--shots", "shots", multiple=True, type=int, default=(0,))
@click.option("--subset-seed", "subset_seeds", multiple=True, type=int, default=(1,))
@click.option("--recipe", "recipes", multiple=True, default=(RUN,))
@click.argument("stages", nargs=-1, type=click.UNPROCESSED)
def changed(
    run: Path,
    systems: tuple[str, ...],
    seeds: tuple[int, ...],
    shots: tuple[int, ...],
    subset_seeds: tuple[int, ...],
    recipes: tuple[str, ...],
    stages: tuple[str, ...],
) -> None:
    """Print what the Makefile must know about a run (see run.freshness.make_words). Writes nothing.

    STAGES are the stages' commands with the options that they will be given, each after a `--`.

    \b
    Example: hmnet-pipe changed runs/x --system hmnet --seed 1 -- prepare --text TEXTS -- train --epochs 3
    """
    from ..run.freshness import make_words
    from ..run.new import prepare_config, trials_of

    folder = RunFolder(run)
    given: dict[str, dict[str, Any]] = {}
    for name, *words in (list(words) for is_mark, words in groupby(stages, "--".__eq__) if not is_mark):
        given[name] = main.commands[name].make_context(name, [str(run), *words]).params
    wanted = given.pop("prepare")
    config = prepare_config(
        folder,
        wanted["preset_name"],
        wanted["task"],
        wanted["text"],
        wanted["images"],
        wanted["text_format"],
        {name: wanted[name] for name in _READING},
    )
    for kind, values in given.items():
        config = config.override_known(kind, values)
    trials = trials_of(systems, seeds, shots, subset_seeds, recipes=recipes)
    show(" ".join(make_words(config, folder, trials)))
