"""Where a sweep keeps the rows of another user's run."""

import hashlib
import os
from pathlib import Path

from sgflow_jax.interfaces import InputError
from sgflow_jax.run import layout


def own(workdir: str, out: str | None) -> str:
    """The directory for the rows of a run: its own, or, if that is read-only (another user's), one under `out` with
    links to the run's files.

    InputError if that directory cannot be made, or `out` is not given.
    """
    place = layout.evaluation(workdir) if layout.evaluation(workdir).is_dir() else Path(workdir)
    if not place.is_dir() or os.access(place, os.W_OK):
        return workdir
    if not out:
        raise InputError(f"{place} is not writable: give --out=DIR to keep the results there")
    theirs = Path(workdir).resolve()
    folder = Path(out) / "runs" / f"{theirs.name}-{hashlib.sha256(str(theirs).encode()).hexdigest()[:6]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("checkpoints", "config.json", "metrics.jsonl", "events.jsonl"):
            if (theirs / name).exists() and not (folder / name).is_symlink():
                (folder / name).symlink_to(theirs / name)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): use another --out") from error
    return str(folder)
