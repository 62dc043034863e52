"""Code must not execute data, start a shell, or fetch anything without TLS."""

import re
import subprocess
import sys

import pytest

from tests.commands import ROOT

FILES = [ROOT / "main.py", *(file for d in ("sgflow_jax", "eval", "configs") for file in (ROOT / d).rglob("*.py"))]

# What ruff has no rule for.
FORBIDDEN = {
    "unpickles arrays": r"allow_pickle\s*=\s*(?!False\b)",
    "extracts to paths named by an archive": r"\.extractall\(",
    "uses an address without TLS": r"""["'](http|ftp)://""",
}
ALLOWED = {("sgflow_jax/run/preemption.py", "uses an address without TLS")}  # Google Cloud's metadata has no other


def _faults(source):
    return {fault for fault, pattern in FORBIDDEN.items() if re.search(pattern, source)}


def test_no_file_does_what_is_forbidden():
    found = {(str(file.relative_to(ROOT)), fault) for file in FILES for fault in _faults(file.read_text())}
    assert found == ALLOWED


@pytest.mark.parametrize("source", ["np.load(f, allow_pickle=True)", "zipfile.ZipFile(f).extractall()", "'http://a/b'"])
def test_each_pattern_finds_its_fault(source):
    assert len(_faults(source)) == 1 and not _faults("np.load(f, allow_pickle=False), 'https://a/b'")


# Each line and the rule of pyproject.toml that must reject it.
UNSAFE = {
    "from pickle import loads as read": "TID251",
    "import marshal": "TID251",
    "import joblib": "TID251",
    "eval(text)": "S307",
    "import builtins; builtins.exec(text)": "S102",
    "from os import system as run; run(text)": "S605",
    "import subprocess; subprocess.run(text, shell=True)": "S602",
    "import jinja2; jinja2.Environment(autoescape=False)": "S701",
    "import yaml; yaml.load(text)": "S506",
    "import tempfile; tempfile.mktemp()": "S306",
    "import urllib.request; urllib.request.urlopen(url)": "S310",
    "import requests; requests.get(url)": "TID251",
}


def test_ruff_rejects_unsafe_lines():
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "--stdin-filename=eval/new.py", "-"]
    done = subprocess.run(command, input="\n".join(UNSAFE), capture_output=True, text=True, cwd=ROOT)
    found = set(re.findall(r"^eval/new.py:(\d+):\d+: (\w+)", done.stdout, re.MULTILINE))
    assert {(str(number), rule) for number, rule in enumerate(UNSAFE.values(), 1)} <= found
