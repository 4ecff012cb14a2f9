"""What a process may use of its machine."""

import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hmnet_pipe.manifests.machine import usable_memory

WHOLE = psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("process", "limits", "expected"),
    [
        ("0::/", {}, WHOLE),
        ("0::/job/step", {"job/step/memory.max": "max"}, WHOLE),
        ("0::/job/step", {"job/step/memory.max": "max", "job/memory.max": "3000"}, 3000),
        ("0::/job/step", {"job/step/memory.max": "2000", "job/memory.max": "3000"}, 2000),
        ("0::/job/step", {"memory.max": "1000", "job/step/memory.max": "2000"}, 1000),
        ("0::/", {"memory.max": "1000"}, 1000),
        ("0::/other", {"job/memory.max": "1000"}, WHOLE),
        ("9:cpu,memory:/job\n3:pids:/pids", {"memory/job/memory.limit_in_bytes": "1000"}, 1000),
        ("3:pids:/job\n0::/", {"memory/job/memory.limit_in_bytes": "1000"}, WHOLE),
        ("9:memory:/job", {"memory/job/memory.limit_in_bytes": str(2**63)}, WHOLE),
    ],
)
def test_memory_is_that_of_the_machine_or_of_the_narrowest_control_group(
    process: str, limits: dict[str, str], expected: int, tmp_path: Path
) -> None:
    (tmp_path / "cgroup").write_text(process + "\n")
    for name, limit in limits.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(limit + "\n")
    assert usable_memory(tmp_path / "cgroup", tmp_path / "groups") == expected


def test_a_limit_of_the_process_counts(tmp_path: Path) -> None:
    code = "from hmnet_pipe.manifests.machine import usable_memory; print(usable_memory())"
    limit = 1200 * 2**20

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_RSS, (limit, limit))

    said = subprocess.run([sys.executable, "-c", code], preexec_fn=limited, capture_output=True, check=True)
    assert int(said.stdout) == limit


def test_memory_is_that_of_the_machine_where_there_are_no_control_groups(tmp_path: Path) -> None:
    assert usable_memory(tmp_path / "none", tmp_path) == WHOLE
