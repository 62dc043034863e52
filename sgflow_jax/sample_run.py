"""--mode=sample: samples a trained run in several numbers of steps, into one .npz file and a picture."""

from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections

from sgflow_jax import build, data, generate, sampling
from sgflow_jax.config import automatic
from sgflow_jax.display import figures
from sgflow_jax.display.phase import phase
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access, record

PAIRS, POSITIONS = 4, 9  # rows and columns of the picture of interpolations


class Request(NamedTuple):
    """calls: numbers of network calls; None for those of `sampling.CALLS` that the objective allows. method, grid: see
    `sampling.Sampler`. seed: of the noise. interpolate: also draw interpolations (images only). checkpoint: its step,
    None for the newest. ema: the averaged parameters, or the last ones."""

    calls: tuple[int, ...] | None
    num_samples: int
    method: str | None
    seed: int
    grid: str = "uniform"
    interpolate: bool = False
    checkpoint: int | None = None
    ema: bool = True


def sample(workdir: str, config: ml_collections.ConfigDict, out: str, request: Request) -> list[str]:
    """Writes NAME.npz (`out`): an array steps_N for each N of request.calls, uint8 [n, H, W, C] or float32 [n, D] for
    points; for a network with labels also labels [n], int32. Returns lines that say what was written, on the first
    process only.

    Also writes NAME.png, the first examples in each number of steps, and on request NAME_interpolation.png,
    interpolations in the largest number of steps (`generate.interpolate`). config must be that of the run. InputError,
    before anything is written, for an impossible request.
    """
    shape = data.shape(config.data)
    if request.interpolate and len(shape) != 3:
        raise InputError(f"--interpolate shows images, and {config.data.name} is points: leave it out")
    if config.eval.batch_size < 1:
        raise InputError(f"config.eval.batch_size is {config.eval.batch_size}: use a positive integer")
    with phase("reading the checkpoint"):
        opened = access.open(workdir, request.checkpoint, request.ema)
    record.check_same(workdir, opened.config.to_dict(), automatic.as_saved(config, opened.config.to_dict()))
    sampler = sampling.Sampler(build.objective(opened.config), request.method, request.grid)
    calls = sampler.choose(request.calls)
    target, picture, strip = _targets(out)

    net = opened.net()
    plan = generate.Plan(shape, sampler, max(calls), request.seed, config.eval.batch_size)
    examples = {}
    for n in calls:
        with phase(f"sampling {request.num_samples:,} in {figures.in_steps(n)}"):
            examples[n] = generate.examples(net, plan._replace(calls=n), request.num_samples)
    between = generate.interpolate(net, plan, PAIRS, POSITIONS) if request.interpolate else None
    if jax.process_index() != 0:
        return []

    arrays = {f"steps_{n}": found for n, found in examples.items()}
    if opened.config.model.num_classes:
        arrays["labels"] = generate.labels(plan.seed, request.num_samples, opened.config.model.num_classes)
    disk.write_arrays(target, arrays)
    disk.write_atomically(picture, figures.png(figures.by_calls(examples, data.density(config.data.name))))
    which = f"{config.objective.name}, step {opened.step:,}, {'averaged' if request.ema else 'last'} parameters"
    lines = [
        f"sampled {which}, method {sampler.method}, seed {request.seed}: {request.num_samples:,} examples in each of "
        f"{', '.join(map(str, calls))} steps",
        f"wrote {target} ({', '.join(arrays)}) and {picture}",
    ]
    if between is not None:
        disk.write_atomically(strip, figures.png(figures.image_grid(list(between))))
        lines.append(f"wrote {strip}")
    return lines


def _targets(out: str) -> tuple[Path, Path, Path]:
    """NAME.npz, NAME.png and NAME_interpolation.png; InputError if they cannot be written."""
    target = Path(out)
    if target.suffix != ".npz" or not target.parent.is_dir():
        raise InputError(f"--out={out}: use a name that ends in .npz, in a directory that exists")
    targets = target, target.with_suffix(".png"), target.with_name(f"{target.stem}_interpolation.png")
    disk.check_writable(*targets)
    return targets
