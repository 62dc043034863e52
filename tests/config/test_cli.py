"""The flags that commands share, and the commands as a user types them; their errors are in test_bad_input."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from sgflow_jax import cli, generate
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from tests.commands import ROOT

LINE = "--config=configs/mixture1d.py"


def test_steps():
    assert cli.integers("steps", ["4", "1", " 10", "4"], least=1) == (4, 1, 10)
    for bad in ([], ["0"], ["-1"], ["1.5"], ["a"], ["1", ""]):
        with pytest.raises(InputError, match="integers from 1"):
            cli.integers("steps", bad, least=1)


def _noise():
    """Noise as a sweep draws it."""
    return generate.draw_noise(3, np.arange(4), None, (2,))[0]


def test_no_setting_of_jax_changes_numbers(monkeypatch, capsys):
    other = [True, "rbg", False, 5, "bfloat16", "strict", "raise", True, False, True]
    other = dict(zip(cli.PINNED, other, strict=True))
    before = {name: getattr(jax.config, name) for name in other}
    right = _noise()
    try:
        for name, value in other.items():
            jax.config.update(name, value)
        cli._pin()
        assert {name: getattr(jax.config, name) for name in other} == cli.PINNED
        np.testing.assert_array_equal(_noise(), right)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    said = capsys.readouterr().err
    assert said.startswith("warning: ignoring JAX_ENABLE_X64, ") and said.count("\n") == 1
    monkeypatch.setattr(cli, "PINNED", before)
    cli._pin()
    assert capsys.readouterr().err == ""


def test_without_a_home_directory_a_command_has_its_own_cache(monkeypatch, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(disk.Path, "home", classmethod(_no_home))
    try:
        assert disk.cache() == disk.cache() and disk.cache().is_dir()
        assert capsys.readouterr().err.count("warning: no home directory") == 1
    finally:
        disk._own_cache.cache_clear()


def _no_home(_):
    raise RuntimeError("Could not determine home directory.")


def _run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


def test_train_sample_and_sweep_from_the_command_line(tmp_path):
    run, out = tmp_path / "run", tmp_path / "samples.npz"
    short = [LINE + ":mean_flow", "--config.train.num_steps=4", "--config.model.width=8"]
    done = _run("main.py", *short, f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    assert "step 4 of 4: diag " in done.stdout and "img/s" in done.stdout
    assert (run / "previews" / "step_0000004.png").exists()

    how = ["--num_samples=5", "--steps=1,2", "--grid=quadratic", f"--out={out}"]
    done = _run("main.py", f"--workdir={run}", "--mode=sample", *how)  # the directory is enough
    assert done.returncode == 0 and out.exists() and out.with_suffix(".png").exists(), done.stderr
    assert str(out) in done.stdout

    done = _run("main.py", f"--workdir={run}", "--mode=sample", f"--out={tmp_path}/png/")  # the slash arrives
    assert done.returncode == 2 and "/png/ is a directory, for images, and these are points: " in done.stderr

    done = _run("-m", "eval.fid_sweep", f"--workdir={run}", "--steps=1,2", "--num_samples=50")
    assert done.returncode == 0 and "FD-pixels, 50 samples\n\n steps  " in done.stdout, done.stderr
    drawn = [f"wrote {run}/eval/{name}" for name in ("fid_table.md", "fid_curve.png", "samples.png")]
    assert done.stdout.splitlines()[-3:] == drawn


def test_a_directory_counts_once_under_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    given = ["other", "run", "link", str(tmp_path / "run"), "run/../run"]
    assert cli.directories("workdirs", given) == ("other", "run")
