"""The model card of an exported file, in Markdown: what it is, how it was made and what was measured."""

import hashlib
import importlib.resources
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import jax
import jinja2

from sgflow_jax import __version__, data
from sgflow_jax.devices import provenance
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access, history

SUFFIX = ".md"
_MARK = "<!-- written by --mode=export, {} -->\n"  # the last line: a hash of all before, by which an edit is noticed
_TEXT = re.compile(r"(.*)" + _MARK.format("([0-9a-f]{12})"), re.DOTALL)


def place(file: Path) -> Path:
    """Where the card of an exported file lies. InputError if a file there is no card, or one that a person changed."""
    card = file.with_suffix(SUFFIX)
    disk.check_writable(card)
    try:
        text = card.read_text() if card.exists() else None
    except (OSError, UnicodeDecodeError):
        text = ""
    if text is not None and not ((found := _TEXT.fullmatch(text)) and _hash(found[1]) == found[2]):
        raise InputError(f"{card} was edited, or is no model card of --mode=export: move it, or use another --out")
    return card


def text(file: Path, opened: access.Opened, parameters: str, calls: tuple[int, ...], how: str, table: str) -> str:
    """The card of `file`.

    parameters: which of the run they are, see `access.open`. calls: numbers of steps that it can be sampled in. how: of
    a file that is a sampler, what it does; "" for parameters. table: what was measured of this network, in Markdown; ""
    for nothing.
    """
    config, shape = opened.config, data.shape(opened.config.data)
    identity = opened.data or {}
    shown = {
        "title": file.stem,
        "file": file.name,
        "shell_title": shlex.quote(file.stem),
        "shell_file": shlex.quote(file.name),
        "how": how,
        "calls": ",".join(map(str, calls)),
        "data": data.title(config.data),
        "identity": identity,
        "images": len(shape) == 3,
        "shape": " x ".join(map(str, shape)),
        "classes": opened.classes.names,
        "licence": data.licence(config.data),
        "objective": config.objective.name,
        "objective_options": config.objective.to_dict(),
        "model": config.model.name,
        "model_options": config.model.to_dict(),
        "count": sum(leaf.size for leaf in jax.tree.leaves(opened.params)),
        "batch": config.data.batch_size,
        "begins": _begins(config),
        "seed": config.seed,
        "step": opened.step,
        "exported": {"ema": "averaged parameters", "raw": "last parameters"}.get(parameters, f"average {parameters}"),
        "fingerprint": opened.fingerprint,
        "measured": table.strip(),
        "exporter": _versions(provenance.describe(sys.argv)),
        "version": __version__,
        **_record(opened.workdir),
    }
    environment = jinja2.Environment(
        autoescape=jinja2.select_autoescape(default_for_string=False),  # Markdown, not HTML
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = importlib.resources.files(__package__).joinpath("card.md.j2").read_text()
    made = environment.from_string(template).render(shown, options=_options) + "\n"
    return made + _MARK.format(_hash(made))


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _options(section: dict[str, Any]) -> str:
    """The options of an objective or a network."""
    return ", ".join(f"{name} {value}" for name, value in section.items() if name != "name") or "no options"


def _begins(config) -> list[tuple[str, str]]:
    """What the training began with or learned from, besides the data. Only the names of directories: a card is read
    elsewhere."""
    train, teacher = config.train, config.teacher
    named = {"begins with": train.init_from, "continues": train.fork_from, "teacher": teacher.workdir}
    return [(name, f"`{Path(run).name}`") for name, run in named.items() if run]


def _record(workdir: str) -> dict[str, Any]:
    """Devices and versions by the events of a run: each of its starts, or its import. elsewhere: whether the network
    was imported, so that examples, options and budget of its training are not known."""
    devices, versions, elsewhere = {}, {}, False
    for event in history.events(workdir):
        if event.get("event") == "start" and "versions" in event:
            devices[f"{event['devices']} x {event['device_kind']}, {event['processes']} process(es)"] = None
            versions[_versions(event)] = None
        elif event.get("event") == "import" and "sha256" in event:
            elsewhere = True
            versions[f"code elsewhere, and imported from `{Path(event['file']).name}` (SHA-256 {event['sha256']})"] = (
                None
            )
    return {"devices": ", then ".join(devices), "trained": ", then ".join(versions), "elsewhere": elsewhere}


def _versions(facts: dict[str, Any]) -> str:
    """The package, libraries and commit, of `provenance.describe`."""
    package = {"sgflow_jax": facts["sgflow_jax"]} if facts.get("sgflow_jax") else {}  # older runs did not say
    libraries = ", ".join(f"{name} {version}" for name, version in {**package, **facts["versions"]}.items())
    commit = f"commit {facts['commit']}" + " (changed)" * bool(facts["dirty"]) if facts["commit"] else "no commit"
    return f"{libraries}; {commit}, code `{facts['code']}`"
