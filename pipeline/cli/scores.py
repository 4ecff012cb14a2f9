"""The command that scores predictions of others: score."""

from pathlib import Path

import click

from ...manifests.run import RunFolder
from ...manifests.schemas import SPLITS
from .completion import one_of, runs
from .console import print_json, show
from .group import command
from .options import json_option

__all__: list[str] = []


@command()
@click.argument("predictions", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--run",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    shell_complete=runs,
    help="The run whose samples were predicted.",
)
@click.option("--split", default="test", shell_complete=one_of(SPLITS), help="train, valid or test.")
@click.option("--name", default="", help="What tables call the system [default: the file's name].")
@click.option("--seed", type=click.IntRange(0), default=1, help="Which of several predictions these are.")
@json_option
def score(predictions: Path, run: Path, split: str, name: str, seed: int, as_json: bool) -> None:
    """Score anybody's predictions on a run's samples as its own are, and show them in its tables.

    Reads PREDICTIONS, a line of JSON for each sample of the split ({"id": ..., "tags": [...]}, or entities as
    `hmnet-pipe predict` writes them, or {"id": ..., "relation": ...}), and samples.parquet. Writes
    scored/NAME/seed-N/: metrics.json and, of the test split, predictions.parquet. `table`, with --against
    too, and `experiment table` then have a row NAME[given].

    \b
    Example: hmnet-pipe score gpt.jsonl --run runs/twitter2015 --name gpt-4o
    """
    from ..report.text import score_table
    from ..run.score import score_predictions

    scores, folder = score_predictions(predictions, RunFolder(run), split=split, name=name, seed=seed)
    if as_json:
        print_json({"scores": scores, "output": str(folder)})
    else:
        show(*score_table(scores).split("\n"), f"score: {split} -> {folder}")
