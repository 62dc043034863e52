"""The cost of training: counted, compiled, timed and traced."""
