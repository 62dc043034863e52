"""What all commands share. Invalid input ends a command with one line and exit code 2, not a traceback.

A command defines its flags in a function `define_flags`, which only the program calls: commands share the names of
flags, and absl would not let a test import two modules that define the same flag.
"""

import functools
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging

from sgflow_jax import sampling, terminal
from sgflow_jax.config import fields, flag, help
from sgflow_jax.devices import processes
from sgflow_jax.files import disk, places
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import MAX_SEED, InputError

# Settings of JAX that change the numbers of a run. They are fixed, so that its configuration alone decides them.
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

# Flags that may differ between the processes of a command. Data that differ are noticed when they are read.
EACH_ITS_OWN = ("process_id", "data_dir", "config.data.data_dir", "config.data.dir")

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first of several processes. On TPU slices and SLURM leave out all three."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes run, with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "The number of this process, from 0, with --coordinator.")
_PLACES: dict[str, Callable[[str, str], str]] = {}  # turn the text of these flags into a path


def run(main: Callable) -> None:
    """Runs main(argv) as the program: flags are parsed first, and an InputError ends it with code 2. --help prints the
    docstring of its module.

    Library logging is off (orbax prints a page per checkpoint, a hundred when a disk is full). Errors still surface;
    --verbosity=0 turns logging on.
    """

    def whole(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.FATAL)
        main(argv)
        processes.meet()

    terminal.begin()
    doc = sys.modules[main.__module__].__doc__ or ""
    app.run(_with_one_line(whole), flags_parser=_with_one_line(functools.partial(_parse, doc)))


def define_config(what: str, default: str | None = None, of_run: bool = False) -> flags.FlagHolder:
    """The flags --config and --config.FIELD. See `config.flag.define` for default and of_run."""

    def define():
        found = f"{what} A configs/NAME.py that the working directory lacks is the installed one."
        return flag.define(help.split(sys.argv)[1], found, default, of_run)

    return _with_one_line(define)()


def require(**values) -> None:
    """InputError if a flag has no value."""
    for name, value in values.items():
        if value in (None, ""):
            raise InputError(f"--{name} is missing: give --{name}=...")


def define_path(name: str, default: str | None, what: str) -> flags.FlagHolder:
    """A flag that names a file or a directory, made a path by `places.path`."""
    _PLACES[name] = places.path
    return flags.DEFINE_string(name, default, what)


def define_output(name: str, what: str) -> flags.FlagHolder:
    """As `define_path`, but a slash at the end, which marks a directory, is kept."""
    _PLACES[name] = lambda flag_name, text: places.path(flag_name, text) + "/" * text.endswith("/")
    return flags.DEFINE_string(name, None, what)


def define_run(name: str, what: str) -> flags.FlagHolder:
    """A flag that names the directory of a run, made a path by `places.run`."""
    _PLACES[name] = places.run
    return flags.DEFINE_string(name, None, what)


def directories(name: str, items: list[str] | None) -> tuple[str, ...]:
    """The items of the list flag `name` as directories of runs, without repeats. InputError if one is empty."""
    if not items or not all(item.strip() for item in items):
        raise InputError(f"--{name} is missing or has an empty part: give --{name}=DIR or --{name}=DIR,DIR")
    found = {}
    for item in items:
        directory = places.run(f"--{name}", item.strip())
        found.setdefault(Path(directory).resolve(), directory)
    return tuple(found.values())


def integers(name: str, items: list[str] | None, least: int = 0, most: int = MAX_SEED) -> tuple[int, ...] | None:
    """The items of the list flag `name` as integers, in order and without repeats; None if the flag is not given.

    InputError unless they are integers from least to most.
    """
    if items is None:
        return None
    numbers = [int(item) if re.fullmatch(r"\s*\d{1,18}\s*", item) else -1 for item in items]
    if not items or min(numbers) < least or max(numbers) > most:
        raise InputError(f"--{name}={','.join(items)}: use integers from {least} to {most}, like --{name}=1,2,4,10")
    return tuple(dict.fromkeys(numbers))


def define_parameters(mode: str = "") -> flags.FlagHolder:
    """The flag --parameters, see `access.open`. mode: which its help begins with."""
    return flags.DEFINE_string(
        "parameters",
        "ema",
        f"{mode}ema, the averaged parameters; raw, the last ones; or another average of the run, like ema_0.9996.",
    )


def define_grid(mode: str = "") -> None:
    """The flags --grid and --times. mode: which their help begins with."""
    grids = ", ".join(sampling.GRIDS)
    flags.DEFINE_string("grid", "uniform", f"{mode}spacing of the steps in time: {grids}.")
    flags.DEFINE_string("times", None, f"{mode}the times of the steps, like 0,0.4,1, in place of --steps and --grid.")


def grid() -> str:
    """The grid that the flags of `define_grid` ask for, see `sampling.Sampler`. InputError for wrong times, or --times
    beside --grid or --steps."""
    given = flags.FLAGS
    if given.times is None:
        return given.grid
    for other in ("steps", "grid"):
        if given[other].present:
            raise InputError(f"--times={given.times} lists every step: leave out --{other}")
    return sampling.listed(given.times)


def define_guidance(mode: str = "") -> None:
    """The flags --guidance and --guidance_interval. mode: which their help begins with."""
    flags.DEFINE_float(
        "guidance", 1.0, f"{mode}W, the weight of classifier-free guidance, F(null) + W (F(class) - F(null)); 1: none."
    )
    flags.DEFINE_list("guidance_interval", None, f"{mode}START,END: guidance acts between these times only; all: 0,1.")


def guidance() -> Guidance:
    """The guidance that the flags of `define_guidance` ask for. InputError for a wrong interval."""
    weight, items = flags.FLAGS.guidance, flags.FLAGS.guidance_interval
    if items is None:
        return Guidance(weight)
    if weight == 1:
        raise InputError(f"--guidance_interval={','.join(items)} needs --guidance: add it, or leave out the interval")
    try:
        start, end = map(float, items)
        return Guidance(weight, start, end)
    except ValueError as error:  # an InputError too
        raise InputError(
            f"--guidance_interval={','.join(items)}: use two times, 0 <= START < END <= 1, like 0.2,0.8"
        ) from error


def start_jax(alone: bool = False, saves: bool = False) -> None:
    """Sets JAX up before the first use of a device, and joins the processes of a run if it has several. All of them
    must have the same flags.

    alone: InputError if there are several processes. saves: SIGTERM is left to `run.preemption`; otherwise it ends the
    command.

    The persistent compilation cache is on, in JAX_COMPILATION_CACHE_DIR or else in the user's cache directory.
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
            f"JAX finds no device ({error}): install jax for this machine, or set JAX_PLATFORMS=cpu"
        ) from error
    if alone and jax.process_count() > 1:
        raise InputError(f"this command runs in one process, but {jax.process_count()} were started: start it once")
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
        found = getattr(jax.config, name, value)  # this version of JAX may lack the setting
        if getattr(found, "value", found) != value:
            jax.config.update(name, value)
            others.append(name.upper())
    if others:
        terminal.say(f"warning: ignoring {', '.join(others)}, which would change the numbers of a run", to_stderr=True)


def _given() -> dict[str, Any]:
    """The command's flags and the fields of its configuration, without EACH_ITS_OWN."""
    found = {}
    for name, value in flags.FLAGS.flag_values_dict().items():
        if isinstance(value, ml_collections.ConfigDict):
            found |= fields.flatten({name: value.to_dict()})
        elif not name.startswith("config.") and not flags.FLAGS.find_module_defining_flag(name).startswith("absl"):
            found[name] = value
    return {name: value for name, value in found.items() if name not in EACH_ITS_OWN}


def _parse(doc: str, argv: list[str]) -> list[str]:
    """Parses a command line. doc: what --help begins with."""
    asks_help, argv = help.split(argv)
    rest = flag.parse(argv)
    if asks_help:
        named, _ = flag.take(argv, "config")
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
            line = " ".join(str(error).split()) + ": see --help for the flags" * isinstance(error, flags.Error)
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
