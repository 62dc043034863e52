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
from sgflow_jax import build, cli, data, figures, generate, objectives, sampling
from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import InputError

SHOWN_IMAGES = (8, 8)  # rows and columns of samples_N.png
SHOWN_POINTS = 4096


class Request(NamedTuple):
    """What to measure. None takes the run's own eval.num_samples, eval.features, or its objective's method."""

    steps: tuple[int, ...]
    num_samples: int | None = None
    features: str | None = None
    method: str | None = None
    seed: int = 0


def sweep(workdir: str, request: Request) -> list[results.Row]:
    """Measures what fid.jsonl lacks, draws table and curve anew, and returns the rows asked for.

    InputError, before anything is written, for what cannot be measured.
    """
    net, config, checkpoint_step = build.restore(workdir)
    asked = _identities(config, checkpoint_step, request)
    extract = features.make(asked[0].features)
    writes = jax.process_index() == 0

    rows = results.read(workdir)
    known = {row.identity for row in rows}
    missing = [identity for identity in asked if identity not in known]
    if missing:
        examples = build.source(config).reference()
        reference = _moments(np.array_split(examples, -(-len(examples) // config.eval.batch_size)), extract)
    for identity in missing:
        plan = generate.Plan(
            data.shape(identity.data), identity.steps, identity.method, identity.seed, config.eval.batch_size
        )
        made = _moments(generate.batches(net, plan, identity.num_samples), extract)
        distance = frechet_distance(reference.mean(), reference.cov(), made.mean(), made.cov())
        rows.append(results.Row(identity, reference.count, distance))
        picture = _picture(net, plan)
        if writes:
            paths.write_atomically(paths.evaluation(workdir) / f"samples_{identity.steps}.png", picture)
            results.write(workdir, rows)
    if writes:
        paths.write_atomically(paths.evaluation(workdir) / "fid_table.md", results.table(rows))
        paths.write_atomically(paths.evaluation(workdir) / "fid_curve.png", plots.distance_curve(rows))
    return [row for row in rows if row.identity in asked]


def _identities(config: ml_collections.ConfigDict, checkpoint_step: int, request: Request) -> list[results.Identity]:
    """One for each number of steps; InputError for what cannot be measured."""
    num_samples = config.eval.num_samples if request.num_samples is None else request.num_samples
    if num_samples < 2:
        raise InputError(f"--num_samples={num_samples}: use at least 2, a distance needs a covariance")
    method = request.method or objectives.make(**config.objective).sampler
    for steps in request.steps:
        sampling.uniform_times(steps, method)
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
        for steps in request.steps
    ]


def _moments(batches: Iterable[np.ndarray], extract: features.Features) -> Moments:
    moments = Moments()
    for batch in batches:
        moments.add(extract(batch))
    return moments


def _picture(net: build.BoundNet, plan: generate.Plan) -> bytes:
    """The first examples of a plan, as PNG."""
    if len(plan.shape) == 1:
        points = generate.examples(net, plan, SHOWN_POINTS)
        return figures.png(figures.by_steps({plan.network_calls: points}))
    height, width = SHOWN_IMAGES
    images = generate.examples(net, plan, height * width)
    return figures.png(figures.image_grid(list(images.reshape(height, width, *plan.shape))))


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Directory of a trained run.")
    flags.DEFINE_list("steps", ["1", "2", "4", "10", "50", "100"], "Numbers of steps (network calls).")
    flags.DEFINE_integer("num_samples", None, "Generated examples; the run's eval.num_samples by default.")
    flags.DEFINE_string("features", None, "What is compared; the run's eval.features by default.")
    flags.DEFINE_string("method", None, "flow_map, euler or heun; the objective's own by default.")
    flags.DEFINE_integer("seed", 0, "Seed of the noise.", lower_bound=0)


def main(_):
    given = flags.FLAGS
    cli.require(workdir=given.workdir)
    steps = cli.positive_integers("steps", given.steps)
    cli.start_jax()
    for row in sweep(given.workdir, Request(steps, given.num_samples, given.features, given.method, given.seed)):
        print(f"{row.identity.steps:5d} steps: {row.value:.4f}")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
