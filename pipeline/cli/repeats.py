"""The commands for results that others should be able to repeat: lock and reproduce."""

from pathlib import Path
from typing import Any

import click

from ...manifests.run import RunFolder
from .console import lent_tools, print_json, show
from .group import command
from .options import FiniteRange, cluster_options, json_option, run_argument

__all__: list[str] = []


@command()
@run_argument
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it [default: RUN/hmnet-pipe.lock].",
)
@json_option
def lock(run: Path, output: Path | None, as_json: bool) -> None:
    """Write down what a run was made from and what came out, in one small file for a paper's repository.

    Reads everything in RUN, where every stage must be finished and up to date. Writes the lock:
    configuration; digests of data, weights and outputs; versions, machine kind and scores.

    \b
    Example: hmnet-pipe lock runs/twitter2015 --output paper/hmnet-pipe.lock
    """
    from ..reproduce.lock import lock_run, read_lock

    with lent_tools(quiet=as_json) as tools:
        path = lock_run(RunFolder(run), output, tools)
    content = read_lock(path)
    if as_json:
        print_json({"output": str(path), "lock": content})
    else:
        show(f"lock: {', '.join(content['stages'])} -> {path}")


@command()
@click.argument("lock", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--text", type=click.Path(path_type=Path), required=True, help="Folder with one text file per split."
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the images, if the lock's run had any.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/reproduced"),
    help="The run to make.",
)
@click.option("--encoder", help="The text encoder, if the lock's name for it does not work here.")
@click.option("--vectors", metavar="FILE", help="The file of word vectors, likewise.")
@click.option("--detector-weights", metavar="FILE", help="The detector's weights, likewise.")
@click.option("--mention-boxes", metavar="FOLDER", help="The folder of boxes of mentions, likewise.")
@click.option("--boxes", metavar="FILE", help="The file of another detector's boxes, likewise.")
@click.option("--annotations", metavar="FILE", help="COCO's annotations of these boxes, likewise.")
@click.option("--backbone-weights", metavar="FILE", help="The backbone's weights, likewise.")
@click.option("--graphs", metavar="FILE", help="The file of scene graphs, likewise.")
@click.option("--graph-features", metavar="FILE", help="The file of the features of their objects, likewise.")
@click.option("--parser-model", metavar="NAME", help="The parser's model or the file of trees, likewise.")
@click.option(
    "--start",
    "starts",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="MODEL",
    help="A model that trainings of the lock start from; may be given more than once.",
)
@click.option(
    "--only",
    default="",
    metavar="TRAINING",
    help="Make one training, such as hmnet-seed-1, and what it reads, and nothing else of the lock.",
)
@click.option(
    "--tolerance",
    type=FiniteRange(0, 1),
    default=0.02,
    help="The largest difference in F1 to attribute to rounding.",
)
@cluster_options
@json_option
def reproduce(
    lock: Path, run: Path, scheduler: str | None, workers: int | None, as_json: bool, **options: Any
) -> None:
    """Make the run of a lock again, and report field by field what came out equal.

    Reads LOCK, the texts and the images. Data or weights that differ from the lock's are reported before
    anything is computed. Writes the run and RUN/reproduction.json. If killed, it resumes where it was. Exits
    with 1 where the result was not reproduced. Where the machine, the versions or the precision differ,
    differences of rounding are reported with their size and are not failures.

    \b
    Example: hmnet-pipe reproduce paper/hmnet-pipe.lock --text data/twitter2015 \\
             --images data/twitter2015_images --run runs/again --only hmnet-seed-1
    """
    from ..reproduce.reproduce import reproduce as make_again

    with lent_tools(scheduler, workers, quiet=as_json) as tools:
        result = make_again(
            lock,
            RunFolder(run),
            tools=tools,
            report=lambda report: None if as_json else show(*report.lines()),
            **options,
        )
    print_json(result.to_json()) if as_json else show(*result.lines())
    if not result.reproduced:
        raise click.exceptions.Exit(1)
