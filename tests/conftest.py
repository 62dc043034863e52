"""Settings for every test: four CPU devices, and a rank mismatch is an error instead of a broadcast."""

import fcntl
import os
import shutil
from pathlib import Path

import jax
import ml_collections
import pytest

from sgflow_jax import trainer
from tests import tiny

# The programs of tests take seconds to compile and milliseconds to run: LLVM optimises nothing (XLA still fuses). The
# commands that tests start inherit it.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if QUICK_TO_COMPILE not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_TO_COMPILE}"
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


@pytest.fixture
def digits_run(tmp_path_factory):
    """The directory of a tiny run on images, the test's own."""
    return _copy_of_a_run("digits", tiny.digits("flow_matching"), tmp_path_factory)


@pytest.fixture
def line_run(tmp_path_factory):
    """The directory of a tiny run on the line, the test's own."""
    return _copy_of_a_run("line", tiny.mixture(), tmp_path_factory)


def _copy_of_a_run(name: str, config: ml_collections.ConfigDict, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run is trained once for all tests, and where several processes share these, by one of them for all."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which is the same for all
    trained = folder / f"trained-{name}"
    with open(f"{trained}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not trained.exists():
            half_done = tmp_path_factory.mktemp(name)
            trainer.train(config, str(half_done))
            half_done.rename(trained)
    return str(shutil.copytree(trained, tmp_path_factory.mktemp(name), dirs_exist_ok=True))


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
