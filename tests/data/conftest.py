"""The real data beside the project."""

from pathlib import Path

import pytest

from tests.paths import DATASETS


@pytest.fixture
def datasets_folder() -> Path:
    if not DATASETS.is_dir():
        pytest.skip("the real data is not beside the project (../shared/datasets)")
    return DATASETS
