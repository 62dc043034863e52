"""A run's directory: where things lie in it, and which configuration it belongs to."""

from pathlib import Path

from sgflow_jax.files import places
from sgflow_jax.interfaces import InputError


def checkpoints(workdir: str) -> Path:
    """Where orbax keeps the checkpoints."""
    return Path(workdir).absolute() / "checkpoints"


def metrics_file(workdir: str) -> Path:
    """One JSON object a logged step."""
    return Path(workdir) / "metrics.jsonl"


def events_file(workdir: str) -> Path:
    """What happened to the run: one JSON object an event."""
    return Path(workdir) / "events.jsonl"


def tensorboard(workdir: str) -> Path:
    """What TensorBoard shows: numbers, pictures and traces."""
    return Path(workdir) / "tensorboard"


def parameters_file(workdir: str) -> Path:
    """The table of the network's parameters."""
    return Path(workdir) / "parameters.txt"


def preview_file(workdir: str, step: int) -> Path:
    """The sample grid of one step."""
    return Path(workdir) / "previews" / f"step_{step:07d}.png"


def evaluation(workdir: str) -> Path:
    """What eval.fid_sweep writes."""
    return Path(workdir) / "eval"


def check_places(workdir: str) -> None:
    """InputError for a directory that cannot be a run's, and if something else is where training writes a file or a
    directory."""
    places.check_run("--workdir", workdir)
    files = metrics_file(workdir), events_file(workdir), lock_file(workdir)
    directories = tensorboard(workdir), preview_file(workdir, 0).parent
    for path in (*files, *directories):
        kind, right = ("file", path.is_file()) if path in files else ("directory", path.is_dir())
        if path.exists() and not right:
            raise InputError(f"{path} is not a {kind}: remove it, or use another --workdir")


def lock_file(workdir: str) -> Path:
    return Path(workdir) / "lock"
