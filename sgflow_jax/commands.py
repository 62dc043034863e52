"""The commands of an installed copy. Each does what its module does as a program.

Imports only the standard library at the top, as `terminal` does: the other imports of a command take seconds.
"""

import importlib

from sgflow_jax import terminal


def train() -> None:
    """sgflow-train, which is also `python main.py`."""
    _run("sgflow_jax.main")


def sweep() -> None:
    """sgflow-sweep, which is also `python -m eval.fid_sweep`."""
    _run("eval.fid_sweep")


def report() -> None:
    """sgflow-report, which is also `python -m eval.report`."""
    _run("eval.report")


def _run(name: str) -> None:
    terminal.begin()
    from sgflow_jax import cli

    module = importlib.import_module(name)
    module.define_flags()
    cli.run(module.main)
