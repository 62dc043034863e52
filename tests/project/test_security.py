"""What the code may not do: run what a file says, run a shell, or fetch anything that is not secure."""

import ast
from collections.abc import Iterator

import pytest

from tests.commands import ROOT

FILES = [ROOT / "main.py", *sorted(f for d in ("sgflow_jax", "eval", "configs") for f in (ROOT / d).rglob("*.py"))]

# Reading these runs code that is in the file.
UNSAFE_MODULES = {"pickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "jsonpickle"}
FORBIDDEN_CALLS = {
    "runs code that is data": {"eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile"},
    "runs a shell": {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"},
    "builds objects from YAML": {"yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"},
    "unpickles": {f"{module}.{name}" for module in UNSAFE_MODULES for name in ("load", "loads", "open")},
    "names a file that another may make first": {"tempfile.mktemp"},
    "fetches": {
        *(f"urllib.request.{name}" for name in ("urlopen", "urlretrieve", "build_opener")),
        *(f"{module}.{verb}" for module in ("requests", "httpx") for verb in ("get", "post", "request")),
        *(f"http.client.{name}" for name in ("HTTPConnection", "HTTPSConnection")),
    },
}
FORBIDDEN_VALUES = {"allow_pickle": False, "shell": False, "autoescape": True}  # of keywords: what they must be
INSECURE = ("http://", "ftp://")

# What is allowed all the same.
ALLOWED = {
    # An Unpickler that makes tensors and nothing else; tests/test_torch_file.py holds it to that.
    ("eval/features/torch_file.py", "imports pickle"),
    # Checks the address, that of redirects too, and the SHA-256; tests/test_download.py.
    ("eval/features/download.py", "fetches: urllib.request.build_opener"),
    # Google Cloud answers on the machine itself and has no other address; one word of the answer is looked at.
    ("sgflow_jax/run/preemption.py", "fetches: urllib.request.build_opener"),
    ("sgflow_jax/run/preemption.py", "names an address without TLS: http://metadata.google.internal"),
}


def _faults(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    names = dict(_imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for module in {name.partition(".")[0] for _, name in _imported(node)} & UNSAFE_MODULES:
                yield f"imports {module}"
        if isinstance(node, ast.Call):
            called = _called(node.func, names)
            yield from (f"{what}: {called}" for what, calls in FORBIDDEN_CALLS.items() if called in calls)
            if called.endswith((".extractall", ".unpack_archive")):
                yield f"writes where an archive says: {called}"
            for keyword in node.keywords:
                wanted = FORBIDDEN_VALUES.get(keyword.arg)
                if wanted is not None and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is wanted
                ):
                    yield f"sets {keyword.arg} to another value than {wanted}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(INSECURE):
            yield f"names an address without TLS: {'/'.join(node.value.split('/')[:3])}"


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What names stand for: np for numpy, and after `from os import system`, system for os.system."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _called(function: ast.expr, names: dict[str, str]) -> str:
    if isinstance(function, ast.Name):
        return names.get(function.id, function.id)
    if isinstance(function, ast.Attribute):
        return f"{_called(function.value, names)}.{function.attr}"
    return "?"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_forbidden(file):
    name = file.relative_to(ROOT).as_posix()
    assert {(name, fault) for fault in _faults(file.read_text())} <= ALLOWED


def test_what_is_allowed_is_needed():
    found = {(name, fault) for name in {name for name, _ in ALLOWED} for fault in _faults((ROOT / name).read_text())}
    assert found == ALLOWED


@pytest.mark.parametrize(
    "source, fault",
    [
        ("import marshal", "imports marshal"),
        ("from joblib import load", "imports joblib"),
        ("eval(text)", "runs code that is data: eval"),
        ("import builtins\nbuiltins.exec(text)", "runs code that is data: builtins.exec"),
        ("from os import system as run\nrun(text)", "runs a shell: os.system"),
        ("import subprocess\nsubprocess.run(text, shell=True)", "sets shell to another value than False"),
        ("import numpy as np\nnp.load(file, allow_pickle=True)", "sets allow_pickle to another value than False"),
        ("import numpy as np\nnp.load(file, allow_pickle=given)", "sets allow_pickle to another value than False"),
        ("import jinja2\njinja2.Environment(autoescape=False)", "sets autoescape to another value than True"),
        ("import yaml\nyaml.load(text)", "builds objects from YAML: yaml.load"),
        ("import tempfile as t\nt.mktemp()", "names a file that another may make first: tempfile.mktemp"),
        ("import zipfile\nzipfile.ZipFile(f).extractall()", "writes where an archive says: ?.extractall"),
        ("import urllib.request\nurllib.request.urlopen(url)", "fetches: urllib.request.urlopen"),
        ("import requests\nrequests.get(url)", "fetches: requests.get"),
        ("url = 'http://host/file'", "names an address without TLS: http://host"),
        ("url = f'ftp://{host}/file'", "names an address without TLS: ftp://"),
    ],
)
def test_each_rule_finds_what_it_is_for(source, fault):
    assert fault in set(_faults(source))


def test_unpickling_is_found_under_any_name():
    assert set(_faults("from pickle import loads as read\nread(data)")) == {"imports pickle", "unpickles: pickle.loads"}


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile(text)",
        "import numpy as np\nnp.load(file)",
        "import ast\nast.literal_eval(text)",
        "import subprocess\nsubprocess.run([text], shell=False)",
        "url = 'https://host/file'",
    ],
)
def test_nothing_else_is_found(source):
    assert not set(_faults(source))
