"""The public data sets, where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of the data sets."""
    folder = Path(os.environ.get("COLLAB_DATA", BESIDE))
    if not (folder / "counterfact").is_dir():
        pytest.skip("no data sets: neither $COLLAB_DATA nor shared/data beside the checkout")
    return folder
