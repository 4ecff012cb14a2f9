"""The commands that look after a run: status, verify, archive and doctor."""

from pathlib import Path

import click

from ...manifests.run import DEFAULT_SET, RunFolder
from ..cluster.memory import release_freed_memory
from .completion import feature_sets, runs
from .console import lent_tools, print_json, print_reports, show
from .group import command
from .options import FiniteRange, cluster_options, json_option, run_argument

__all__: list[str] = []


@command(memory=release_freed_memory)
@run_argument
@json_option
def status(run: Path, as_json: bool) -> None:
    """Report whether each stage is up to date, and what to type next.

    Reads everything in RUN and writes nothing.

    \b
    Example: hmnet-pipe status runs/twitter2015
    """
    from ..checks.status import run_status

    result = run_status(RunFolder(run))
    print_json(result.to_json()) if as_json else show(*result.lines())


@command(memory=release_freed_memory)
@run_argument
@click.option("--fix", is_flag=True, help="Make what is wrong again, and only that.")
@click.option(
    "--rerun",
    type=FiniteRange(0, 1),
    is_flag=False,
    flag_value=0.02,
    metavar="[SHARE]",
    help="Also compute this share of each stage again, at least one unit, and compare "
    "[without a number: 0.02]. 1 repeats everything, including trainings.",
    show_default=False,
)
@click.option(
    "--train", "retrain", is_flag=True, help="With --rerun: repeat the trainings too, whatever the share."
)
@cluster_options
@json_option
def verify(
    run: Path,
    fix: bool,
    rerun: float | None,
    retrain: bool,
    scheduler: str | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Check every output of a run against its record, and every row of the cache against its checksum.

    Reads everything in RUN. Writes nothing or, with --fix, whatever was found wrong. With --rerun, a part is
    computed again in a temporary folder and called "equal" (to the last bit), "close" (apart by no more than
    rounding explains; the distances and the differences in machine and versions are listed) or "different".
    Exits with 1 where something is wrong or different and remains so.

    \b
    Example: hmnet-pipe verify runs/twitter2015 --fix
             hmnet-pipe verify runs/twitter2015 --rerun 0.1
    """
    from ..checks.verify import check_run

    with lent_tools(scheduler, workers, quiet=as_json) as tools:
        share = 0.0 if rerun is None and retrain else rerun
        result = check_run(
            RunFolder(run),
            tools,
            lambda lines: show(*lines, err=as_json),
            fix=fix,
            rerun=share,
            train=retrain,
        )
    if as_json:
        print_json(result.to_json())
    else:
        show(result.verdict())
    if not result.sound:
        raise click.exceptions.Exit(1)


@command()
@run_argument
@click.option(
    "--features",
    "feature_set",
    default=DEFAULT_SET,
    metavar="SET",
    shell_complete=feature_sets,
    help="The feature set.",
)
@click.option("--restore", is_flag=True, help="Restore the layout that is mapped into memory.")
@json_option
def archive(run: Path, feature_set: str, restore: bool, as_json: bool) -> None:
    """Compress the features of a run in place, to about half their size; reading becomes slower.

    Reads RUN/features/SET/. Writes its shards again, one by one; their contents stay the same, so no stage
    becomes stale. A kill at any moment leaves every shard whole: run the same command again. Needs `pip
    install 'hmnet-pipe[archive]'`, also for reading.

    \b
    Example: hmnet-pipe archive runs/twitter2015
             hmnet-pipe archive runs/twitter2015 --restore
    """
    from ..run.archive import archive_run

    with lent_tools(quiet=as_json) as tools:
        report = archive_run(RunFolder(run), feature_set, restore=restore, tools=tools)
    print_reports([report]) if as_json else show(*report.lines())


@command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False), required=False, shell_complete=runs)
@click.option("--encoders", is_flag=True, help="List the text encoders that --encoder takes and refuses.")
@click.option("--detectors", is_flag=True, help="List the detectors that --detector takes and refuses.")
@click.option("--backbones", is_flag=True, help="List the backbones that --backbone takes and refuses.")
@click.option("--markdown", is_flag=True, help="With a list: print it as it stands in docs/.")
@json_option
def doctor(run: Path | None, markdown: bool, as_json: bool, **lists: bool) -> None:
    """Report whether this machine has what the pipeline needs, and what to do where it has not.

    Reads the installation and RUN's settings and folder; downloads nothing. Writes nothing that stays.
    Exits with 1 where something makes the pipeline unusable.

    \b
    Example: hmnet-pipe doctor runs/twitter2015
             hmnet-pipe doctor --detectors
    """
    from ..checks.doctor import examine
    from ..report.listing import LISTINGS

    if asked := [LISTINGS[name]() for name, wanted in lists.items() if wanted]:
        for listing in asked:
            if as_json:
                print_json(listing.data)
            else:
                printed = listing.markdown() if markdown else listing.text()
                show(*printed.removesuffix("\n").split("\n"))
        return
    findings = examine(None if run is None else RunFolder(run))
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        show(*(finding.line() for finding in findings))
    if any(finding.state == "problem" for finding in findings):
        raise click.exceptions.Exit(1)
