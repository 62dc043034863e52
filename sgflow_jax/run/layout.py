"""Where things lie in a run's directory."""

from pathlib import Path

from sgflow_jax.files import places
from sgflow_jax.interfaces import InputError


def checkpoints(workdir: str) -> Path:
    """Checkpoints, written by orbax."""
    return Path(workdir).absolute() / "checkpoints"


def metrics_file(workdir: str) -> Path:
    """One JSON object for each logged step."""
    return Path(workdir) / "metrics.jsonl"


def events_file(workdir: str) -> Path:
    """What happened to the run: one JSON object for each event."""
    return Path(workdir) / "events.jsonl"


def tensorboard(workdir: str) -> Path:
    """TensorBoard's files: numbers, pictures and traces."""
    return Path(workdir) / "tensorboard"


def parameters_file(workdir: str) -> Path:
    """The table of the network's parameters."""
    return Path(workdir) / "parameters.txt"


def preview_file(workdir: str, step: int) -> Path:
    """The sample grid of one step."""
    return Path(workdir) / "previews" / f"step_{step:07d}.png"


def evaluation(workdir: str) -> Path:
    """Results of eval.fid_sweep."""
    return Path(workdir) / "eval"


def lock_file(workdir: str) -> Path:
    """Locked by the run that has the directory; holds its token."""
    return Path(workdir) / "lock"


def check_places(workdir: str) -> None:
    """InputError for an unusable --workdir, or if a path training needs is taken by the wrong kind of file."""
    places.check_run("--workdir", workdir)
    files = metrics_file(workdir), events_file(workdir), lock_file(workdir)
    directories = tensorboard(workdir), preview_file(workdir, 0).parent
    for path in (*files, *directories):
        kind, right = ("file", path.is_file()) if path in files else ("directory", path.is_dir())
        if path.exists() and not right:
            raise InputError(f"{path} is not a {kind}: remove it, or use another --workdir")
