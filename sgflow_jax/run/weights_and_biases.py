"""Shows a run's log in Weights & Biases, with its package wandb, which need not be installed otherwise."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import layout

_NAME = re.compile(r"[^/\\#?%:\x00-\x1f]{1,128}")  # what the service accepts as a project
FINISH_SECONDS = 60  # how long the end of a run waits for the last lines to be sent


def check(project: str) -> None:
    """InputError unless a project may have this name and the package is installed. "" needs neither."""
    if project and not _NAME.fullmatch(project):
        raise InputError(
            f"config.log.wandb is {project!r}: use the name of a project, without / \\ # ? % : (a team is named by "
            "WANDB_ENTITY)"
        )
    if project and not hasattr(_package(), "init"):
        raise InputError(
            f"config.log.wandb is {project!r}, but the package wandb cannot be imported: pip install 'wandb>=0.31', or "
            "give --config.log.wandb= for no project"
        )


def _package():
    """The package wandb; None if it is not installed. A folder of that name, as wandb makes, passes for a package
    without content."""
    try:
        import wandb  # takes a second to import, which only these runs need
    except Exception:  # not only ImportError: parts of it depend on other packages
        return None
    return wandb


class WeightsAndBiases:
    """A `mirror.Mirror`: one run of a project for each run's directory, which goes on when training continues.

    shown: the furthest step that the log has had. A run there cannot go back: lines of steps that are repeated, after
    a kill or a rollback, are left out. say: called with the run's address and, once, with a fault, such as a lost
    connection at the start; the rest is left out then.
    """

    def __init__(self, project: str, workdir: str, shown: int, say: Callable[[str], None]):
        self._project, self._workdir, self._say = project, workdir, say
        self._next = shown + 1  # the first step that was not shown yet
        self._current = -1  # the step that more may be added to
        self._run: Any = None
        self._over = False

    def config(self, config: dict[str, Any]) -> None:
        tree = json.loads(json.dumps(config))
        self._try(lambda run: run.config.update(tree, allow_val_change=True))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._log(step, lambda: values)

    def image(self, step: int, picture: np.ndarray) -> None:
        self._log(step, lambda: {"preview": _package().Image(picture)})

    def rewind(self, step: int) -> None:
        self._current = -1

    def close(self, failed: bool) -> None:
        if self._run is not None:
            self._try(lambda run: run.finish(exit_code=int(failed)))
        self._over = True

    def _log(self, step: int, make: Callable[[], dict[str, Any]]) -> None:
        if step >= self._next or step == self._current:
            self._next, self._current = max(self._next, step + 1), step
            self._try(lambda run: run.log(make(), step=step))

    def _try(self, do: Callable[[Any], Any]) -> None:
        if self._over:
            return
        try:
            if self._run is None:
                self._run = self._begun()
            do(self._run)
        except Exception as error:  # wandb raises any kind, and a run must not end for it
            self._over = True
            self._say(
                f"warning: Weights & Biases shows no more of this run ({' '.join(str(error).split()):.200}): "
                "metrics.jsonl has all of it; WANDB_MODE=offline needs no account and no network"
            )

    def _begun(self) -> Any:
        wandb = _package()
        # The terminal is the log's own; at the end of a run the network may be gone.
        settings = wandb.Settings(console="off", silent=True, finish_timeout=FINISH_SECONDS, finish_timeout_raises=True)
        run = wandb.init(
            project=self._project, id=_identity(self._workdir), resume="allow", dir=self._workdir, settings=settings
        )
        if not run.resumed:  # else it may have been given another name
            run.name = Path(self._workdir).resolve().name
        self._say(
            f"Weights & Biases: {f'offline; wandb sync {Path(run.dir).parent} sends it' if run.offline else run.url}"
        )
        return run


def _identity(workdir: str) -> str:
    """The same for every process that trains in a directory, whatever its place: a hash of its first event."""
    events = disk.read_json_lines(layout.events_file(workdir))
    first = next((line for line, event in events if event is not None), None)
    if first is None:
        raise InputError(f"{layout.events_file(workdir)} has no event to name the run by")
    return hashlib.sha256(first.encode()).hexdigest()[:12]
