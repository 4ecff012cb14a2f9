"""The group of commands: the project's errors become exit codes, and each command has its memory policy."""

import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ... import __version__
from ...manifests.errors import HmnetPipeError, StageError, Stopped
from ...manifests.files import disk_error, disk_remedy
from .console import show

__all__ = ["command", "main", "subgroup"]


class _Group(click.Group):
    """Turns the project's errors into one line on stderr and their exit code.

    Anything else is a fault of the project and keeps its traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of their definition, which is the order of a run."""
        return list(self.commands)

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        with _in_one_sentence():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _in_one_sentence(), warnings.catch_warnings():
            # They name no image. Whether an image can be used, and why not, is in the tables.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            return super().invoke(ctx)


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    """Print the error that a user can cause, and raise Exit with its code."""
    try:
        yield
    except HmnetPipeError as error:
        show(f"Error: {error}", err=True)
        raise click.exceptions.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        show("", str(stopped), err=True)
        raise click.exceptions.Exit(stopped.exit_code) from error
    except OSError as error:
        if (cause := disk_error(error)) is None:
            raise
        show(f"Error: {disk_remedy(cause)}", err=True)
        raise click.exceptions.Exit(StageError.exit_code) from error


class _Command(click.Command):
    """A command.

    memory: a function of cluster.memory that decides what happens to memory that the command frees.
    several: options that take one or more numbers, `--seeds 1 49`, besides being given more than once.
    lists: options that take all words up to the next option in the same way.
    """

    def __init__(
        self,
        *arguments: Any,
        memory: Callable[[], None] | None = None,
        several: tuple[str, ...] = (),
        lists: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._memory, self._several, self._lists = memory, several, lists

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given: list[str] = []
        option = ""  # the one of `several` or `lists` whose values these are
        for word in args:
            is_value = not word.startswith("-") if option in self._lists else word.lstrip("-").isdigit()
            if option and is_value:
                given += [word] if given[-1] == option else [option, word]
                continue
            option = word if word in (*self._several, *self._lists) else ""
            given.append(word)
        return super().parse_args(ctx, given)

    def invoke(self, ctx: click.Context) -> Any:
        if self._memory is not None:
            self._memory()
        return super().invoke(ctx)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="hmnet-pipe")
def main() -> None:
    """Extract entities (ner) and relations (re) from texts with images, with HMNeT on cached features.

    \b
    A first result, offline:
      hmnet-pipe demo runs/demo
    Your own data:
      hmnet-pipe prepare runs/mine --task ner --text mydata --images mydata/images
      hmnet-pipe detect runs/mine; hmnet-pipe extract runs/mine; hmnet-pipe train runs/mine
    """


def command(
    group: click.Group = main,
    *,
    memory: Callable[[], None] | None = None,
    several: tuple[str, ...] = (),
    lists: tuple[str, ...] = (),
    hidden: bool = False,
) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a function a command of a group; see _Command."""
    return group.command(cls=_Command, memory=memory, several=several, lists=lists, hidden=hidden)


def subgroup(group: click.Group) -> Callable[[Callable[..., Any]], click.Group]:
    """Return a decorator that makes a function a group of commands within a group."""
    return group.group(cls=_Group)
