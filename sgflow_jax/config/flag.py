"""--config=FILE[:OBJECTIVE] and its overrides, --config.FIELD=VALUE.

The file is executed once, before absl parses the command line: only its result says which overrides exist. A path
configs/NAME.py that the working directory lacks means the file that is installed with this package.
"""

import difflib
import os
import re
import runpy
from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import flags
from ml_collections import config_flags

from sgflow_jax.config import fields
from sgflow_jax.config.check import check_fields, completed
from sgflow_jax.files import places
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import record

_INSTALLED = Path(__file__).parents[2]  # holds configs/, in a checkout as in an installed copy
_OVERRIDE = re.compile(r"--?(?:no)?(config\.[^=]*)")


def define(
    argv: Sequence[str],
    what: str,
    default: str | None = None,
    of_run: bool = False,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> flags.FlagHolder:
    """Defines the flag "config", whose value is a ConfigDict, and the overrides in argv; None without a configuration.

    what: its help. default: the FILE if --config is not given. of_run: if it is not given, the configuration is that
    saved in --workdir. InputError for an invalid file, or an unknown objective or field.
    """
    given, rest = take(flag_values.read_flags_from_files(list(argv)), "config")
    workdirs, _ = take(rest, "workdir")
    config = None
    if given or default:
        config = load(given[-1] if given else default)
    elif of_run and workdirs and (saved := record.recorded(places.run("--workdir", workdirs[-1]))):
        config = completed(saved).lock()
    overrides = [found[1] for arg in rest if (found := _OVERRIDE.match(arg))]
    if config is None:
        if overrides:
            raise InputError(
                f"--{overrides[0]} has no configuration to change: give --config=FILE.py, or the --workdir of a run"
            )
        return flags.DEFINE_string("config", None, what, flag_values)
    for name in overrides:
        _check_name(config, name)
    return config_flags.DEFINE_config_dict("config", config, what, flag_values, sys_argv=rest)


def parse(argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses a command line after `define`; returns the arguments that are not flags. InputError, with the valid
    values, for a wrong value of a field."""
    try:
        return flag_values(take(flag_values.read_flags_from_files(list(argv)), "config")[1])
    except flags.IllegalFlagValueError as error:
        found = re.match(r"flag --config\.([^=]*)(=.*?): ", str(error), re.DOTALL)
        if not found:
            raise
        config = flag_values["config"].value
        field = fields.complete(config.objective.name, config.model.name).get(found[1])
        if field is None:  # of the file's objective or network, which another flag changed
            raise InputError(f"--config.{found[1]}: the chosen objective or network has no such option") from error
        raise InputError(f"--config.{found[1]}{found[2]}: use {field.allowed}") from error


def take(argv: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """The values of a flag in a command line, --name=VALUE or --name VALUE, and the other arguments."""
    values, rest, args = [], [], iter(argv)
    for arg in args:
        flag, equals, value = arg.partition("=")
        if flag in (f"-{name}", f"--{name}"):
            values.append(value if equals else next(args, ""))
        else:
            rest.append(arg)
    return values, rest


def load(text: str) -> ml_collections.ConfigDict:
    """The configuration in FILE[:OBJECTIVE]. InputError unless the file returns a complete one."""
    path, colon, objective = text.partition(":")
    if not path:
        raise InputError("--config is missing: give --config=FILE.py, like configs/cifar10.py")
    file = _file(path)
    if file is None:
        there = {str(p.relative_to(root)) for root in (Path(), _INSTALLED) for p in root.glob("configs/[!_]*.py")}
        named = ", ".join(sorted(there - {"configs/base.py"}))
        raise InputError(
            f"--config={text}: there is no file {path}; use one of {named}, which are here or installed, or your own"
        )
    try:
        config = runpy.run_path(file)["get_config"](*([objective] if colon else []))
        if not isinstance(config, ml_collections.ConfigDict) or not config.is_locked:
            raise InputError("get_config must return a locked ConfigDict")
        check_fields(config)
    except InputError as error:
        raise InputError(f"--config={text}: {error}") from error
    except (Exception, SystemExit) as error:  # the file is a program of the user's and may fail in any way
        raise InputError(f"--config={text}: {path} fails with {type(error).__name__}: {error}") from error
    return config


def _file(path: str) -> str | None:
    """The file of a configuration, see the module; None if there is none."""
    places = [path] + [str(_INSTALLED / path)] * (Path(path).parts[:1] == ("configs",))
    return next(filter(os.path.isfile, places), None)


def _check_name(config: ml_collections.ConfigDict, name: str) -> None:
    """InputError unless `name`, as config.a.b, is a field."""
    node, parts = config, name.split(".")
    for i, part in enumerate(parts[1:], start=1):
        parent = ".".join(parts[:i])
        if not isinstance(node, ml_collections.ConfigDict):
            raise InputError(f"--{name}: {parent} is a field without parts: use --{parent}=VALUE")
        if part not in node:
            near = difflib.get_close_matches(name.removeprefix("config."), fields.flatten(config.to_dict()), n=1)
            meant = f"did you mean --config.{near[0]}? " if near else ""
            raise InputError(f"--{name}: {parent} has no field {part}; {meant}{parent} has {', '.join(node)}")
        node = node[part]
    if isinstance(node, ml_collections.ConfigDict):
        raise InputError(f"--{name} is a group of fields: use one of {', '.join(node)}")
