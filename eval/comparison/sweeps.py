"""Measures one trained run of a comparison: its map, its own diagonal by Euler, and its learning curve."""

from typing import Any, NamedTuple

from eval import fid_sweep
from eval.comparison.budget import PARTS
from eval.tables.store import Settings
from sgflow_jax import build, cli, sampling
from sgflow_jax.run import access

LISTS = ("calls", "curve")  # of the settings of a row
CURVE_PARTS = (1, 2, 4)  # parts of a run after which its learning curve is measured, besides the end


class Measure(NamedTuple):
    """What to measure, and in which features. calls: numbers of sampling steps. curve: those of the learning curve."""

    features: str
    num_samples: int
    calls: tuple[int, ...]
    curve: tuple[int, ...]

    def settings(self) -> Settings:
        """These values as settings of a row."""
        return {**self._asdict(), "calls": _text(self.calls), "curve": _text(self.curve)}

    @classmethod
    def of(cls, settings: Settings) -> "Measure":
        """The inverse of `settings`; other settings are ignored. InputError for a list that is not of integers."""
        calls, curve = (cli.integers(name, settings[name].split(","), 1) if settings[name] else () for name in LISTS)
        return cls(settings["features"], settings["num_samples"], calls, curve)


def _text(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


class Swept(NamedTuple):
    """method: the objective's own. distances: rows of `results.Row.flat`, each with its "share" of the training.
    faults: a sentence for each distance that could not be measured."""

    method: str
    distances: list[dict[str, Any]]
    faults: list[str]


def distances(workdir: str, measure: Measure) -> Swept:
    """Measures a finished run, always from the same noise.

    By the objective's own method at every number of steps; by Euler's method on the network's diagonal, if it has one;
    and after CURVE_PARTS of the training.
    """
    opened = access.open(workdir)
    num_steps, objective = opened.step, build.objective(opened.config)
    own = sampling.Sampler(objective)
    sweeps = [(own, measure.calls, (num_steps,))]
    if "euler" in sampling.methods(objective)[1:]:
        sweeps.append((sampling.Sampler(objective, "euler"), measure.calls, (num_steps,)))
    if measure.curve:
        sweeps.append((own, measure.curve, tuple(num_steps * part // PARTS for part in CURVE_PARTS)))
    found, faults = [], []
    for sampler, calls, checkpoints in sweeps:
        request = fid_sweep.Request(
            calls=sampler.possible(calls),
            num_samples=measure.num_samples,
            features=measure.features,
            method=sampler.method,
            checkpoints=checkpoints,
        )
        swept = fid_sweep.attempt([workdir], request)
        faults += swept.faults
        found += [
            {**row.flat(), "share": row.identity.checkpoint_step / num_steps} for row in swept.rows.get(workdir, [])
        ]
    return Swept(own.method, found, faults)
