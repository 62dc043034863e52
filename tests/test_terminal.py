"""The environment a command starts in, and a terminal that takes nothing more, end no work."""

import io
import os
import subprocess
import sys

import pytest

from sgflow_jax import terminal
from sgflow_jax.display.phase import phase
from tests.commands import ROOT

BEGIN = "from sgflow_jax import terminal; terminal.begin(); import os, signal, sys; "


def _closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("descriptor", [_closed_pipe, lambda: os.open("/dev/full", os.O_WRONLY), lambda: 999])
def test_a_stream_that_takes_nothing_more_loses_what_it_is_given(descriptor):
    """A pipe that was closed, a disk that is full, a descriptor that is gone."""
    with terminal._stream(descriptor(), None) as stream:
        print("a" * 10**6, file=stream, flush=True)
        stream.write("left for the end, when Python would give code 120")
    assert stream.closed


@pytest.mark.parametrize("encoding, shown", [("ascii", "r\\xfcn \\udcfc"), ("utf-8", "rün \\udcfc")])
def test_what_the_terminal_has_no_letters_for_is_spelled_out(encoding, shown, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.say("rün \udcfc\x1b[2J")
    assert stream.buffer.getvalue().decode(encoding) == f"{shown}?[2J\n"


class _Broken(io.StringIO):
    def write(self, _):
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [None, _Broken(), io.StringIO()])
def test_telling_is_best_effort(stream, monkeypatch):
    if type(stream) is io.StringIO:
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)
    terminal.say("a line")
    terminal.say("a line", to_stderr=True)
    for silent in (True, False):
        with terminal.bar(silent, total=3) as bar:
            bar.update(1)
        assert bar.disable


def _python(code, *arguments, shell='exec "$0" "$@"', **environment):
    """Runs it as a command is run, from a shell; its standard library is imported within a tenth of a second."""
    command = ["bash", "-c", shell, sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, timeout=60)


def test_paths_are_utf8_and_pictures_files_whatever_the_environment_says():
    said = BEGIN + "print(sys.argv[1], sys.getfilesystemencoding(), os.environ['MPLBACKEND']); import warnings; "
    said += "warnings.warn('of a library')"
    locale = dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    done = _python(said, "rün", **locale, MPLBACKEND="module://nowhere", PYTHONWARNINGS="error")
    assert done.stdout.decode() == "rün utf-8 agg\n" and b"of a library" in done.stderr and done.returncode == 0


def test_a_command_whose_streams_are_closed_writes_into_no_other_file(tmp_path):
    code = BEGIN + f"file = open({str(tmp_path / 'file')!r}, 'w'); print('lost'); print('lost', file=sys.stderr); "
    code += "os.write(1, b'of a library'); file.write('kept')"
    assert _python(code, shell='exec "$0" "$@" <&- >&- 2>&-').returncode == 0
    assert (tmp_path / "file").read_text() == "kept"


def test_an_interrupt_during_imports_is_one_line():
    done = _python(BEGIN + "os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(30)")
    assert done.returncode == 130 and done.stderr.decode() == terminal.INTERRUPTED + "\n"
    back = BEGIN + "terminal.ready(); assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    assert _python(back).returncode == 0
    ignored = "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    assert _python(BEGIN + ignored, shell='trap \'\' INT; exec "$0" "$@"').returncode == 0


def test_commands_begin_before_they_import():
    code = "import sys; sys.argv[0] = '-m'; import eval, main; assert not {'jax', 'numpy', 'absl'} & {*sys.modules}; "
    assert _python(code + "print(type(sys.stdout.buffer).__module__)").stdout.decode() == "sgflow_jax.terminal\n"


def test_a_phase_shows_itself_and_lines_come_in_its_place(monkeypatch, capsys):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    with phase("compiling") as clock:
        terminal.say("a line")
        assert stream.getvalue().endswith("compiling\r\x1b[K") and capsys.readouterr().out == "a line\n"
    assert clock.seconds > 0 and not clock.from_cache and stream.getvalue().endswith("\r\x1b[K")
