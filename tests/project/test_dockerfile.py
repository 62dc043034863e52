"""The Dockerfile."""

import os
import re
import subprocess

import pytest

from tests.commands import DOCKERFILE, ROOT, environment, lines, linter, program

# Each instruction as its word and the rest, on one line.
TEXT = re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
INSTRUCTIONS = [tuple(line.split(maxsplit=1)) for line in TEXT.splitlines() if line.strip()]


def test_hadolint():
    found = subprocess.run([linter("hadolint"), DOCKERFILE], capture_output=True, text=True)
    assert not found.returncode, found.stdout


@pytest.mark.parametrize("variant, wanted", [("cpu", "jax"), ("cuda", "jax[cuda13]"), ("tpu", None)])
def test_variants(tmp_path, variant, wanted):
    program(tmp_path / "pip", 'echo "$@"')
    (command,) = [rest for word, rest in INSTRUCTIONS if word == "RUN" and "pip" in rest]
    env = environment(VARIANT=variant, PATH=f"{tmp_path}:{os.environ['PATH']}")
    found = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=env)
    if wanted is None:
        assert found.returncode == 2 and "use cpu or cuda" in found.stderr
    else:
        assert found.stdout.split()[-3:] == ["-r", "requirements.txt", wanted]


def test_image():
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", dict(INSTRUCTIONS)["FROM"])
    # Packages before the source; no root; no shell, which would keep signals to itself.
    words = [word for word, _ in INSTRUCTIONS]
    assert words[words.index("COPY") :] == ["COPY", "ARG", "RUN", "COPY", "USER", "ENTRYPOINT"]
    assert INSTRUCTIONS[-2:] == [("USER", "1000"), ("ENTRYPOINT", '["python", "main.py"]')]


def test_image_holds_the_program_and_nothing_else():
    first, *rest = [line for line in lines(ROOT / ".dockerignore") if not line.startswith("#")]
    let_in = {line[1:] for line in rest if line.startswith("!")}
    assert first == "*" and let_in == {"requirements.txt", "main.py", "sgflow_jax", "eval", "configs", "LICENSE"}
    assert all((ROOT / name).exists() for name in let_in)
