"""One process at a time holds a lock, on a file system that has none too."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hmnet_pipe.manifests.errors import StageError
from hmnet_pipe.manifests.files import remove_temporaries
from hmnet_pipe.pipeline.checks.doctor import examine
from hmnet_pipe.pipeline.run.locks import hold


@pytest.fixture(params=[0, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def lock(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield where a lock may be, on a file system with locks and on those that answer flock with an error."""
    if request.param:

        def refuse(descriptor: int, operation: int) -> None:
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(fcntl, "flock", refuse)
    yield tmp_path / "stages" / "detect.lock"
    assert {path.name for path in (tmp_path / "stages").iterdir()} <= {"detect.lock"}


def test_a_lock_is_held_by_one_and_free_afterwards(lock: Path) -> None:
    here = rf"process {os.getpid()} on {socket.gethostname()}; wait for it"
    for _ in range(2):
        with (
            hold(lock, "detect is being run"),
            pytest.raises(StageError, match=f"^detect is being run by {here}"),
            hold(lock, "detect is being run"),
        ):
            pass


def test_the_lock_of_a_process_that_was_killed_is_taken_over(lock: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock.parent.mkdir()
    lock.touch()
    lock.with_suffix(".owner").write_text(f"process {gone.pid} on {socket.gethostname()}\n")
    if fcntl.flock.__name__ == "refuse":
        with hold(lock, "x"):  # as the library writes it, with the dead process in place of this one
            marker = lock.with_suffix(".held").read_text().splitlines()
        marker[:] = [str(gone.pid), *marker[1:2]]
        lock.with_suffix(".held").write_text("\n".join([*marker, ""]))
    with hold(lock, "detect is being run"):
        pass


def test_what_another_machine_left_on_a_file_system_without_locks_is_named_and_not_taken(lock: Path) -> None:
    if fcntl.flock.__name__ != "refuse":
        lock.parent.mkdir()
        return  # the operating system frees it
    marker = lock.with_suffix(".held")
    lock.parent.mkdir()
    marker.write_text("1234\nanother-machine\n")
    with (
        pytest.raises(StageError, match=rf"where no such process runs any more, remove {marker}"),
        hold(lock, "x"),
    ):
        pass
    marker.unlink()  # the remedy
    with hold(lock, "x"):
        pass


@pytest.mark.parametrize("junk", [b"\xff\xfe", b"", b"process 1 on \x1b[31mhost", b"x" * 10**5])
def test_junk_in_the_note_of_the_owner_is_another_process(lock: Path, junk: bytes) -> None:
    with hold(lock, "x"):
        lock.with_suffix(".owner").write_bytes(junk)
        with pytest.raises(StageError, match=r"^x by another process; wait"), hold(lock, "x"):
            pass


def test_a_folder_at_the_note_of_the_owner_does_no_harm(lock: Path) -> None:
    owner = lock.with_suffix(".owner")
    owner.mkdir(parents=True)
    with hold(lock, "x"), pytest.raises(StageError, match=r"^x by another process; wait"), hold(lock, "x"):
        pass
    owner.rmdir()
    remove_temporaries(owner.parent)


@pytest.mark.parametrize("what", ["folder", "loop"])
def test_what_cannot_be_a_lock_is_one_sentence(tmp_path: Path, what: str) -> None:
    lock = tmp_path / "detect.lock"
    lock.mkdir() if what == "folder" else lock.symlink_to(lock.name)
    with (
        pytest.raises(StageError, match=rf"^{lock} cannot be locked \(.*; remove what is there"),
        hold(lock, "x"),
    ):
        pass


def test_that_there_are_no_locks_is_said_once_and_doctor_takes_the_lock_of_the_stages(lock: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with hold(lock, "x", say=said.append):
            pass
    without = fcntl.flock.__name__ == "refuse"
    assert len(said) == without
    assert all(f"the file system of {lock.parent} has no locks" in line for line in said)
    findings = {finding.subject: finding for finding in examine(None)}
    assert findings["file locks"].state == ("warning" if without else "ok")
    assert findings["HDF5"].state == "ok"
