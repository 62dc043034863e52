"""Implicit dtype promotion is an error in the mathematics. Not in all tests: optax's Adam relies on it."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def mixed_dtypes():
    """For tests that mix dtypes on purpose, or through Flax's group normalisation in bfloat16."""
    with jax.numpy_dtype_promotion("standard"):
        yield
