"""The cache of each test, and a folder with everything that a folder of a user may have."""

import pytest

from sgflow_jax.data import own
from tests import own_images


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty cache, and no data set remembered from before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own._opened.cache_clear()


@pytest.fixture
def mixed(tmp_path):
    """Three classes among everything that a folder of a user may have."""
    folder = own_images.numbered(tmp_path / "mixed", own_images.MIXED)
    (folder / "empty").mkdir()
    (folder / "a c" / "notes.txt").write_text("a note")
    (folder / "read me").write_text("a note")
    (folder / "a c" / ".hidden.png").write_text("x")
    (folder / ".git").mkdir()
    own_images.write(folder / ".git" / "x.png", 9)
    (folder / "a c" / "loop").symlink_to(folder)
    own_images.write(tmp_path / "elsewhere" / "linked.png", 8)
    (folder / "a c" / "outside").symlink_to(tmp_path / "elsewhere")
    return folder
