"""Opens a run's directory: `open` to read the trained network, `claim` to write."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh

from sgflow_jax import data, models
from sgflow_jax.config.check import completed
from sgflow_jax.data import fingerprint
from sgflow_jax.devices import processes, sharding
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.run import classes, integrity, layout, ownership, record
from sgflow_jax.run.classes import Classes
from sgflow_jax.run.integrity import Saved
from sgflow_jax.run.ownership import Claim


@dataclasses.dataclass(frozen=True)
class Opened:
    """A trained network, read from a checkpoint. config: what it was trained with. data: identity of its training data.
    params: those asked for, as host arrays."""

    workdir: str
    step: int
    config: ml_collections.ConfigDict
    data: dict[str, Any]
    params: Any

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the parameters: see `fingerprint.of_arrays`."""
        return fingerprint.of_arrays(*jax.tree.leaves(self.params))

    @functools.cached_property
    def classes(self) -> Classes:
        """Those that the network knows: see `classes.of_run`."""
        return classes.of_run(self.config, self.data)

    def net(self, mesh: Mesh | None = None) -> BoundNet:
        """The network on the devices, with its parameters copied there by each call. mesh: by default every device has
        all of them."""

        def place(array, where):
            return jax.make_array_from_callback(array.shape, where, lambda index: array[index])

        where = sharding.of_state(mesh or sharding.mesh(), self.params)
        return BoundNet(models.make(**self.config.model), jax.tree.map(place, self.params, where))


def open(workdir: str, step: int | None = None, parameters: str = "ema") -> Opened:
    """Opens a run to use its network. Every process reads the parameters, once, and verifies them.

    step: of the checkpoint; the newest sound one by default. parameters: "ema", their average; "raw", the last ones;
    or a further average, see `optim.average_names`. Nothing else is read, so a checkpoint whose optimiser state is
    damaged still opens. InputError if there is no such checkpoint, or it has no such parameters, or these are damaged.
    """
    read = functools.partial(integrity.network, parameters=parameters)
    found = processes.on_first(lambda: integrity.find(workdir, step, read))
    step = processes.from_process(found and found.saved.step)
    found = processes.on_all(lambda: found or integrity.find(workdir, step, read))
    return Opened(workdir, step, completed(found.saved.config), found.saved.data, found.params)


def previous(workdir: str, config: ml_collections.ConfigDict) -> Saved:
    """What the run has saved in its directory so far: its newest sound checkpoint, or step 0. Writes nothing.

    InputError if the directory holds another run, or one that is longer than config.train.num_steps.
    """
    return Saved(*processes.from_first(lambda: _previous(workdir, config)))


def _previous(workdir: str, config: ml_collections.ConfigDict) -> Saved:
    layout.check_places(workdir)
    saved = integrity.newest(workdir)  # first, as another version may have recorded other fields
    if (recorded := record.recorded(workdir)) is not None:
        record.check_same(workdir, recorded, config)
    if saved is None:
        return Saved(config=recorded)
    record.check_same(workdir, saved.config, config)
    if saved.step > config.train.num_steps:
        raise InputError(
            f"--workdir={workdir} has a checkpoint of step {saved.step}, and config.train.num_steps is "
            f"{config.train.num_steps}: raise it to continue, or use another --workdir"
        )
    return saved


def check_data(workdir: str, saved: Saved, source: data.Source) -> data.Source:
    """The source. InputError if the run was trained on other data."""
    now = source.identity()
    # Older versions recorded fewer facts.
    then = saved.data or {}
    if differing := [name for name in then if then[name] != now.get(name)]:
        old, new = ({name: facts.get(name) for name in differing} for facts in (then, now))
        raise InputError(
            f"--workdir={workdir} was trained on {old}, but config.data points to {new}: set config.data.data_dir, or "
            "config.data.dir, to the former"
        )
    return source


@contextlib.contextmanager
def claim(workdir: str, config: ml_collections.ConfigDict, saved: Saved) -> Iterator[Claim]:
    """Claims the directory for this run, to write, and records the configuration.

    saved: of `previous`. InputError if another run has the directory, or wrote to it since `previous` looked.
    """

    def check():
        now = integrity.newest(workdir, quiet=True)
        if (now.step if now else 0) != saved.step:
            raise InputError(
                f"another run has just written to --workdir={workdir}: give the command again to continue from it"
            )
        if not saved.step:  # else a checkpoint was read just now
            integrity.check_store(workdir)

    def take() -> str:
        disk.make_directory(layout.checkpoints(workdir))
        claimed = stack.enter_context(ownership.claimed(workdir, check))
        record.record(workdir, config)
        return claimed.token

    with contextlib.ExitStack() as stack:
        claimed = Claim(workdir, processes.from_first(take))
        processes.on_all(claimed.wait_until_seen)
        yield claimed
