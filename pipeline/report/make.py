"""`hmnet-pipe report`: gather what is shown of some runs, and write it as a page and as figures."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ... import __version__
from ...manifests.errors import HmnetPipeError, InputError
from ...manifests.files import write_text
from ...manifests.run import RunFolder
from ...stages.base.tools import SILENT, Tools
from .data import Report
from .figures import write_figures
from .gather import Asked, gather
from .page import page_of

__all__ = ["Asked", "make_report"]


def make_report(
    runs: Sequence[RunFolder],
    locks: Sequence[str | HmnetPipeError],
    output: Path,
    asked: Asked,
    *,
    figures: Path | None = None,
    command: str,
    tools: Tools = SILENT,
) -> list[Path]:
    """Write the report of some runs to `output`, and its figures into a folder; return their files.

    locks: of each run the text of its lock, or why it has none. figures: None: no figure is written. command:
    makes the report again. Raises InputError where `output` is a folder, and as `gather` and `write_figures`
    do.
    """
    if output.is_dir():
        raise InputError(f"--output {output} is a folder; name a file, {output / 'report.html'} for example")
    found = [gather(run, asked, lock, tools) for run, lock in zip(runs, locks, strict=True)]
    report = Report(tuple(found), command, __version__, datetime.now(UTC).strftime("%d %B %Y").lstrip("0"))
    write_text(output, page_of(report))
    return write_figures(report, figures) if figures is not None else []
