"""What the flags and fields that name a place take, and what they refuse in one line."""

import ast
import errno
import os
import re

import pytest

from sgflow_jax import data, trainer
from sgflow_jax.files import places
from sgflow_jax.interfaces import InputError
from tests import tiny
from tests.commands import ROOT


def test_a_path_is_the_same_for_every_command(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert places.path("--out", "~/run/") == "/home/me/run" and places.path("--out", "") == ""
    # With a link before it, a/../b is not b.
    assert places.path("--out", "a//../b/.") == "a/../b" and places.path("--out", "./~x") == "~x"
    assert places.run("--workdir", "a run's/ä") == "a run's/ä"


@pytest.mark.parametrize("scheme", ["gs://", "s3://", "file:///", "GS://", "hdfs+x://", " gs://", "gs:/"])
@pytest.mark.parametrize("of", [places.path, places.run, lambda _, text: data.make("mixture1d", text)])
def test_an_address_is_no_directory(of, scheme):
    with pytest.raises(InputError, match="is an address .*: give a path, such as the directory where a bucket is"):
        of("--workdir", f"{scheme}bucket/run")


@pytest.mark.parametrize(
    "text, match",
    [
        ("~nobody-of-this-name/run", "an unknown home directory: write the path out"),
        ("/a/" + "x" * 300, "has a name of more than 255 bytes, x{20}...: use a shorter one"),
        ("/a/" + "ä" * 130, "more than 255 bytes"),
        ("/x" * 3000, "=(/x){20}... cannot be reached .File name too long.: use another path"),
        (os.fsdecode(b"/a/\xe4"), "is not UTF-8: rename it"),
        ("/a/\0", "has a zero byte"),
    ],
)
def test_names_that_cannot_be_are_refused(text, match):
    for of in (places.path, places.run):
        with pytest.raises(InputError, match=match):
            of("--workdir", text)


def test_a_locale_that_cannot_name_the_path_is_said(monkeypatch):
    """Under LC_ALL=C and PYTHONUTF8=0 the bytes of an umlaut arrive as two that stand for themselves."""
    with pytest.raises(InputError, match="is not ASCII, but the locale is: set LC_ALL=C.UTF-8"):
        places.path("--workdir", "/a/ä".encode().decode("ascii", "surrogateescape"))


def test_a_place_of_another_user_is_refused(tmp_path, monkeypatch):
    def lstat(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "lstat", lstat)
    with pytest.raises(InputError, match="--out=/their/run cannot be reached .Permission denied.: use another path"):
        places.path("--out", "/their/run")
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path))
    with pytest.raises(InputError, match="cannot be read .Permission denied.: ask its owner, or use another"):
        places.run("--workdir", str(tmp_path))


@pytest.mark.parametrize("name", ["br[ack]", "a*", "a?"])
def test_a_run_whose_checkpoints_could_not_be_found_is_refused(name, tmp_path, monkeypatch):
    for workdir in (f"{tmp_path}/{name}", f"{tmp_path}/{name}/run"):
        with pytest.raises(InputError, match="could not be read again because of '.': use another"):
            trainer.train(tiny.mixture(), workdir)
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(InputError, match="could not be read again"):
        places.run("--workdir", "run")
    assert places.path("--out", name) == name


@pytest.mark.parametrize("parent, match", [(os.fsdecode(b"\xe4"), "is not UTF-8"), ("gone", "directory was removed")])
def test_what_is_above_a_run_counts_too(parent, match, tmp_path, monkeypatch):
    (tmp_path / parent).mkdir()
    monkeypatch.chdir(tmp_path / parent)
    if parent == "gone":
        (tmp_path / parent).rmdir()
    with pytest.raises(InputError, match=match):
        places.run("--workdir", "run")


@pytest.mark.parametrize("name", ["a,b", ' "a"', "a ", "a\nb"])
def test_a_run_that_could_not_be_in_a_list_is_refused(name):
    with pytest.raises(InputError, match="split lists of directories at commas: use a name without commas"):
        places.run("--workdir", name)


def test_every_flag_that_names_a_place_is_a_path():
    """By its description; --config has a check of its own, and lists go through `cli.directories`."""
    for file in [ROOT / "main.py", *ROOT.glob("sgflow_jax/**/*.py"), *ROOT.glob("eval/**/*.py")]:
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "DEFINE_string":
                text = " ".join(arg.value for arg in call.args if isinstance(arg, ast.Constant) and arg.value)
                assert not re.search(r"[Dd]irector|\bfile|FILE|Where|[Ww]eights|A document", text), f"{file}: {text}"
