"""SIGKILL of detect's whole process group, again and again. In a file apart from extract's, so that the two run side by side."""

from pathlib import Path

from ... import running


def test_detect_killed_thirty_times_makes_the_same_detections(tmp_path: Path) -> None:
    running.survive_thirty_kills("detect", tmp_path, {"chunk": 2}, {"chunk": 32})
