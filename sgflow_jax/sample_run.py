"""--mode=sample: samples a trained run in several numbers of steps, into a file or a directory."""

from typing import NamedTuple

import jax
import ml_collections

from sgflow_jax import data, generate, labels, run_sampler, sample_files
from sgflow_jax.config import automatic
from sgflow_jax.display import figures
from sgflow_jax.display.phase import phase
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access, record
from sgflow_jax.sample_files import Samples
from sgflow_jax.sampling import Sampler

PAIRS, POSITIONS = 4, 9  # rows and columns of the picture of interpolations


class Request(NamedTuple):
    """calls: numbers of network calls; None for those of `sampling.CALLS` that the objective allows. method, grid,
    guidance: see `sampling.Sampler`. seed: of the noise. interpolate: also draw interpolations (images only).
    checkpoint: its step, None for the newest. parameters: see `access.open`. label: text of `labels.chosen`; these
    classes take turns."""

    calls: tuple[int, ...] | None
    num_samples: int
    method: str | None
    seed: int
    grid: str = "uniform"
    interpolate: bool = False
    checkpoint: int | None = None
    parameters: str = "ema"
    label: str | None = None
    guidance: Guidance = Guidance()


def sample(workdir: str, config: ml_collections.ConfigDict, out: str, request: Request) -> list[str]:
    """Writes samples to `out`; returns lines that say what was written, on the first process only.

    NAME.npz: an array steps_N for each N of request.calls, uint8 [n, H, W, C] or float32 [n, D] for points; for a
    network with labels also labels [n], int32, and classes, the names of all labels. Beside it NAME.png, the first
    examples in each number of steps, of each class, and on request NAME_interpolation.png, interpolations in the
    largest number of steps (`generate.interpolate`).
    DIR/: PNG files of images in DIR, 000000.png or 000000_CLASS.png and so on, for several numbers of steps in
    DIR/steps_N; on request DIR/interpolation.png.

    config must be that of the run. InputError, before anything is written, for an impossible request.
    """
    shape = data.shape(config.data)
    if request.interpolate and len(shape) != 3:
        raise InputError(f"--interpolate shows images, and {config.data.name} is points: leave it out")
    if config.eval.batch_size < 1:
        raise InputError(f"config.eval.batch_size is {config.eval.batch_size}: use a positive integer")
    opened, sampler, chosen = open_run(workdir, config, request)
    names, calls = opened.classes.names, sampler.choose(request.calls)
    target = sample_files.target(out, calls, of_points=len(shape) != 3)

    net = opened.net()
    every = labels.in_turn(chosen, max(request.num_samples, 2 * PAIRS))
    plan = generate.Plan(shape, sampler, max(calls), request.seed, config.eval.batch_size, every)
    examples = {}
    for n in calls:
        with phase(f"sampling {request.num_samples:,} in {figures.in_steps(n)}"):
            examples[n] = generate.examples(net, plan._replace(calls=n), request.num_samples)
    between = generate.interpolate(net, plan, PAIRS, POSITIONS) if request.interpolate else None
    if jax.process_index() != 0:
        return []

    shown = None if every is None else every[: request.num_samples]
    written = target.write(Samples(data.title(config.data), examples, shown, names, between))
    return [*run_sampler.remarks(opened.config, sampler), _told(opened, request, sampler, calls, chosen), *written]


def open_run(
    workdir: str, config: ml_collections.ConfigDict, request: Request
) -> tuple[access.Opened, Sampler, tuple[int, ...]]:
    """The network of a run, how it is sampled, and the labels that take turns. config must be that of the run.
    InputError for an impossible request."""
    with phase("reading the checkpoint"):
        opened = access.open(workdir, request.checkpoint, request.parameters)
    record.check_same(workdir, opened.config.to_dict(), automatic.as_saved(config, opened.config.to_dict()))
    sampler = run_sampler.make(opened.config, request.method, request.grid, request.guidance)
    return opened, sampler, labels.chosen(request.label, opened.classes.names)


def _told(
    opened: access.Opened, request: Request, sampler: Sampler, calls: tuple[int, ...], chosen: tuple[int, ...]
) -> str:
    """What was sampled, in one line."""
    guidance, names = sampler.guidance, [opened.classes.names[label] for label in chosen]
    which = {"ema": "averaged", "raw": "last"}.get(request.parameters, request.parameters)
    parts = [
        f"{opened.config.objective.name}, step {opened.step:,}, {which} parameters",
        f"method {sampler.method}",
        f"times {sampler.grid}" * ("," in sampler.grid),
        run_sampler.told(guidance.weight, run_sampler.interval(guidance)),
        f"seed {request.seed}",
        f"class{'es' * (len(names) > 1)} {labels.listed(names)}" * bool(names),
    ]
    return (
        f"sampled {', '.join(filter(None, parts))}: {request.num_samples:,} examples in each of "
        f"{', '.join(map(str, calls))} steps"
    )
