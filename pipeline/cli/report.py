"""The command that shows what a run has found: report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...manifests.advice import typed
from ...manifests.errors import HmnetPipeError
from ...manifests.run import RunFolder
from .completion import runs, systems
from .console import lent_tools, print_json, show
from .group import command
from .options import json_option

if TYPE_CHECKING:
    from ...stages.base.tools import Tools
    from ..report.make import Asked

__all__ = ["write_report"]


@command(lists=("--cases",))
@click.argument(
    "folders",
    metavar="RUN [RUN2 ...]",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    shell_complete=runs,
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="The file to write [default: RUN/report.html]."
)
@click.option(
    "--system",
    default="",
    shell_complete=systems,
    help="The system to look into [default: hmnet, or the best that reads images].",
    show_default=False,
)
@click.option("--seed", type=int, default=None, help="Its seed [default: the smallest].", show_default=False)
@click.option(
    "--against",
    default="",
    metavar="SYSTEM",
    shell_complete=systems,
    help="What others are compared with [default: a system on text alone].",
    show_default=False,
)
@click.option(
    "--cases",
    multiple=True,
    metavar="ID",
    help="Samples to show besides the chosen ones; 'paper': the three sentences of the paper's Table 2.",
)
@click.option("--no-images", is_flag=True, help="Leave photos out, where they may not be passed on.")
@click.option("--no-texts", is_flag=True, help="Leave the words of samples out: their ids stay.")
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also write every figure as SVG and PDF, in one and two columns; needs hmnet-pipe[figures].",
)
@click.option(
    "--recorded", is_flag=True, help="Compute nothing: show what trainings and evaluations have left."
)
@json_option
def report(
    folders: tuple[Path, ...],
    output: Path | None,
    system: str,
    seed: int | None,
    against: str,
    cases: tuple[str, ...],
    no_images: bool,
    no_texts: bool,
    figures: Path | None,
    recorded: bool,
    as_json: bool,
) -> None:
    """Make one HTML file of what a run, or several, found and how.

    Reads the tables of a run, its trainings and their evaluations, and evaluates what is missing: the images
    shuffled and gone, calibration, gates. Writes report.html, which needs no network and no script: the
    table, whether the image is used, errors, cases with pictures, gates and curves, the data, and what all of
    it was made from.

    \b
    Example: hmnet-pipe report runs/twitter2015
             hmnet-pipe report runs/twitter2015 runs/mnre --output both.html --no-images
    """
    from ..report.make import Asked

    asked = Asked(system, seed, against, cases, not no_images, not no_texts, recorded)
    options = {
        "--output": output,
        "--system": system,
        "--seed": seed,
        "--against": against,
        "--figures": figures,
    }
    flags = {"--no-images": no_images, "--no-texts": no_texts, "--recorded": recorded}
    words: list[object] = list(folders)
    for name, value in options.items():
        words += [name, value] if value not in (None, "") else []
    words += [name for name, given in flags.items() if given]
    words += ["--cases", *cases] if cases else []
    with lent_tools(quiet=as_json) as tools:
        path, drawn = write_report(folders, asked, output, figures, typed("report", *words), tools)
    if as_json:
        print_json({"output": str(path), "figures": [str(one) for one in drawn]})
        return
    show(f"report: {path}")
    if figures is not None:
        show(f"report: {len(drawn)} files of figures -> {figures}")


def write_report(
    folders: Sequence[Path],
    asked: "Asked",
    output: Path | None,
    figures: Path | None,
    command: str,
    tools: "Tools",
) -> tuple[Path, list[Path]]:
    """Write the report of some runs, and return its file, and those of its figures.

    output: RUN/report.html where it is None. figures: their folder, where they are wanted. command: makes the
    report again.
    """
    from ..report.make import make_report
    from ..reproduce.lock import lock_text

    def lock_of(run: RunFolder) -> "str | HmnetPipeError":
        try:
            return lock_text(run)
        except HmnetPipeError as error:
            return error

    runs = [RunFolder(folder) for folder in folders]
    path = output or folders[0] / "report.html"
    locks = [lock_of(run) for run in runs]
    return path, make_report(runs, locks, path, asked, figures=figures, command=command, tools=tools)
