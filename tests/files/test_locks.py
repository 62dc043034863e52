"""Directories on file systems that know no locks, and of other users."""

import errno
import fcntl
import os
import shutil
import threading
from pathlib import Path

import pytest

from eval import fid_sweep
from eval.scores import own_place, results
from sgflow_jax import trainer
from sgflow_jax.files import locks
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access, integrity, ownership, record
from tests import rows, tiny


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def without_locks(request, monkeypatch):
    def flock(*_):
        raise OSError(request.param, "no such thing")

    monkeypatch.setattr(fcntl, "flock", flock)
    locks._warn.cache_clear()


def test_without_locks_all_goes_on_with_one_warning(without_locks, tmp_path, capsys):
    with ownership.claimed(str(tmp_path)) as first, ownership.claimed(str(tmp_path)) as second:
        with pytest.raises(InputError, match=f"another run took over --workdir={tmp_path} .*saves nothing more; use"):
            first.check()
        second.check()
    results.append(str(tmp_path), rows.row())
    assert results.read(str(tmp_path)) == [rows.row()]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "warning: this file system has no locks (no such thing)" in said


def test_the_run_that_lost_its_directory_saves_nothing_more(tmp_path, monkeypatch):
    """Where there are no locks, another may come; its token tells."""
    save = trainer._Run._save

    def taken(self, step, *rest):
        if step == 4:
            (tmp_path / "lock").write_text("host 123 456")
        save(self, step, *rest)

    monkeypatch.setattr(trainer._Run, "_save", taken)
    with pytest.raises(InputError, match="another run took over .* .host and process host 123.: this one saves"):
        trainer.train(tiny.mixture(), str(tmp_path))
    assert integrity.step_numbers(tmp_path / "checkpoints") == [2]
    assert (tmp_path / "lock").read_text() == "host 123 456"


def test_a_run_that_is_refused_takes_nothing_over(line_run, tmp_path, monkeypatch):
    """A second command, where there are no locks and the first run has just saved, must not end the first."""
    run = shutil.copytree(line_run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    (run / "lock").write_text("host 123 456")
    previous = access.previous
    monkeypatch.setattr(access, "previous", lambda *given: previous(*given)._replace(step=4))
    with pytest.raises(InputError, match="another run has just written"):
        trainer.train(tiny.mixture(), str(run))
    assert (run / "lock").read_text() == "host 123 456"


def test_what_is_measured_of_another_user_s_run_is_kept_elsewhere(line_run, tmp_path, monkeypatch):
    run = str(shutil.copytree(line_run, tmp_path / "run", ignore=shutil.ignore_patterns("eval")))
    before, access = sorted((tmp_path / "run").rglob("*")), os.access
    assert own_place.own(run, None) == run
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and not str(path).startswith(run))
    with pytest.raises(InputError, match="run is not writable: give --out=DIR to keep the results there"):
        own_place.own(run, None)
    for _ in range(2):  # the second time the links are there
        mine = own_place.own(run, str(tmp_path / "out"))
        (row,) = fid_sweep.sweep([mine], fid_sweep.Request(calls=(1,)))[mine]
    assert results.read(mine) == [row] and record.recorded(mine) == record.recorded(run)
    assert mine.startswith(str(tmp_path / "out")) and sorted((tmp_path / "run").rglob("*")) == before


def test_checkpoints_that_only_their_owner_reads_are_one_line(line_run, monkeypatch):
    def iterdir(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(InputError, match="checkpoints cannot be read .Permission denied.: ask its owner, or use"):
        access.open(line_run)


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
