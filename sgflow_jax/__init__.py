"""Flow map learning in JAX: SGFlow and the methods it is compared with."""

__version__ = "0.1.0"  # of the package; recorded under "sgflow_jax" by every run and every row of results
