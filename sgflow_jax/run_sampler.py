"""How a run is sampled: the sampler that its configuration allows, and what to know about its guidance."""

import ml_collections
import numpy as np

from sgflow_jax import build
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import InputError
from sgflow_jax.sampling import Sampler


def make(config: ml_collections.ConfigDict, method: str | None, grid: str, guidance: Guidance) -> Sampler:
    """The sampler of a run. InputError for what its objective or its network does not allow."""
    found = Sampler(build.objective(config), method, grid, guidance)
    if guidance.on and not (config.model.num_classes and config.model.label_dropout):
        raise InputError(
            "--guidance needs a network with a null class: train with labels and model.label_dropout > 0, or leave it "
            "out"
        )
    return found


def remarks(config: ml_collections.ConfigDict, sampler: Sampler) -> list[str]:
    """What to know about samples with this guidance, a line each."""
    found, weight = [], sampler.guidance.weight
    if sampler.guidance.on and sampler.method == "flow_map":
        found.append(
            "note: with flow_map guidance is a heuristic, as it mixes average velocities, and the jumps of the guided "
            "field are another map: sample with --method=euler, or train with objective.guidance"
        )
    if sampler.guidance.on and config.objective.guidance != 1:
        found.append(
            f"note: this run was trained with objective.guidance = {config.objective.guidance:g}, so its samples are "
            f"guided anyway; --guidance comes on top, and the two multiply to {config.objective.guidance * weight:g}"
        )
    return found


def interval(guidance: Guidance) -> str:
    """When it acts, like 0.2-0.8; "" for all times."""
    return f"{number(guidance.start)}-{number(guidance.end)}" * ((guidance.start, guidance.end) != (0, 1))


def told(weight: float, interval: str) -> str:
    """Guidance in a few words, "" for none. interval: of `interval`."""
    return f"guidance {number(weight)}{f' at times {interval}' * bool(interval)}" * (weight != 1)


def number(value: float) -> str:
    """The shortest decimal number that reads back as `value`, without an exponent, which a file name can hold."""
    return np.format_float_positional(value, trim="-")
