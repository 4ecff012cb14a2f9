"""What several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data: $HMNET_PIPE_DATA, or shared/data beside the checkout. Its tests are skipped where it is absent."""
    folder = Path(os.environ.get("HMNET_PIPE_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"the real data is not in {folder}; set HMNET_PIPE_DATA to the folder that holds twitter2015, mnre, ...")
    return folder
