import numpy as np
import pytest

from eval.page import gallery, neighbours, runs
from sgflow_jax import build
from sgflow_jax.interfaces import InputError
from tests import tiny
from tests.rows import digits_row, finished_run


def test_copies_are_detected(tmp_path):
    images = build.source(tiny.digits()).read(np.arange(40))
    mirrored = images[:20, :, ::-1]
    config = tiny.digits()
    for flip, close in ((False, 0.5), (True, 1.0)):
        config.data.flip = flip
        stored = np.concatenate([images[20:], mirrored])
        finished_run(tmp_path / "run", [digits_row(1, 1.0)], config, stored)
        found = runs.read([str(tmp_path / "run")])
        training = neighbours.training(found)
        assert len(training.images) == 1797 * (1 + flip) and training.shares.sum() == pytest.approx(1)
        typical = neighbours.spread(training.images)
        seen = gallery.copies(found[0], runs.common_kinds(found)[0], training.images, typical)
        assert close <= seen.memorised.close <= close + 0.3 and seen.count == 40
    finished_run(tmp_path / "other", [digits_row(1, 1.0, reference=dict(fingerprint="0"))], config)
    with pytest.raises(InputError, match="differ from those the runs were measured against"):
        neighbours.training(runs.read([str(tmp_path / "other")]))
