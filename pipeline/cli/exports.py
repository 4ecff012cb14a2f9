"""The command that writes samples in the formats of others: export."""

from pathlib import Path

import click

from ...manifests.run import RunFolder
from ...manifests.schemas import SPLITS
from .completion import one_of
from .console import print_json, show
from .group import command
from .options import json_option, run_argument

__all__: list[str] = []

_FORMATS = ("jsonl", "twitter", "doccano", "label-studio", "brat", "huggingface", "spacy", "opennre")


@command()
@run_argument
@click.option(
    "--format",
    "form",
    required=True,
    shell_complete=one_of(_FORMATS),
    help=f"One of {', '.join(_FORMATS)}: the names that prepare has for them.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder to write, which must be new or empty.",
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help="A model's folder, or a table of its predictions: its labels instead of the samples' own.",
)
@click.option(
    "--split", default="", shell_complete=one_of(SPLITS), help="train, valid or test [default: all]."
)
@json_option
def export(run: Path, form: str, output: Path, predictions: Path | None, split: str, as_json: bool) -> None:
    """Write a run's samples, or a model's predictions, in the formats of annotation tools and libraries.

    Reads samples.parquet and, with --predictions, predictions.parquet of a model's folder (or
    evaluation-SPLIT.parquet). Writes a file a split into the folder, or a folder a split for brat.
    `prepare --text FOLDER` reads them again.

    \b
    Example: hmnet-pipe export runs/twitter2015 --format label-studio --output exported
    """
    from ..predict.export import export as write

    written = write(RunFolder(run), form, output, predictions=predictions, split=split)
    if as_json:
        print_json({"samples": written})
    else:
        show(*(f"export: {count} samples -> {path}" for path, count in written.items()))
