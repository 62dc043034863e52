"""Flow map learning in JAX: SGFlow and the methods it is compared with."""
