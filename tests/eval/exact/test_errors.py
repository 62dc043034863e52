import numpy as np
import pytest

from eval.exact import errors
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access


def test_an_untrained_map_is_about_as_wrong_as_the_identity(line_run):
    opened, against = access.open(line_run), errors.targets("mixture1d", num_samples=200)
    found = errors.score(opened.net(), opened.config, against)
    expected = np.sqrt(np.mean((against.path[-1] - against.noise) ** 2))
    assert found["one_jump"] == pytest.approx(expected, rel=0.05)
    assert set(found) == {"one_jump", "all_jumps", "path", *(f"distance_{n}" for n in (1, 2, 4, 10))}
    assert None not in found.values()


def test_data_without_an_exact_map():
    with pytest.raises(InputError, match="exact map of digits is unknown: use mixture1d"):
        errors.targets("digits")
