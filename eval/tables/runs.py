"""Training runs of the rows of a table."""

from typing import Any

import ml_collections

from sgflow_jax import trainer
from sgflow_jax.interfaces import InputError


def train(config: ml_collections.ConfigDict, workdir: str, scorer: Any = None) -> None:
    """Trains a run, or continues it, to its end: part of a run makes no row.

    scorer: of `trainer.train`. `trainer.Stopped` if it diverges; InputError if a signal stops it.
    """
    if not trainer.train(config, workdir, scorer):
        raise InputError("training was stopped by a signal: the same command continues")
