"""The training speed of a run, from its log."""

import ml_collections
import numpy as np

from sgflow_jax.run import history


def steps_per_second(config: ml_collections.ConfigDict, workdir: str) -> float:
    """Training steps a second, the median over the lines of the log after the first."""
    lines = history.metrics(workdir)
    # The first line includes compiling; use it only if there is no other.
    return float(np.median([line["images_per_second"] for line in lines[1:] or lines])) / config.data.batch_size
