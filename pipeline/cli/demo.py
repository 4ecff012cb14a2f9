"""The command that shows everything at once, offline: demo."""

from pathlib import Path

import click

from ...manifests.advice import typed
from ...stages.base.tools import Tools
from ..cluster.memory import keep_freed_memory
from .console import lent_tools, print_json, show
from .group import command
from .options import MOST_WORKERS, json_option, run_argument
from .report import write_report

__all__: list[str] = []


@command(memory=keep_freed_memory)
@run_argument
@click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    help="Worker processes for detect and extract [default: one per core].",
)
@click.option("--finetune", is_flag=True, help="Then train end to end, and again on the refreshed cache.")
@json_option
def demo(run: Path, workers: int | None, finetune: bool, as_json: bool) -> None:
    """Run everything on a generated corpus, offline, and print what the images contribute.

    Reads nothing. Writes RUN/ner and RUN/re, two complete runs, and RUN/report.html, which shows what they
    found. Run again, it skips whatever is done.

    \b
    Example: hmnet-pipe demo runs/demo
    """
    from ..report.text import demo_table
    from ..run.demo import run_demo, run_finetune_demo, sample_command
    from ..run.runner import Report

    states = []

    def told(report: Report) -> None:
        states.append(report.state)
        if not as_json:
            show(*report.lines())

    with lent_tools(workers=workers, quiet=as_json) as tools:
        scores = (run_finetune_demo if finetune else run_demo)(run, tools, told)
        page = _report(run, tools, is_new="done" in states)
    if as_json:
        print_json(scores)
    else:
        show(*demo_table(scores).split("\n"), "", f"Look at it:       {page}")
        show(f"Try it on a post: {sample_command(run)}")
        show(f"Or on a page:     {typed('serve', run / 'ner')}")


def _report(run: Path, tools: Tools, *, is_new: bool) -> Path:
    """Return the report of the demonstration, made where something `is_new`, or there is none."""
    page = run / "report.html"
    if not is_new and page.is_file():
        return page
    from ..report.make import Asked

    folders = [run / "ner", run / "re"]
    command = typed("report", *folders, "--output", page)
    return write_report(folders, Asked(), page, None, command, tools)[0]
