"""Settings for every test: four CPU devices, and implicit rank promotion is an error."""

import fcntl
import os
import shutil
from pathlib import Path

import jax
import ml_collections
import pytest

from sgflow_jax import trainer
from tests import tiny

# Test programs take seconds to compile and milliseconds to run, so LLVM optimisation is off (XLA still fuses). Commands
# started by tests inherit this.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if jax.__version_info__ < (0, 11):  # later ones end at this flag, which they do not know
    QUICK_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"
if QUICK_TO_COMPILE not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_TO_COMPILE}"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiled programs are cached in the checkout between runs of the suite.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A separate cache, so that tests neither use nor change the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def digits_run(tmp_path_factory):
    """The directory of a tiny run on images, a copy for this test."""
    return _copy_of_a_run("digits", tiny.digits("flow_matching"), tmp_path_factory)


@pytest.fixture
def labelled_run(tmp_path_factory):
    """The directory of a tiny run on images with labels, a copy for this test."""
    return _copy_of_a_run("labelled", tiny.labelled(), tmp_path_factory)


@pytest.fixture
def line_run(tmp_path_factory):
    """The directory of a tiny run on the line, a copy for this test."""
    return _copy_of_a_run("line", tiny.mixture(), tmp_path_factory)


def _copy_of_a_run(name: str, config: ml_collections.ConfigDict, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of a run that is trained once for all tests of all workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # shared by all workers
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
    """The folder of prepared development data; skips the test without it."""
    folder = Path(os.environ.get("SGFLOW_SHARED", Path(__file__).parent.parent.parent / "shared"))
    if not (folder / "data" / "tfds").is_dir():
        pytest.skip(f"no prepared data in {folder}: set SGFLOW_SHARED")
    return folder
