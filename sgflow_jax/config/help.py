"""What --help prints: the flags of a command by group, or every field of a configuration with its meaning."""

import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Sequence

import ml_collections
from absl import flags

from sgflow_jax import models, objectives
from sgflow_jax.config import fields

ASKS = ("-h", "-help", "--help")
WIDTH = 100
COLUMN = 30  # where the text of a flag begins
_TITLES = {
    "Features": ("features", "inception_weights", "resize"),
    "Several processes": ("coordinator", "num_processes", "process_id"),
}


def split(argv: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether a command line asks for help, and the line without that."""
    return any(arg in ASKS for arg in argv[1:]), [arg for arg in argv if arg not in ASKS]


def of_command(doc: str) -> str:
    """What a command is for, and its own flags. doc: of its module. Flags whose help begins with "NAME: " are listed
    as those for NAME."""
    groups: dict[str, list[str]] = {"Flags": []}
    for module, found in flags.FLAGS.flags_by_module_dict().items():
        if module in (sys.argv[0], "__main__") or module.partition(".")[0] in ("eval", "sgflow_jax"):
            for flag in found:
                title, text = _title_and_text(flag)
                groups.setdefault(title, []).append(text)
    groups["Flags"].sort(key=lambda text: not text.startswith("  --config "))
    if "Several processes" in groups:  # last: few need it
        groups["Several processes"] = groups.pop("Several processes")
    listed = "\n\n".join("\n".join([f"{title}:", *lines]) for title, lines in groups.items() if lines)
    config = "--config=FILE --help lists every field of a configuration.\n" if "config" in flags.FLAGS else ""
    return f"{doc.strip()}\n\n{listed}\n\n{config}README.md explains the rest."


def of_config(config: ml_collections.ConfigDict) -> str:
    """Every field of a configuration with its value and meaning, then the options of its objective and network."""
    lines = []
    for name, value in fields.flatten(config.to_dict()).items():
        given = f"--config.{name}={','.join(map(str, value)) or '()' if isinstance(value, tuple) else value}"
        field = fields.FIELDS.get(name, fields.Field(value))
        choices = f" ({field.allowed})" if field.choices else ""
        lines.append(_entry(given, field.text + choices, column=44))
    objective = [cls for cls in type(objectives.make(**config.objective)).__mro__ if dataclasses.is_dataclass(cls)]
    for section, classes in {"objective": objective, "model": [type(models.make(**config.model))]}.items():
        lines.append(f"\nThe options of --config.{section}:")
        lines += [f"\n{cls.__name__}: {inspect.cleandoc(cls.__doc__)}" for cls in classes]
    return "\n".join(lines)


def _title_and_text(flag: flags.Flag) -> tuple[str, str]:
    what = " ".join((flag.help or "").split())
    title = next((title for title, names in _TITLES.items() if flag.name in names), "Flags")
    if flag.name == "config" or flag.name.startswith("config."):
        return "Flags", _entry(f"--{flag.name}", what)
    if group := re.match(r"(<.*>: )?(\w+): (.*)", what):
        what = (group[1] or "") + group[3]
        title = f"With --{group[2]}" if group[2] in flags.FLAGS else f"With --mode={group[2]}"
    silent = flag.default is None or flag.default is False or isinstance(flag.default, list | dict)
    default = "" if silent else f"={flag.default}"
    return title, _entry(f"--{flag.name}{default}", what)


def _entry(name: str, text: str, column: int = COLUMN) -> str:
    """One flag or field, its text beside it from `column` on."""
    indent = " " * column
    wrapped = textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
    head = f"  {name}"
    return f"{head:<{column}}{wrapped[column:]}".rstrip() if len(head) < column - 1 else f"{head}\n{wrapped}".rstrip()
