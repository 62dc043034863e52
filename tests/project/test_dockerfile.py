"""The container's recipe."""

import json
import os
import re
import subprocess

import pytest

from tests.commands import (
    DOCKERFILE,
    ROOT,
    environment,
    lines,
    linter,
    program,
)

# Docker


def _instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: each as its word and the rest, on one line."""
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def test_hadolint():
    found = subprocess.run([linter("hadolint"), DOCKERFILE], capture_output=True, text=True)
    assert not found.returncode, found.stdout


@pytest.mark.parametrize("variant, wanted", [("cpu", "jax"), ("cuda", "jax[cuda13]"), ("tpu", None)])
def test_docker_variants(tmp_path, variant, wanted):
    program(tmp_path / "pip", 'echo "$@"')
    (command,) = [rest for word, rest in _instructions() if word == "RUN" and "pip" in rest]
    env = environment(VARIANT=variant, PATH=f"{tmp_path}:{os.environ['PATH']}")
    found = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=env)
    if wanted is None:
        assert found.returncode == 2 and "use cpu or cuda" in found.stderr
    else:
        assert found.stdout.split()[-3:] == ["-r", "requirements.txt", wanted]


def test_docker_image():
    words = [word for word, _ in _instructions()]
    said = {word: rest for word, rest in _instructions()}  # the last of each
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", said["FROM"])
    assert json.loads(said["ENTRYPOINT"]) == ["python", "main.py"]  # no shell, which would keep signals to itself
    assert int(said["USER"]) > 0
    assert words[words.index("COPY") :] == ["COPY", "ARG", "RUN", "COPY", "USER", "ENTRYPOINT"]


def test_docker_sees_the_program_and_nothing_else():
    first, *rest = [line for line in lines(ROOT / ".dockerignore") if not line.startswith("#")]
    let_in = {line[1:] for line in rest if line.startswith("!")}
    assert first == "*"
    assert let_in == {"requirements.txt", "main.py", "sgflow_jax", "eval", "configs", "LICENSE"}
    assert all((ROOT / name).exists() for name in let_in)
