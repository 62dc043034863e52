"""The flags that commands share; errors are in test_bad_*, the commands as typed in test_package."""

import jax
import numpy as np
import pytest

from sgflow_jax import cli, generate
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError


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


def test_a_directory_counts_once_under_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    given = ["other", "run", "link", str(tmp_path / "run"), "run/../run"]
    assert cli.directories("workdirs", given) == ("other", "run")
