"""detect and extract meet dead workers, too little memory, a lost scheduler, a full disk and a read-only run.

Each fault is a real one.
"""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hmnet_pipe.cache.shards import Shard
from hmnet_pipe.manifests.errors import StageError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import OUTCOMES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.pipeline.cli import main
from PIL import Image

from ... import running

pytestmark = pytest.mark.slow

STAGES = ["detect", "extract"]


@pytest.fixture(scope="module")
def corpus(demos: running.Demos) -> Path:
    return demos.corpus()


@pytest.fixture(scope="module")
def whole(demos: running.Demos) -> Path:
    """Return a finished run that nothing disturbed; never changed."""
    return demos.run(detect={"chunk": 2}, extract={"shard_rows": 2})


def before(stage: str, whole: Path, folder: Path) -> Path:
    """Return a copy of the run as it was before the stage."""
    shutil.copytree(whole, folder)
    run = RunFolder(folder)
    for name in STAGES[STAGES.index(stage) :]:
        run.record(name).unlink()
        run.outcomes(name).unlink()
    shutil.rmtree(run.features())
    if stage == "detect":
        run.detections.unlink()
        shutil.rmtree(run.crops)
    return folder


def check_one_sentence(said: str, *parts: str) -> None:
    """Check that one line begins with Error and has these parts, with no traceback and no library's log."""
    lines = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, said
    assert all(part in lines[0] for part in parts), said
    assert "Traceback" not in said
    assert "distributed." not in said
    assert "HDF5" not in said


def check_ended_well(stage: str, whole: Path, folder: Path) -> None:
    assert running.made_by(stage, folder) == running.made_by(stage, whole)
    assert running.leftovers(folder) == []


@pytest.mark.parametrize("stage", ["detect", pytest.param("extract", marks=pytest.mark.soak)])
def test_workers_killed_while_they_work_cost_nothing(stage: str, whole: Path, tmp_path: Path) -> None:
    folder = before(stage, whole, tmp_path / "run")
    with running.Command(stage, folder, "--workers", 2) as command:

        def so_far(finished: int) -> bool:
            return running.committed(stage, folder) >= finished or command.over

        for finished in (1, 10):
            running.wait_until(partial(so_far, finished))
            workers = command.workers()
            assert workers
            assert not command.over
            workers[0].kill()
        code, said = command.said()
        assert code == 0, said
        assert command.everyone() == []
    assert "Error" not in said
    check_ended_well(stage, whole, folder)


def test_an_image_that_needs_too_much_memory_is_one_row_that_says_so(corpus: Path, tmp_path: Path) -> None:
    """Decoded and scaled to floats it takes more than a gigabyte, and the worker may have 1.2."""
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    names = sorted((own / "images").iterdir())
    for path in names[4:]:  # four images are enough
        path.unlink()
    Image.new("RGB", (9400, 9400), (200, 30, 40)).save(names[2], "PNG")
    folder = running.prepared(tmp_path / "run", own, chunk=2)

    def little_memory() -> None:
        resource.setrlimit(
            resource.RLIMIT_RSS, (1200 * 2**20, 1200 * 2**20)
        )  # the kernel does not enforce it; Dask goes by it

    with running.Command("detect", folder, "--workers", 1, preexec_fn=little_memory) as command:
        code, said = command.said(200)
    assert code == 0, said
    rows = pq.read_table(RunFolder(folder).outcomes("detect")).to_pylist()
    keys = {row["path"]: row["key"] for row in pq.read_table(RunFolder(folder).images).to_pylist()}
    failed = {row["image_key"]: row["reason"] for row in rows if row["status"] == "failed"}
    assert failed == {keys[str(names[2])]: "it needs more memory than its worker may use"}
    assert len(rows) == 4


def test_a_scheduler_that_disappears_is_one_sentence_and_a_new_one_goes_on(
    whole: Path, tmp_path: Path
) -> None:
    """The worker was started in another folder than the command, whose run is a relative path."""
    folder = before("detect", whole, tmp_path / "run")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with (
        running.dask_scheduler(tmp_path / "first") as (process, file, address),
        running.dask("worker", "--scheduler-file", file, "--nthreads", 1, cwd=elsewhere),
        running.Command("detect", "run", "--scheduler", address, cwd=tmp_path) as command,
    ):
        running.wait_until(lambda: running.committed("detect", folder) >= 3 or command.over)
        running.kill_all(process)
        code, said = command.said(60)
    assert code == 1
    check_one_sentence(
        said, "the Dask scheduler is gone", "finished work is kept: run the same command again to resume"
    )
    kept = {path: path.stat().st_mtime_ns for path in RunFolder(folder).work("detect").glob("*/*.parquet")}
    assert len(kept) >= 6
    with (
        running.dask_scheduler(tmp_path / "second") as (_, file, address),
        running.dask("worker", "--scheduler-file", file, "--nthreads", 1, cwd=elsewhere),
        running.Command("detect", "run", "--scheduler", address, cwd=tmp_path) as command,
    ):
        running.wait_until(lambda: running.committed("detect", folder) >= len(kept) // 2 + 1 or command.over)
        assert {path: path.stat().st_mtime_ns for path in kept if path.is_file()} in (kept, {})
        code, said = command.said()
    assert code == 0, said
    check_ended_well("detect", whole, folder)
    assert list(elsewhere.iterdir()) == []


def test_a_scheduler_without_workers_is_said_and_a_new_worker_goes_on(whole: Path, tmp_path: Path) -> None:
    folder = before("extract", whole, tmp_path / "run")
    heard = tmp_path / "heard"
    with (
        running.dask_scheduler(tmp_path / "scheduler") as (_, file, address),
        running.Command("extract", folder, "--scheduler", address) as command,
    ):
        with running.dask("worker", "--scheduler-file", file, "--nthreads", 1):
            running.wait_until(lambda: running.committed("extract", folder) >= 3 or command.over)
        assert not command.over
        lines: list[str] = []
        assert command.process.stdout is not None
        while "no worker is left" not in "".join(lines):
            lines.append(command.process.stdout.readline())
            assert lines[-1], "it ended"
        heard.write_text("".join(lines))
        with running.dask("worker", "--scheduler-file", file, "--nthreads", 1):
            code, said = command.said()
    assert code == 0, said
    assert f"no worker is left at {address}" in heard.read_text()
    check_ended_well("extract", whole, folder)


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[Callable[[str], object]]:
    """Yield a function that remounts a file system at `place`. Only root may mount."""
    place.mkdir()
    done = subprocess.run(["mount", *options, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount is refused here: {done.stderr.strip()}")
    try:
        yield lambda how: subprocess.run(["mount", "-o", f"remount,{how}", place], check=True)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def used(folder: Path) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def check_whole_so_far(stage: str, folder: Path) -> int:
    """Check that nothing partial has a name that counts; return how many units there are."""
    run = RunFolder(folder)
    assert not run.record(stage).exists()
    assert running.leftovers(folder) == ([run.work(stage)] if stage == "detect" else [])
    if stage == "detect":
        for path in run.work(stage).glob("*/*.outcomes.parquet"):
            assert all(row["status"] == "done" for row in read_table(path, OUTCOMES).to_pylist())
    else:
        assert all(Shard(path).damaged_rows() == [] for path in run.features().glob("shard-*.h5"))
    return running.committed(stage, folder)


@pytest.mark.root
@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_one_sentence_and_more_room_goes_on(stage: str, whole: Path, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    with mounted(place, "-t", "tmpfs", "-o", "size=8m", "tmpfs") as remount:
        folder = before(stage, whole, place / "run")
        remount(f"size={used(place) + 200 * 2**10}")
        with running.Command(stage, folder, "--workers", 1) as command:
            code, said = command.said()
        assert code == 1, said
        check_one_sentence(
            said,
            f"{stage} stopped: the disk that holds {folder} is full; "
            "make room and run the same command again",
        )
        assert 0 < check_whole_so_far(stage, folder) < 31
        remount("size=8m")
        with running.Command(stage, folder, "--workers", 1) as command:
            code, said = command.said()
        assert code == 0, said
        check_ended_well(stage, whole, folder)


def stopped_by(stage: str, folder: Path) -> str | None:
    try:
        running.bring_up_to_date(folder, stage)
        return None
    except StageError as error:
        return str(error)


@pytest.mark.root
@pytest.mark.parametrize("stage", STAGES)
def test_wherever_the_disk_gets_full_nothing_partial_is_kept(stage: str, whole: Path, tmp_path: Path) -> None:
    """With ever more room, the lock's owner, tables, crops, shards, index and record fail to fit in turn.

    The stage runs in this process.
    """
    place = tmp_path / "disk"
    with mounted(place, "-t", "tmpfs", "-o", "size=8m", "tmpfs") as remount:
        folder = before(stage, whole, place / "run")
        stopped, first = 0, used(place)
        for kilobytes in range(4, 4000, 28):
            remount(f"size={first + kilobytes * 2**10}")
            if (said := stopped_by(stage, folder)) is None:
                break
            assert f"the disk that holds {folder} is full" in said
            check_whole_so_far(stage, folder)
            stopped += 1
        assert stopped > 5
        check_ended_well(stage, whole, folder)


@pytest.mark.root
def test_a_read_only_run_is_one_sentence_for_who_writes_and_open_to_who_reads(
    whole: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    place = tmp_path / "mounted"
    here = tmp_path / "runs"
    here.mkdir()
    shutil.copytree(whole, here / "whole")
    before("detect", whole, here / "undetected")
    before("extract", whole, here / "unextracted")
    with mounted(place, "--bind", str(here)) as remount:
        remount("bind,ro")
        for arguments in (
            ("prepare", "whole"),
            ("detect", "undetected"),
            ("detect", "undetected", "--chunk", "3"),
            ("extract", "unextracted"),
            ("train", "whole", "--encoder", str(tiny_encoder)),
        ):
            result = CliRunner().invoke(main, [arguments[0], str(place / arguments[1]), *arguments[2:]])
            assert result.exit_code == 1, result.output
            check_one_sentence(result.output, str(place / arguments[1]), "read-only file system")
        for command, exit_code in (
            ("status", 0),
            ("verify", 0),
            ("table", 1),
        ):  # there is no training to print
            result = CliRunner().invoke(main, [command, str(place / "whole")])
            assert result.exit_code == exit_code, result.output
            assert "read-only" not in result.output


@pytest.mark.root
def test_a_worker_that_does_not_see_the_run_says_so_and_fails_no_image(whole: Path, tmp_path: Path) -> None:
    folder = before("detect", whole, tmp_path / "run")
    blind = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(folder)]
    if subprocess.run([*blind, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare and mount are refused here")
    with (
        running.dask_scheduler(tmp_path / "scheduler") as (_, file, address),
        running.dask("worker", "--scheduler-file", file, "--nthreads", 1, through=blind),
        running.Command("detect", folder, "--scheduler", address) as command,
    ):
        code, said = command.said()
    assert code == 1
    check_one_sentence(said, f"does not see {RunFolder(folder).images}", "on a file system that they share")
    assert running.committed("detect", folder) == 0
