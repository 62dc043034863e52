"""The package: its requirements, its wheel, and what the wheel does in an empty environment."""

import email
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from sgflow_jax import __version__, commands
from tests.commands import ROOT, lines

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGES = ("sgflow_jax", "eval", "configs")


def _listed(name: str) -> list[list[str]]:
    """The lines of a requirements file, without comments, by group; an empty line ends a group."""
    groups = (ROOT / name).read_text().split("\n\n")
    return [[line for line in group.splitlines() if not line.startswith("#")] for group in groups]


def test_the_lists_of_requirements_agree():
    assert _listed("requirements.txt") == [PROJECT["dependencies"], EXTRAS["dev"]]
    assert _listed("requirements-prepare.txt") == [["-r requirements.txt", *EXTRAS["prepare"]]]


def test_the_constraints_fit_the_requirements():
    pinned = dict(line.split("==") for line in lines(ROOT / "constraints.txt") if not line.startswith("#"))
    pinned = {_plain(name): version for name, version in pinned.items()}
    for wanted in map(Requirement, PROJECT["dependencies"] + EXTRAS["dev"]):
        assert wanted.specifier.contains(pinned[_plain(wanted.name)]), wanted


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def test_all_files_say_the_same():
    """The version, the oldest Python, and the ruff before a commit."""
    (newest, *_) = re.findall(r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == _yaml("CITATION.cff")["version"] == __version__
    job = _yaml(".github/workflows/ci.yml")["jobs"]["test"]
    assert job["steps"][-1] == {"run": "bash .ci/run"}
    assert PROJECT["requires-python"] == f">={job['strategy']['matrix']['python'][0]}"
    for hook in _yaml(".pre-commit-config.yaml")["repos"][0]["hooks"]:
        assert set(hook["additional_dependencies"]) < set(EXTRAS["dev"])


def _yaml(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


def test_each_command_has_its_module(monkeypatch):
    ran = []
    monkeypatch.setattr(commands, "_run", ran.append)
    for place in PROJECT["scripts"].values():
        module, _, function = place.partition(":")
        assert module == commands.__name__
        getattr(commands, function)()
    assert ran == ["sgflow_jax.main", "eval.fid_sweep", "eval.report"]


def test_the_wheel_alone_trains_samples_and_sweeps_in_an_empty_directory(tmp_path):
    """One test, so that it is built once."""
    wheel = _built(tmp_path / "dist")
    _check_contents(wheel)
    commands_of_it, empty = _installed(wheel, tmp_path / "environment"), tmp_path / "empty"
    empty.mkdir()

    def run(command: str, *arguments: str) -> str:
        return _succeed([commands_of_it / command, *arguments], empty)

    short = ["--config.train.num_steps=4", "--config.model.width=8", "--workdir=run"]
    said = run("sgflow-train", "--config=configs/mixture1d.py:mean_flow", *short)
    assert "step 4 of 4: diag " in said and "img/s" in said
    assert "sgflow-train --workdir=run --mode=sample" in said and "sgflow-sweep --workdir=run" in said
    assert (empty / "run" / "previews" / "step_0000004.png").exists()
    start = json.loads(lines(empty / "run" / "events.jsonl")[0])
    assert start["event"] == "start" and start["sgflow_jax"] == __version__ and start["commit"] is None

    how = ["--num_samples=5", "--steps=1,2", "--grid=quadratic", "--out=samples.npz"]
    assert "samples.npz" in run("sgflow-train", "--workdir=run", "--mode=sample", *how)
    assert (empty / "samples.npz").exists() and (empty / "samples.png").exists()

    said = run("sgflow-sweep", "--workdir=run", "--steps=1,2", "--num_samples=50")
    assert "FD-pixels, 50 samples\n\n steps  " in said
    assert said.splitlines()[-3:] == [f"wrote run/eval/{n}" for n in ("fid_table.md", "fid_curve.png", "samples.png")]
    rows = [json.loads(line) for line in lines(empty / "run" / "eval" / "fid.jsonl")]
    assert [row["sgflow_jax"] for row in rows] == [__version__] * 2


def _built(out: Path) -> Path:
    """The wheel as it is published: built from the source distribution."""
    _succeed([sys.executable, "-m", "build", "--no-isolation", f"--outdir={out}", ROOT], out.parent)
    (file,) = out.glob("*.whl")
    return file


def _check_contents(wheel: Path) -> None:
    """The wheel holds the packages, with all their files, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (email.message_from_bytes(archive.read(n)) for n in archive.namelist() if n.endswith("/METADATA"))
    ours = {file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file()}
    assert found == {str(file.relative_to(ROOT)) for file in ours if file.parent.name != "__pycache__"}
    assert {"sgflow_jax/py.typed", "eval/report.html"} < found
    assert (metadata["Name"], metadata["Version"]) == ("sgflow-jax", __version__)


def _installed(wheel: Path, place: Path) -> Path:
    """The programs of an environment that has the wheel and sees the requirements of this one, but no checkout."""
    venv.create(place, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "requirements.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("site-packages")))
    pip = [sys.executable, "-m", "pip", f"--python={place / 'bin' / 'python'}"]
    _succeed([*pip, "install", "-q", "--disable-pip-version-check", "--no-index", "--no-deps", wheel], place)
    return place / "bin"


def _succeed(command: list, folder: Path) -> str:
    """Runs a command in a folder, from where the checkout is not seen; returns what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
