"""SIGKILL of extract's whole process group, again and again.

Apart from detect's, so that the two run side by side.
"""

from pathlib import Path

import pytest

from ...running import Campaign, Demos, survive_kills

pytestmark = pytest.mark.slow


def test_extract_killed_again_and_again_makes_the_same_features(
    demos: Demos, tmp_path: Path, campaign: Campaign
) -> None:
    survive_kills("extract", demos, tmp_path, {"shard_rows": 2}, {"shard_rows": 16}, campaign)
