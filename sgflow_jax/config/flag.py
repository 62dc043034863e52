"""Checks --config and --config.FIELD=VALUE before they are parsed, so that a fault is named with what is allowed."""

import ast
import difflib
import os
import runpy
from pathlib import Path
from typing import Any

import ml_collections

from sgflow_jax.config import fields
from sgflow_jax.config.check import ALLOWED, check_fields, completed
from sgflow_jax.files import places
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import record


def check(argv: list[str], default: str | None = None, of_run: bool = False) -> ml_collections.ConfigDict | None:
    """InputError for an unknown file, argument or field, or a value of the wrong type, in a command line.

    default: stands for --config where that is not given. of_run: without --config, the configuration is that of the run
    in --workdir, which is returned; otherwise None.
    """
    given = _assignments(argv[1:])
    configs = [_load(text) for name, text in [("config", default)] * bool(default) + given if name == "config"]
    recorded = _of_run(dict(given).get("workdir")) if of_run and not configs else None
    if recorded:
        configs = [recorded]
    if not configs:
        if field := next((name for name, _ in given if name.startswith("config.")), None):
            raise InputError(
                f"--{field} changes no configuration, as there is none: give --config=FILE.py, or the "
                "--workdir of a run"
            )
        return None  # said elsewhere, if it is needed
    for name, text in given:
        if name.startswith("config."):
            _check_type(name, text, _field(configs[-1], name))
    return recorded


def _of_run(workdir: str | None) -> ml_collections.ConfigDict | None:
    """The configuration that was written down in a directory; None without one."""
    saved = record.recorded(places.run("--workdir", workdir)) if workdir else None
    return completed(saved).lock() if saved else None


def _assignments(args: list[str]) -> list[tuple[str, str | None]]:
    """--name=value and --name value as (name, value); --name alone, a switch, as (name, None)."""
    given = []
    for arg, following in zip(args, [*args, "-"][1:], strict=True):
        if arg.startswith("-"):
            name, equals, value = arg.lstrip("-").partition("=")
            is_switch = following.startswith("-") and not following[1:2].isdigit()
            given.append((name, value if equals else None if is_switch else following))
    return given


def _load(text: str | None) -> ml_collections.ConfigDict:
    if not text:
        raise InputError("--config is missing: give --config=FILE.py, like configs/cifar10.py")
    path, colon, argument = text.partition(":")
    if not os.path.isfile(path):
        there = ", ".join(sorted(str(p) for p in Path("configs").glob("[!_]*.py") if p.stem != "base"))
        raise InputError(f"--config={text}: there is no file {path}; use one of {there or 'your own'}")
    try:
        config = runpy.run_path(path)["get_config"](*([argument] if colon else []))
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the file is a program of the user's and may fail in any way
        raise InputError(
            f"--config={text}: {path} is not a working config ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(config, ml_collections.ConfigDict) or not config.is_locked:
        raise InputError(f"--config={text}: {path} is not complete: its get_config must return a locked ConfigDict")
    try:
        check_fields(config)
    except InputError as error:
        raise InputError(f"--config={text}: {path} is not complete: {error}") from error
    return config


def _field(config: ml_collections.ConfigDict, name: str) -> Any:
    """The default value of config.a.b."""
    node = config
    parts = name.split(".")
    for i, part in enumerate(parts[1:], start=1):
        if not isinstance(node, ml_collections.ConfigDict) or part not in node:
            parent = ".".join(parts[:i])
            allowed = (
                f"{parent} has {', '.join(node)}" if isinstance(node, ml_collections.ConfigDict) else "it has none"
            )
            near = difflib.get_close_matches(name.removeprefix("config."), fields.flatten(config.to_dict()), n=1)
            meant = f"did you mean --config.{near[0]}? " if near else ""
            raise InputError(f"--{name}: {parent} has no field {part}; {meant}{allowed}")
        node = node[part]
    return node


def _check_type(name: str, text: str | None, default: Any) -> None:
    """ConfigDict converts integers to floats and takes literals for tuples; everything else must be of the type."""
    if text is None and isinstance(default, bool):
        return
    try:
        if text is None or isinstance(default, ml_collections.ConfigDict):
            raise ValueError
        if isinstance(default, bool):
            if text.lower() not in ("true", "false", "1", "0", "t", "f"):
                raise ValueError
        elif isinstance(default, int | float):
            type(default)(text)
        elif isinstance(default, tuple):
            value = ast.literal_eval(text)
            if not all(isinstance(item, int) for item in (value if isinstance(value, tuple) else (value,))):
                raise ValueError
    except (ValueError, SyntaxError) as error:
        is_group = isinstance(default, ml_collections.ConfigDict)
        allowed = f"one of its fields, {', '.join(default)}" if is_group else ALLOWED[type(default)]
        given = f"--{name} has no value" if text is None else f"--{name}={text}"
        raise InputError(f"{given}: use {allowed}") from error
