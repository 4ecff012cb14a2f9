"""SIGKILL of detect's whole process group, again and again.

Apart from extract's, so that the two run side by side.
"""

from pathlib import Path

import pytest

from ...running import Campaign, Demos, survive_kills

pytestmark = pytest.mark.slow


def test_detect_killed_again_and_again_makes_the_same_detections(
    demos: Demos, tmp_path: Path, campaign: Campaign
) -> None:
    survive_kills("detect", demos, tmp_path, {"chunk": 2}, {"chunk": 32}, campaign)
