"""SIGKILL of extract's whole process group, again and again. In a file apart from detect's, so that the two run side by side."""

from pathlib import Path

from ... import running


def test_extract_killed_thirty_times_makes_the_same_features(tmp_path: Path) -> None:
    running.survive_thirty_kills("extract", tmp_path, {"shard_rows": 2}, {"shard_rows": 16})
