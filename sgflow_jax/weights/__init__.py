"""Weights of other programs in, as a run, and of runs out, for other programs."""
