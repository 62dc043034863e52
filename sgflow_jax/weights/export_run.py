"""--mode=export: writes a run's network, or a whole sampler, to one file, and a model card beside it."""

import json
from collections.abc import Callable
from pathlib import Path

import ml_collections
from flax import traverse_util

from sgflow_jax import data, labels, models, run_sampler
from sgflow_jax.display.phase import phase
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.run import access
from sgflow_jax.sample_run import Request, open_run
from sgflow_jax.sampling import Sampler
from sgflow_jax.weights import card, program, tensor_file
from sgflow_jax.weights.import_run import FORMAT, KEY

PROGRAM = ".stablehlo"

Measured = Callable[[access.Opened], str]


def export(
    workdir: str,
    config: ml_collections.ConfigDict,
    out: str,
    request: Request,
    measured: Measured | None = None,
) -> list[str]:
    """Writes the file `out` and its card; returns lines that say what was written.

    NAME.safetensors: the parameters, float32 arrays called as in Flax with "." between the parts, and in the metadata
    the configuration, the step and the identity of the data, with which `import_run` makes the same network again.
    NAME.stablehlo: `program.make` for the one number of request.calls.
    NAME.md: see `card.text`.

    config must be that of the run. measured: what was measured of a network, as `eval.scores.measured.table` tells it;
    without it the card says that nothing was. InputError, before anything is written, for an impossible request.
    """
    path = Path(out)
    if path.suffix not in (tensor_file.SUFFIX, PROGRAM) or not path.parent.is_dir():
        raise InputError(
            f"--out={out}: use a name that ends in {tensor_file.SUFFIX} (parameters) or {PROGRAM} (a sampler), in a "
            "directory that exists"
        )
    disk.check_writable(path)
    beside = card.place(path)
    opened, sampler, chosen = open_run(workdir, config, request)
    calls = None
    if path.suffix == PROGRAM:
        calls, *more = sampler.choose(request.calls)
        if more:
            raise InputError("--steps is missing: give one number of steps for the sampler, like --steps=4")
    how = "" if calls is None else _how(sampler, calls, [opened.classes.names[label] for label in chosen])
    table = measured(opened) if measured else ""
    said = card.text(path, opened, request.parameters, sampler.choose(None), how, table)
    if calls is None:
        lines = _write_parameters(path, opened, request.parameters)
    else:
        lines = _write_program(path, opened, sampler, calls, chosen, how)
    written = "replaced" if beside.exists() else "wrote"
    disk.write_atomically(beside, said)
    return [*lines, f"{written} {beside}: the model card; choose the licence of the weights in its first lines"]


def _write_parameters(path: Path, opened: access.Opened, parameters: str) -> list[str]:
    arrays = {".".join(name): array for name, array in traverse_util.flatten_dict(opened.params).items()}
    config = opened.config.copy_and_resolve_references()
    config.log.wandb = ""  # a run that continues from the file is another person's
    facts = {
        "format": FORMAT,
        "config": config.to_dict(),
        "data": opened.data,
        "step": opened.step,
        "parameters": parameters,
    }
    tensor_file.write(path, arrays, {KEY: json.dumps(facts)})
    return [f"wrote {path}: {len(arrays)} arrays of {_told(opened)}, {parameters} parameters"]


def _write_program(
    path: Path, opened: access.Opened, sampler: Sampler, calls: int, labels: tuple[int, ...], how: str
) -> list[str]:
    net, shape = BoundNet(models.make(**opened.config.model), opened.params), data.shape(opened.config.data)
    name = f"sgflow_jax_{opened.config.objective.name}_{sampler.method}_{calls}"
    with phase("exporting the sampler"):
        made = program.serialized(program.make(net, sampler, calls, shape, labels), opened.params, name)
    disk.write_atomically(path, made)
    most = opened.config.eval.batch_size
    return [
        f"wrote {path}: {how}, {_told(opened)}, for {', '.join(program.PLATFORMS)}",
        f"--mode=sample makes {most} examples in one call (eval.batch_size); docs/weights.md shows how to run the file",
    ]


def _how(sampler: Sampler, calls: int, names: list[str]) -> str:
    """What a sampler does."""
    guidance = run_sampler.told(sampler.guidance.weight, run_sampler.interval(sampler.guidance))
    classes = f"class{'es' * (len(names) > 1)} {labels.listed(names)}" * bool(names)
    times = f"{sampler.grid} times" * (sampler.grid != "uniform")
    return ", ".join(filter(None, [f"{sampler.method} in {calls} network calls", times, guidance, classes]))


def _told(opened: access.Opened) -> str:
    return f"{opened.config.model.name} of {opened.config.objective.name}, step {opened.step:,}"
