"""The DDPM++ network against PyTorch's results with weights made by a rule. Its samples: weights/test_released.py."""

import functools
import hashlib

import jax
import numpy as np
import pytest

from sgflow_jax.models import song_names
from tests.song_rule import arrays_by_rule, distance, make

SMALL = dict(channels=32, channel_mult=(1, 2), num_blocks=1, attention_sizes=(8,), augment_dim=6)
CASES = [
    pytest.param(
        "small",
        SMALL,
        (1448.671165931426, 35411.488045077815),
        "7273d5d13dd55320c634a9889022688ffbfd1c740d2acba39bf4a80d69ff22dd",
    ),
    pytest.param(
        "cifar10",
        dict(augment_dim=6),
        (21990.66087393224, 1063759.8786007538),
        "7522c789d74edf686f561dd26e80dd6ba799dfcd080d86bee94cee12db4eceb6",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize("name, options, sums, digest", CASES)
def test_values_and_derivative_equal_pytorch(shared, name, options, sums, digest):
    with np.load(shared / "golden" / "song_unet.npz") as file:
        golden = {key.partition("/")[2]: file[key] for key in file if key.startswith(f"{name}/")}
    x, dx, t, h, augment = (golden[key] for key in ("x", "dx", "t", "h", "augment"))
    model = make(**options)
    arrays = arrays_by_rule(model, x.shape[1:])
    found = [sum(float(f(a.astype(np.float64)).sum()) for a in arrays.values()) for f in (lambda a: a, np.abs)]
    np.testing.assert_allclose(found, sums, rtol=1e-12)
    assert hashlib.sha256(b"".join(arrays[key].tobytes() for key in sorted(arrays))).hexdigest() == digest
    params = song_names.parameters(arrays, interleaved=False)

    @functools.partial(jax.jit, static_argnums=1)
    def theirs(params, labelled, t, h, x):
        last = (None, None, augment) if labelled else ()
        with jax.default_matmul_precision("highest"):
            return -model.apply({"params": params}, 1 - t, 1 - t + h, x, *last)

    one = np.ones_like(t)
    y, dy = jax.jvp(functools.partial(theirs, params, True), (t, h, x), (one, one, dx))
    errors = {"y": distance(y, golden["y"]), "dy": distance(dy, golden["dy"])}
    if name == "small":  # another program, which takes long to compile
        errors["y_without_augment"] = distance(theirs(params, False, t, h, x), golden["y_without_augment"])
    print(name, errors)
    assert max(errors.values()) < 5e-6
