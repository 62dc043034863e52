"""Measuring what was trained."""

import sys

from sgflow_jax import terminal

if sys.argv[0] == "-m":  # so it is while Python looks for the module of a command, `python -m eval.fid_sweep`
    terminal.begin()  # before the other imports, which take seconds
