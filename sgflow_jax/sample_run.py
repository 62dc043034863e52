"""--mode=sample: examples from a trained run, in several numbers of steps, into one .npz file and a picture."""

from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections

from sgflow_jax import build, data, generate, sampling
from sgflow_jax.display import figures
from sgflow_jax.display.phase import phase
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import record

STEPS = (1, 2, 4, 10)
SHOWN_IMAGES = 16
SHOWN_POINTS = 2_000
# Rows and columns of the picture of interpolations.
PAIRS, POSITIONS = 4, 9


class Request(NamedTuple):
    """steps: numbers of network calls; None for those of 1, 2, 4, 10 that the run can. method: None for the
    objective's own. seed: of the noise. grid: of `sampling.GRIDS`. interpolate: also between examples (images only).
    checkpoint: its step, None for the newest. ema: the averaged parameters, or the last ones."""

    steps: tuple[int, ...] | None
    num_samples: int
    method: str | None
    seed: int
    grid: str = "uniform"
    interpolate: bool = False
    checkpoint: int | None = None
    ema: bool = True


def sample(workdir: str, config: ml_collections.ConfigDict, out: str, request: Request) -> list[str]:
    """Writes steps_N for each N of request.steps: uint8 [n, H, W, C], or float32 [n, D] for points; of a network with
    labels also labels [n], int32. Returns lines that say what was written; none on processes but the first.

    Beside `out`, NAME.npz, it writes NAME.png, the first examples in each number of steps, and when asked
    NAME_interpolation.png, interpolations in the largest number of steps (`generate.interpolate`). config must be that
    of the run. InputError for what is not possible, before anything is written.
    """
    shape = data.shape(config.data.name)
    if request.interpolate and len(shape) != 3:
        raise InputError(f"--interpolate shows images, and {config.data.name} is points: leave it out")
    if config.eval.batch_size < 1:
        raise InputError(f"config.eval.batch_size is {config.eval.batch_size}: use a positive integer")
    with phase("reading the checkpoint"):
        net, saved, step = build.restore(workdir, request.checkpoint, request.ema)
    record.check_same(workdir, saved.to_dict(), config)
    objective = build.objective(saved)
    method = sampling.method_of(objective, request.method)
    steps = sampling.choose_calls(objective, method, request.steps, STEPS, request.grid)
    target, picture, strip = _targets(out)

    plan = generate.Plan(
        shape, max(steps), method, request.seed, config.eval.batch_size, objective.interpolant, request.grid
    )
    made = {}
    for n in steps:
        with phase(f"sampling {request.num_samples:,} in {figures.in_steps(n)}"):
            made[n] = generate.examples(net, plan._replace(network_calls=n), request.num_samples)
    between = generate.interpolate(net, plan, PAIRS, POSITIONS) if request.interpolate else None
    if jax.process_index() != 0:
        return []

    arrays = {f"steps_{n}": examples for n, examples in made.items()}
    if saved.model.num_classes:
        arrays["labels"] = generate.labels(plan.seed, request.num_samples, saved.model.num_classes)
    disk.write_arrays(target, arrays)
    shown = SHOWN_IMAGES if len(shape) == 3 else SHOWN_POINTS
    first = figures.by_steps({n: examples[:shown] for n, examples in made.items()}, data.density(config.data.name))
    disk.write_atomically(picture, figures.png(first))
    which = f"{config.objective.name}, step {step:,}, {'averaged' if request.ema else 'last'} parameters"
    lines = [
        f"sampled {which}, by {method}, seed {request.seed}: {request.num_samples:,} examples in each of "
        f"{', '.join(map(str, steps))} steps",
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
