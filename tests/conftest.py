"""Settings for every test: four CPU devices, and a rank mismatch is an error instead of a broadcast."""

import os
from pathlib import Path

import jax
import pytest

from sgflow_jax import trainer
from tests import tiny

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiled programs are kept between runs of the suite, in the checkout.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing that an earlier run of the suite, or the user, has left is found, or left behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """The directory of a tiny run on images, which tests may measure."""
    workdir = str(tmp_path_factory.mktemp("digits"))
    trainer.train(tiny.digits("flow_matching"), workdir)
    return workdir


@pytest.fixture(scope="session")
def line_run(tmp_path_factory):
    """The directory of a tiny run on the line, which tests may measure."""
    workdir = str(tmp_path_factory.mktemp("line"))
    trainer.train(tiny.mixture(), workdir)
    return workdir


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def shared() -> Path:
    """The folder of prepared development data, or a skip."""
    folder = Path(os.environ.get("SGFLOW_SHARED", Path(__file__).parent.parent.parent / "shared"))
    if not (folder / "data" / "tfds").is_dir():
        pytest.skip(f"no prepared data in {folder}: set SGFLOW_SHARED")
    return folder
