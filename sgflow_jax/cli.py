"""What the commands share: faults of the input become one line and exit code 2, never a traceback."""

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from sgflow_jax import terminal
from sgflow_jax.config import fields, flag, help
from sgflow_jax.devices import processes
from sgflow_jax.files import disk, places
from sgflow_jax.interfaces import MAX_SEED, InputError

# What a run's numbers depend on: its configuration, its seed, and these settings of JAX, whatever the environment says.
PINNED = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_softmax_custom_jvp": False,
    "jax_use_direct_linearize": True,
    "jax_disable_jit": False,
}

# Flags that may differ between the processes of a command; data that differ are noticed when they are read.
EACH_ITS_OWN = ("process_id", "data_dir", "config.data.data_dir")

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several processes. TPU slices and SLURM need none of these three."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are, with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "The number of this process, from 0, with --coordinator.")
_PLACES: dict[str, Callable[[str, str], str]] = {}  # the flags that name one, and what makes a path of their text


def run(main: Callable) -> None:
    """Runs main(argv) as the program: flags are parsed first, and an InputError ends it with code 2.

    Libraries log nothing (orbax tells a page at each checkpoint, and a hundred when a disk is full); what they raise is
    reported, and --verbosity=0 shows everything.
    """

    def whole(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.FATAL)
        main(argv)
        processes.meet()

    terminal.begin()
    app.run(_with_one_line(whole), flags_parser=_with_one_line(_parse))


def define_config(what: str, default: str | None = None, of_run: bool = False) -> flags.FlagHolder:
    """The flags --config and --config.FIELD, checked first: as they are defined they read the command line.

    default, of_run: what stands for --config where it is not given, see `config_flag.check`.
    """

    def define():
        line = flags.FLAGS.read_flags_from_files(sys.argv)
        recorded = flag.check(help.split(line)[1], default, of_run)
        if recorded is not None:
            return config_flags.DEFINE_config_dict("config", recorded, what)
        return config_flags.DEFINE_config_file("config", default, what)

    return _with_one_line(define)()


def require(**values) -> None:
    """InputError unless every flag has a value."""
    for name, value in values.items():
        if value in (None, ""):
            raise InputError(f"--{name} is missing: give --{name}=...")


def define_path(name: str, default: str | None, what: str) -> flags.FlagHolder:
    """A flag that names a file or a directory: its value is what `places.path` makes of the text."""
    _PLACES[name] = places.path
    return flags.DEFINE_string(name, default, what)


def define_run(name: str, what: str) -> flags.FlagHolder:
    """As `define_path`, for the directory of a run (`places.run`)."""
    _PLACES[name] = places.run
    return flags.DEFINE_string(name, None, what)


def directories(flag: str, items: list[str] | None) -> tuple[str, ...]:
    """The items of a list flag as directories of runs, each once. InputError if there is none, or one cannot be."""
    if not items or not all(item.strip() for item in items):
        raise InputError(f"--{flag} is missing or has an empty part: give --{flag}=DIR or --{flag}=DIR,DIR")
    found = {}
    for item in items:
        directory = places.run(f"--{flag}", item.strip())
        found.setdefault(Path(directory).resolve(), directory)
    return tuple(found.values())


def integers(flag: str, items: list[str] | None, least: int = 0, most: int = MAX_SEED) -> tuple[int, ...] | None:
    """The items of a list flag as integers from least to most, in order and without repeats; None for a flag that is
    not given.

    InputError for anything else.
    """
    if items is None:
        return None
    numbers = [int(item) if re.fullmatch(r"\s*\d{1,18}\s*", item) else -1 for item in items]
    if not items or min(numbers) < least or max(numbers) > most:
        raise InputError(f"--{flag}={','.join(items)}: use integers from {least} to {most}, like --{flag}=1,2,4,10")
    return tuple(dict.fromkeys(numbers))


def start_jax(alone: bool = False, saves: bool = False) -> None:
    """Settings every command wants, before the first use of a device; joins the processes of a run, if it has several,
    which must have been given the same flags.

    alone: the command is for one process; InputError if there are others. saves: SIGTERM is for `preemption`; without,
    it ends the command.

    The persistent compilation cache is on: in JAX_COMPILATION_CACHE_DIR if set, else in the user's cache directory.
    Settings of JAX that change numbers are those of PINNED.
    """
    terminal.ready()
    if not jax.config.jax_compilation_cache_dir:
        _cache_programs(disk.cache() / "compiled")
    _pin()
    jax.config.update("jax_enable_preemption_service", saves)
    processes.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"JAX finds no device ({error}): install the jax for this machine, or set JAX_PLATFORMS=cpu"
        ) from error
    if alone and jax.process_count() > 1:
        raise InputError(f"this command is for one process, and {jax.process_count()} were started: start it once")
    processes.check_same(_given())


def _cache_programs(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        terminal.say(f"warning: compiled programs are not cached in {folder} ({error.strerror})", to_stderr=True)
    else:
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _pin() -> None:
    others = []
    for name, value in PINNED.items():
        found = getattr(jax.config, name, value)  # a setting that this JAX lacks cannot differ
        if getattr(found, "value", found) != value:
            jax.config.update(name, value)
            others.append(name.upper())
    if others:
        terminal.say(f"warning: {', '.join(others)} would change the numbers of a run, and is not used", to_stderr=True)


def _given() -> dict[str, Any]:
    """The command's flags and the fields of its configuration, but not those of EACH_ITS_OWN."""
    found = {}
    for name, value in flags.FLAGS.flag_values_dict().items():
        if isinstance(value, ml_collections.ConfigDict):
            found |= fields.flatten({name: value.to_dict()})
        elif not name.startswith("config.") and not flags.FLAGS.find_module_defining_flag(name).startswith("absl"):
            found[name] = value
    return {name: value for name, value in found.items() if name not in EACH_ITS_OWN}


def _parse(argv: list[str]) -> list[str]:
    asks_help, argv = help.split(argv)
    rest = flags.FLAGS(argv)
    if asks_help:
        named = any(arg.lstrip("-").partition("=")[0] == "config" for arg in argv[1:])
        doc = sys.modules["__main__"].__doc__ or ""
        terminal.say(help.of_config(flags.FLAGS.config) if named else help.of_command(doc))
        sys.exit(0)
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}: options are written --name=value")
    for name, value in flags.FLAGS.flag_values_dict().items():
        if isinstance(value, float) and not math.isfinite(value):  # absl lets nan pass all bounds
            raise InputError(f"--{name}={value}: use a finite number")
        if name in _PLACES and isinstance(value, str):
            flags.FLAGS[name].value = _PLACES[name](f"--{name}", value)
    return rest


def _with_one_line(function: Callable) -> Callable:
    def call(*args):
        try:
            return function(*args)
        except (InputError, flags.Error) as error:
            line = " ".join(str(error).split()) + ": see --help for what there is" * isinstance(error, flags.Error)
            terminal.say(f"error: {line}", to_stderr=True)
            processes.leave_soon(2)
            sys.exit(2)
        except KeyboardInterrupt:
            terminal.say(terminal.INTERRUPTED, to_stderr=True)
            processes.leave_soon(130)
            sys.exit(130)
        except Exception:
            processes.leave_soon(1)
            raise

    return call
