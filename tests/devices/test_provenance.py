import json
import subprocess

import jax
import pytest

import sgflow_jax
from sgflow_jax.devices import provenance
from tests.commands import ROOT

ARGV = ["main.py", "--workdir=a run", "--config=configs/cifar10.py"]


def _commit(root):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout that contains the module alone."""
    file = tmp_path / "sgflow_jax" / "devices" / "provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    monkeypatch.setattr(provenance, "__file__", str(file))
    provenance.fingerprint.cache_clear()
    yield tmp_path
    provenance.fingerprint.cache_clear()


def test_a_run_is_described():
    assert provenance._ROOT == ROOT
    said = provenance.describe(ARGV)
    assert json.loads(json.dumps(said)) == said
    assert said["command"] == "main.py '--workdir=a run' --config=configs/cifar10.py"
    assert said["versions"]["jax"] == jax.__version__ and None not in said["versions"].values()
    assert said["devices"] == jax.device_count() and said["processes"] == 1 and said["device_kind"] == "cpu"
    assert said["sgflow_jax"] == sgflow_jax.__version__
    assert said["started"].endswith("+00:00") and said["host"]


def test_a_changed_file_makes_the_checkout_dirty(checkout):
    (checkout / ".gitignore").write_text("ignored\n")
    _commit(checkout)
    said = provenance.describe(ARGV)
    assert len(said["commit"]) == 40 and said["dirty"] is False
    (checkout / "sgflow_jax" / "devices" / "provenance.py").write_text("# changed")
    provenance.fingerprint.cache_clear()
    changed = provenance.describe(ARGV)
    assert changed["dirty"] is True and changed["commit"] == said["commit"] and changed["code"] != said["code"]


def test_no_commit_without_git_or_in_a_checkout_that_does_not_track_the_code(checkout, monkeypatch):
    assert provenance.describe(ARGV)["commit"] is None
    (checkout / ".gitignore").write_text("sgflow_jax\n")
    _commit(checkout)
    assert provenance.describe(ARGV)["commit"] is None
    monkeypatch.setenv("PATH", str(checkout))
    said = provenance.describe(ARGV)
    assert said["commit"] is None and said["dirty"] is None and said["code"]
