"""Arguments and options that several commands have."""

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from ...manifests.trial import RUN
from ..run.graph import SETTINGS
from .completion import feature_sets, of_setting, recipes, runs

__all__ = [
    "MOST_WORKERS",
    "FiniteRange",
    "checkpoint_option",
    "cluster_options",
    "json_option",
    "run_argument",
    "seeds_option",
    "settings_options",
    "start_option",
    "trial_options",
]

F = TypeVar("F", bound=Callable[..., Any])

# Processes on one machine; a cluster of more is started by itself and named by --scheduler.
MOST_WORKERS = 4096


class FiniteRange(click.FloatRange):
    """A number in a range; NaN, which is neither below nor above one, and infinity are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


run_argument = click.argument("run", type=click.Path(path_type=Path, file_okay=False), shell_complete=runs)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the summary as JSON; everything else goes to stderr."
)

seeds_option = click.option(
    "--seed",
    "--seeds",
    "seeds",
    multiple=True,
    type=int,
    default=(1,),
    help="One or more seeds: --seeds 1 49 1234.",
)


start_option = click.option(
    "--start",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="MODEL",
    help="The folder of a trained model of the same system, of any task and data, to start from: all of it "
    "but classifier and CRF goes over.",
)


# For tests that kill trainings; it changes no result.
checkpoint_option = click.option("--checkpoint-seconds", type=FiniteRange(0), default=60.0, hidden=True)


def cluster_options(function: F) -> F:
    """Add the options of the cluster that computes units of work."""
    function = click.option(
        "--workers",
        type=click.IntRange(1, MOST_WORKERS),
        help="Worker processes, one thread each [default: one per core].",
    )(function)
    return click.option(
        "--scheduler",
        metavar="ADDRESS",
        callback=_checked_address,
        help="Use a running Dask scheduler, such as tcp://host:8786.",
    )(function)


def _checked_address(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse what is no address before anything is read or said."""
    if value is not None:
        from ..cluster.dask import check_address

        check_address(value)
    return value


def trial_options(function: F) -> F:
    """Add the options that name a training besides its system and seed."""
    function = click.option(
        "--recipe",
        default=RUN,
        metavar="NAME",
        shell_complete=recipes,
        help="run: [train] of run.toml, the same for all systems; as-published: each system's own; NAME: the "
        "table [recipes.NAME] of run.toml.",
    )(function)
    function = click.option(
        "--features",
        default="",
        metavar="SET",
        shell_complete=feature_sets,
        help="The feature set that the system reads [default: the one that it asks for].",
        show_default=False,
    )(function)
    function = click.option(
        "--subset-seed",
        type=int,
        default=1,
        help="With --shots or --percent: the seed that draws the samples.",
    )(function)
    function = click.option(
        "--natural",
        is_flag=True,
        help="With --shots: samples without anything to find are no class, and keep their share.",
    )(function)
    function = click.option(
        "--percent",
        type=click.IntRange(0, 100),
        default=0,
        help="Low-resource: train on this share of all samples, whatever their classes; 0: all.",
    )(function)
    return click.option(
        "--shots",
        type=click.IntRange(0),
        default=0,
        help="Low-resource: train on this many samples of each class; 0: all.",
    )(function)


def settings_options(table: str, *names: str) -> Callable[[F], F]:
    """Return a decorator that adds one option for each field of a table of run.toml, where it is written.

    names: the only fields to add; none: all.
    """

    def decorate(function: F) -> F:
        for field in reversed(fields(SETTINGS[table])):
            if names and field.name not in names:
                continue
            text = f"{field.metadata['help']} [run.toml; at first {field.default}]"
            name = field.metadata.get("option") or field.name.replace("_", "-")
            is_flag = isinstance(field.default, bool)
            function = click.option(
                f"--{name}/--no-{name}" if is_flag else f"--{name}",
                field.name,
                type=None if is_flag else type(field.default),
                default=None,
                help=text,
                show_default=False,
                shell_complete=None if is_flag else of_setting(field),
            )(function)
        return function

    return decorate
