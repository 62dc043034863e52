"""The parts of `eval.compare`."""
