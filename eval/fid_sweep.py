"""Quality against steps: python -m eval.fid_sweep --workdir=DIR --steps=1,2,4,10,50,100.

Restores the averaged parameters from the workdir alone, samples with each number of steps from the same noise, and
writes DIR/eval/fid.jsonl, fid_table.md, fid_curve.png and samples_N.png. What is in fid.jsonl is not measured again.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from absl import flags

from eval import features, plots, results
from eval.frechet import Moments, frechet_distance
from sgflow_jax import build, cli, data, figures, generate, sampling
from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import MAX_SEED, InputError

SHOWN_IMAGES = (8, 8)  # rows and columns of samples_N.png
SHOWN_POINTS = 4096
STEPS = (1, 2, 4, 10, 50, 100)  # those of them that the objective is trained for, unless asked otherwise


class Request(NamedTuple):
    """What to measure. None takes what the run has: eval.num_samples, eval.features, data.data_dir, its own method."""

    steps: tuple[int, ...] | None = None
    num_samples: int | None = None
    features: str | None = None
    method: str | None = None
    seed: int = 0
    data_dir: str | None = None


def sweep(workdir: str, request: Request) -> list[results.Row]:
    """Measures what fid.jsonl lacks, draws table and curve anew, and returns the rows asked for.

    InputError, before anything is written, for what cannot be measured.
    """
    net, config, checkpoint_step = build.restore(workdir)
    asked = _identities(config, checkpoint_step, request)
    extract = features.make(asked[0].features)
    folder = paths.evaluation(workdir)
    first_process = jax.process_index() == 0

    rows = results.read(workdir)
    known = {row.identity for row in rows}
    missing = [identity for identity in asked if identity not in known]
    if missing:
        if request.data_dir is not None:
            config.data.data_dir = request.data_dir
        examples = build.source(config).reference()
        chunks = np.array_split(examples, -(-len(examples) // config.eval.batch_size))
        reference, _ = _moments(chunks, extract)
        if first_process:
            results.write(workdir, rows)  # finds out now, not after the work, whether it can be written
    for identity in missing:
        shape = data.shape(identity.data)
        path = config.objective.interpolant
        plan = generate.Plan(shape, identity.steps, identity.method, identity.seed, config.eval.batch_size, path)
        made, first_batch = _moments(generate.batches(net, plan, identity.num_samples), extract)
        distance = frechet_distance(reference.mean(), reference.cov(), made.mean(), made.cov())
        rows.append(results.Row(identity, reference.count, distance))
        if first_process:
            paths.write_atomically(folder / _picture_name(identity, config), _picture(first_batch))
            results.write(workdir, rows)
    if first_process:
        paths.write_atomically(folder / "fid_table.md", results.table(rows))
        paths.write_atomically(folder / "fid_curve.png", plots.distance_curve(rows))
    return [row for row in rows if row.identity in asked]


def _identities(config: ml_collections.ConfigDict, checkpoint_step: int, request: Request) -> list[results.Identity]:
    """One for each number of steps; InputError for what cannot be measured."""
    num_samples = config.eval.num_samples if request.num_samples is None else request.num_samples
    if num_samples < 2:
        raise InputError(f"--num_samples={num_samples}: use at least 2, a distance needs a covariance")
    objective = build.objective(config)
    method = sampling.method_of(objective, request.method)
    asked = sampling.choose_calls(objective, method, request.steps, STEPS)
    return [
        results.Identity(
            objective=config.objective.name,
            checkpoint_step=checkpoint_step,
            parameters="ema",
            steps=steps,
            method=method,
            features=request.features or config.eval.features,
            data=config.data.name,
            num_samples=num_samples,
            seed=request.seed,
        )
        for steps in asked
    ]


def _moments(batches: Iterable[np.ndarray], extract: features.Features) -> tuple[Moments, np.ndarray]:
    """The moments of the features of all batches, and the first batch."""
    moments, first = Moments(), None
    for batch in batches:
        moments.add(extract(batch))
        first = batch if first is None else first
    return moments, first


def _picture_name(identity: results.Identity, config: ml_collections.ConfigDict) -> str:
    """samples_N.png, with what else tells it from the pictures a plain sweep makes."""
    method = "" if identity.method == sampling.method_of(build.objective(config)) else f"_{identity.method}"
    count = "" if identity.num_samples == config.eval.num_samples else f"_n{identity.num_samples}"
    seed = f"_seed{identity.seed}" if identity.seed else ""
    return f"samples_{identity.steps}{method}{count}{seed}.png"


def _picture(examples: np.ndarray) -> bytes:
    """The first of a batch, as PNG."""
    if examples.ndim == 2:
        return figures.png(figures.point_panels({"": examples[:SHOWN_POINTS]}))
    height, width = SHOWN_IMAGES
    shown = examples[: height * width]
    return figures.png(figures.image_grid([shown[i : i + width] for i in range(0, len(shown), width)]))


def define_flags() -> None:
    """Only for the program: two modules with the same flags could not be imported together otherwise."""
    flags.DEFINE_string("workdir", None, "Directory of a trained run.")
    flags.DEFINE_list(
        "steps", None, "Numbers of steps (network calls); of 1,2,4,10,50,100 what the run can by default."
    )
    flags.DEFINE_integer("num_samples", None, "Generated examples; the run's eval.num_samples by default.")
    flags.DEFINE_string("features", None, "What is compared; the run's eval.features by default.")
    flags.DEFINE_string("method", None, "One of flow_map, euler, heun and consistency; the objective's own by default.")
    flags.DEFINE_string("data_dir", None, "Where the reference data lie; as in training by default.")
    flags.DEFINE_integer("seed", 0, "Seed of the noise.", lower_bound=0, upper_bound=MAX_SEED)


def main(_):
    given = flags.FLAGS
    cli.require(workdir=given.workdir)
    steps = cli.integers("steps", given.steps, least=1)
    cli.start_jax()
    request = Request(steps, given.num_samples, given.features, given.method, given.seed, given.data_dir)
    for row in sweep(given.workdir, request):
        print(f"{row.identity.steps:5d} steps: {row.value:.4f}")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
