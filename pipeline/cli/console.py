"""What commands print and what they lend to stages: a cluster, progress on stderr, and lines for people.

Whatever reaches a terminal goes through `show` or `_bar`, which escape what data and paths may hold.
"""

from __future__ import annotations

import errno
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from ...manifests.errors import StageError
from ...manifests.files import reason_of
from ...manifests.printable import printable
from ...stages.base.tools import ProgressBar, Tools

if TYPE_CHECKING:
    from ..cluster.dask import Cluster
    from ..run.runner import Report

__all__ = ["lent_tools", "print_json", "print_reports", "show"]

_LINE_SECONDS = 30.0


def show(*lines: str, err: bool = False) -> None:
    """Print each of `lines` as one line, whatever it holds, on stdout or stderr.

    Raises StageError where stdout takes no more, and BrokenPipeError where nobody reads it any more.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # it was closed before the command started
        return
    shown = (_for_stream(line, stream) for line in lines)
    try:
        click.echo("\n".join(shown), file=stream)
    except OSError as error:
        if err or error.errno == errno.EPIPE:
            raise
        raise StageError(
            f"what this command prints cannot be written to its stdout: {reason_of(error)}"
        ) from error


def _for_stream(text: str, stream: TextIO) -> str:
    return printable(text, stream.encoding or "utf-8")


def print_json(value: Any) -> None:
    show(*json.dumps(value, indent=2).split("\n"))


def print_reports(reports: Sequence[Report]) -> None:
    """Print reports as JSON: a single one as it is, several as a list."""
    values = [report.to_json() for report in reports]
    print_json(values[0] if len(values) == 1 else values)


@contextmanager
def lent_tools(
    scheduler: str | None = None,
    workers: int | None = None,
    *,
    quiet: bool,
    line_seconds: float = _LINE_SECONDS,
) -> Iterator[Tools]:
    """Lend a stage what it needs. The cluster is started when it has units of work.

    quiet: stdout is for JSON, and lines for people go to stderr.
    """
    clusters: list[Cluster] = []

    def bar(total: int, description: str, unit: str) -> ProgressBar:
        if not sys.stderr.isatty():
            return _ProgressLines(total, description, unit, line_seconds)
        shown: Any = _bar(total, description, unit)
        bars.callback(shown.close)
        bars.callback(shown.clear)
        made: ProgressBar = shown
        return made

    def say(line: str) -> None:
        if sys.stderr.isatty():
            from tqdm import tqdm

            with tqdm.external_write_mode(file=sys.stderr if quiet else sys.stdout):
                show(line, err=quiet)
        else:
            show(line, err=quiet)

    def spread(function: Callable[[Any], Any], units: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        if not clusters:
            from ..cluster.dask import Cluster

            clusters.append(stack.enter_context(Cluster(scheduler, workers, say)))
        return clusters[0].map(function, units)

    # A bar that an error left open is closed before the error is reported.
    with ExitStack() as stack, ExitStack() as bars:
        yield Tools(map=spread, bar=bar, say=say)


def _bar(total: int, description: str, unit: str) -> Any:
    from tqdm import tqdm

    # Whatever takes less than 2 seconds shows nothing.
    return tqdm(
        total=total,
        desc=_for_stream(description, sys.stderr),
        unit=unit,
        delay=2,
        disable=total == 0,
        file=sys.stderr,
        dynamic_ncols=True,
    )


class _ProgressLines:
    """A progress bar for log files: a line now and then instead of a file full of carriage returns."""

    def __init__(self, total: int, description: str, unit: str, seconds: float) -> None:
        self._total, self._description, self._unit = total, description, unit
        self._done, self._note, self._seconds = 0, "", seconds
        self._started = self._printed = time.monotonic()

    def update(self, n: int = 1) -> None:
        self._done += n
        now = time.monotonic()
        if now - self._printed >= self._seconds:
            self._printed = now
            rate = self._done / (now - self._started)
            line = f"{self._description}: {self._done} of {self._total} {self._unit}s, {rate:.1f}/s"
            show(f"{line}{', ' if self._note else ''}{self._note}", err=True)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        self._note = s

    def close(self) -> None: ...
