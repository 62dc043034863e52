"""Directories on file systems that know no locks, and of other users."""

import errno
import fcntl
import threading
from pathlib import Path

import pytest

from eval import results
from eval.features import download
from sgflow_jax import integrity, locks, trainer
from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import InputError
from tests import rows, tiny


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def without_locks(request, monkeypatch):
    def flock(*_):
        raise OSError(request.param, "no such thing")

    monkeypatch.setattr(fcntl, "flock", flock)
    locks._warn.cache_clear()


def test_without_locks_all_goes_on_with_one_warning(without_locks, tmp_path, capsys):
    with paths.claimed(str(tmp_path)) as first, paths.claimed(str(tmp_path)) as second:
        with pytest.raises(InputError, match=f"another run took --workdir={tmp_path} over .*saves nothing more; use"):
            paths.check_claim(str(tmp_path), first)
        paths.check_claim(str(tmp_path), second)
    results.append(str(tmp_path), rows.row())
    with download._locked(tmp_path / "weights.part") as file:
        file.write(b"x")
    assert results.read(str(tmp_path)) == [rows.row()]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "warning: this file system locks no files (no such thing)" in said


def test_the_run_that_lost_its_directory_saves_nothing_more(tmp_path, monkeypatch):
    """Where there are no locks, another may come; its token tells."""
    save = trainer._Run._save

    def taken(self, step, *rest):
        if step == 4:
            (tmp_path / "lock").write_text("host 123 456")
        save(self, step, *rest)

    monkeypatch.setattr(trainer._Run, "_save", taken)
    with pytest.raises(InputError, match="another run took .* over .host and process host 123.: this one saves"):
        trainer.train(tiny.mixture(), str(tmp_path))
    assert integrity.steps(tmp_path / "checkpoints") == [2]
    assert (tmp_path / "lock").read_text() == "host 123 456"


def test_a_lock_is_waited_for(tmp_path):
    order = []

    def second():
        with locks.held(tmp_path / "lock"):
            order.append("second")

    with locks.held(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_the_lock_of_another_user_is_one_line(tmp_path, monkeypatch):
    real = Path.open

    def theirs(self, mode="r", *rest, **options):
        if self.name == "lock" and mode != "r":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", theirs)
    with pytest.raises(InputError, match="lock cannot be written .Permission denied., is it another user's"):
        trainer.train(tiny.mixture(), str(tmp_path))
    with pytest.raises(InputError, match="lock cannot be written .Permission denied.: use a directory you can write"):
        results.append(str(tmp_path), rows.row())
    assert not (tmp_path / "config.json").exists() and results.read(str(tmp_path)) == []
