"""The commands for a grid of trainings: experiment run, status, table, figure and lock."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...manifests.errors import unknown_name
from ...manifests.machine import usable_cores
from ..cluster.memory import keep_freed_memory
from ..report.formats import TABLE_FORMATS
from .completion import one_of
from .console import lent_tools, print_json, show
from .group import command, main, subgroup
from .options import MOST_WORKERS, checkpoint_option, cluster_options, json_option

if TYPE_CHECKING:
    from ..experiment.cells import Experiment

__all__: list[str] = []

F = TypeVar("F", bound=Callable[..., Any])


@subgroup(main)
def experiment() -> None:
    """Train a grid: data, systems, seeds, shots and recipes that a TOML file names.

    Reads GRID, a file or the name of a grid that comes with hmnet-pipe (table1, low-resource, cross-task,
    demo, diagnostic, robust, text), and the runs that it names. Writes their trainings, each into its own
    run, where every other command finds it; see `hmnet-pipe experiment run --help`.

    \b
    Example: hmnet-pipe experiment run demo
             hmnet-pipe experiment status demo
             hmnet-pipe experiment table demo --against bert-crf
    """


def _grid_options(function: F) -> F:
    """Add the grid, and the options for a part of it."""
    function = click.option(
        "--system", "systems", multiple=True, help="Only this system; may be given more than once."
    )(function)
    function = click.option(
        "--data",
        multiple=True,
        metavar="NAME",
        help="Only this data of the grid; may be given more than once.",
    )(function)
    return click.argument("grid", type=click.Path(path_type=Path, dir_okay=False))(function)


def _opened(grid: Path, data: tuple[str, ...], systems: tuple[str, ...]) -> "Experiment":
    from ..experiment.cells import Experiment
    from ..experiment.grid import grid_path, read_grid

    return Experiment(read_grid(grid_path(grid)), data, systems)


@command(experiment, memory=keep_freed_memory)
@_grid_options
@click.option(
    "--jobs",
    type=click.IntRange(1, MOST_WORKERS),
    default=1,
    help="Trainings at once, in processes that share the threads evenly. Another number of threads "
    "rounds otherwise.",
)
@cluster_options
@click.option("--dry-run", is_flag=True, help="Train nothing: list what would be trained, and how long.")
@checkpoint_option
@json_option
def run(
    grid: Path,
    data: tuple[str, ...],
    systems: tuple[str, ...],
    jobs: int,
    scheduler: str | None,
    workers: int | None,
    dry_run: bool,
    checkpoint_seconds: float,
    as_json: bool,
) -> None:
    """Make every training of a grid that is not done yet.

    Reads GRID. Brings each of its runs up to date first: prepare, detect and extract where they never ran
    (--workers is for these). Writes each training into its run, and OUTPUT/failed/ for each one that could
    not be made: it is a row with its reason, and the rest goes on. If killed, the same command goes on where
    it was. With --scheduler a training is a task of a Dask cluster; start each worker with `--nthreads 1`,
    one to a GPU. Exits with 1 where a training failed.

    \b
    Example: hmnet-pipe experiment run table1 --dry-run
             hmnet-pipe experiment run experiments/table1.toml --jobs 2
    """
    from ..experiment.run import make_runs, run_experiment
    from ..report.experiment import cells_lines, status_lines, status_of

    opened = _opened(grid, data, systems)
    if dry_run:
        found = status_of(opened, jobs)
        print_json(found) if as_json else show(*cells_lines(opened), *status_lines(found, jobs))
        return

    def say(line: str) -> None:
        show(*line.split("\n"), err=as_json)

    with lent_tools(scheduler, workers, quiet=as_json) as tools:
        wrong = make_runs(opened, tools, lambda report: show(*report.lines(), err=as_json))
    with lent_tools(scheduler, jobs, quiet=as_json) as tools:
        threads = -1 if scheduler is not None else max(1, usable_cores() // jobs)
        if scheduler is None and jobs == 1:
            from ...stages.base.tools import SILENT

            tools, threads = replace(tools, map=SILENT.map), 0  # in this process
        summary = run_experiment(
            opened,
            wrong,
            tools,
            threads=threads,
            jobs=jobs,
            checkpoint_seconds=checkpoint_seconds,
            say=say,
        )
    if as_json:
        print_json(summary.to_json())
    else:
        show(*status_lines(status_of(opened, jobs), jobs))
    if summary.failed:
        raise click.exceptions.Exit(1)


@command(experiment)
@_grid_options
@click.option("--jobs", type=click.IntRange(1), default=1, help="Trainings at once, for the estimate.")
@json_option
def status(grid: Path, data: tuple[str, ...], systems: tuple[str, ...], jobs: int, as_json: bool) -> None:
    """Say how far a grid has come, what failed and why, and how long the rest will take.

    Reads GRID and the records of its runs. Writes nothing.

    \b
    Example: hmnet-pipe experiment status table1
    """
    from ..report.experiment import cells_lines, status_lines, status_of

    opened = _opened(grid, data, systems)
    found = status_of(opened, jobs)
    print_json(found) if as_json else show(*cells_lines(opened), *status_lines(found, jobs))


@command(experiment)
@_grid_options
@click.option(
    "--against",
    multiple=True,
    metavar="SYSTEM",
    help="Also test each row's difference in test F1 from this system on the same data; of several "
    "the first that is there counts.",
)
@click.option("--groups", is_flag=True, help="Also show the test F1 of each group of mentions.")
@click.option(
    "--format",
    "form",
    default="text",
    metavar="FORMAT",
    shell_complete=one_of(TABLE_FORMATS),
    help=f"One of {', '.join(TABLE_FORMATS)}.",
)
def table(
    grid: Path,
    data: tuple[str, ...],
    systems: tuple[str, ...],
    against: tuple[str, ...],
    groups: bool,
    form: str,
) -> None:
    """Print a row for each system and setting of a grid, and the published score beside it.

    Reads GRID and the scores of its finished trainings; with --against their predictions too. Writes nothing.
    The scores of runs are in percent, the mean over seeds and subsets with the sample deviation; published
    ones stand in a column of their own with their source. --against adds the mean difference with its 95%
    interval and the p-value of approximate randomisation by sentences, corrected for all rows (Holm).

    \b
    Example: hmnet-pipe experiment table table1 --against bert-crf --format markdown
    """
    from ..experiment.results import results
    from ..report.experiment import results_as

    if form not in TABLE_FORMATS:
        raise unknown_name("--format", form, TABLE_FORMATS)
    found = results(_opened(grid, data, systems), against)
    show(*results_as(form, found, groups).split("\n"))


@command(experiment)
@_grid_options
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write: .svg or .pdf.",
)
@click.option("--group", default="", help="Show the F1 of this group of mentions.")
def figure(grid: Path, data: tuple[str, ...], systems: tuple[str, ...], output: Path, group: str) -> None:
    """Draw the test F1 of each system over the number of its samples, with 95% intervals.

    Reads GRID and the scores of its finished trainings. Writes the figure: a panel for each data, the mean
    over seeds and subsets and its interval by Student's distribution. Where the data of a grid have an `x`,
    as the share of random images in the grid robust, that is the axis. Needs `pip install
    'hmnet-pipe[figures]'`.

    \b
    Example: hmnet-pipe experiment figure low-resource --output low-resource.svg
    """
    from ..experiment.results import results
    from ..report.curves import panels_of, write_figure

    write_figure(panels_of(results(_opened(grid, data, systems)), group), output)
    show(f"figure -> {output}")


@command(experiment)
@_grid_options
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder to write, beside a paper.",
)
@json_option
def lock(grid: Path, data: tuple[str, ...], systems: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Write down what a grid was made from and what came out, as `lock` does for a run.

    Reads GRID and its runs, where each training must be done. Writes OUTPUT/grid.toml and, for each of its
    data, OUTPUT/NAME.lock with the grid's trainings alone. `reproduce` makes them again, or with --only one
    of them.

    \b
    Example: hmnet-pipe experiment lock table1 --output paper/table1
             hmnet-pipe reproduce paper/table1/mnre.lock --only hmnet-seed-1 --text data/mnre \\
             --images data/mnre_images
    """
    from ..reproduce.experiment import lock_experiment

    with lent_tools(quiet=as_json) as tools:
        paths = lock_experiment(_opened(grid, data, systems), output, tools)
    if as_json:
        print_json([str(path) for path in paths])
    else:
        show(*(f"lock -> {path}" for path in paths))
