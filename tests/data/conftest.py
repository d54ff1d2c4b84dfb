import shutil
from pathlib import Path

import pytest
from made_up import photos

from vqlib.data import prepare


@pytest.fixture(scope="session")
def prepared_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "photos"
    prepare(photos(), folder, workers=1)
    return folder


@pytest.fixture
def prepared(prepared_once: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return shutil.copytree(prepared_once, tmp_path / "prepared")
