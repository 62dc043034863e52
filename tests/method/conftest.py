"""Implicit dtype promotion is an error in the mathematics. Not in all tests: optax's Adam relies on it."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        yield
