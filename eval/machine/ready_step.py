"""A training step ready to run on random examples: its cost does not depend on the data."""

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from sgflow_jax import build, data
from sgflow_jax.devices import sharding
from sgflow_jax.interfaces import Stream, stream_key
from sgflow_jax.models import BoundNet
from sgflow_jax.train_step import Monitor, TrainState


def random_batch(section: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
    """Random examples with the shapes and dtypes of the batches of a configuration's section `data`; labels 0."""
    rng, like = np.random.default_rng(0), data.batch_like(section, section.batch_size)
    shape, is_image = like["x"].shape, like["x"].dtype == np.uint8
    x = rng.integers(0, 256, shape, np.uint8) if is_image else rng.standard_normal(shape, np.float32)
    return {"x": x, "label": np.zeros(like["label"].shape, np.int32)}


class Step:
    """One dispatch of training (steps_per_dispatch steps), laid out over devices as the trainer does it.

    like: shapes and shardings of the state. lowered: the program (state, monitor, batch, key, teacher) ->
    (state, monitor), to be compiled with .compile(). mesh: the configuration's by default.
    """

    def __init__(self, config: ml_collections.ConfigDict, mesh: Mesh | None = None):
        self._config, self._mesh = config, mesh or build.mesh(config)
        self._step = build.train_step(config, self._mesh)
        self._batch = random_batch(config.data)
        self.like = build.state_like(config, self._step, self._mesh)
        self._monitor = self._step.init_monitor(self._batch, self.like)
        self._teacher, *_ = build.teacher(config, self._mesh)
        if (per_call := config.train.steps_per_dispatch) > 1:
            self._batch = jax.tree.map(lambda a: np.stack([a] * per_call), self._batch)
        key = jax.eval_shape(lambda: stream_key(config.seed, Stream.TRAINING))
        program = build.compiled(config, self._step, self.like, self._mesh)
        self.lowered = program.lower(self.like, self._monitor, self._batch, key, self._teacher)

    def first(self) -> tuple[TrainState, Monitor]:
        """The initial state and monitor, on the devices."""
        state = build.first_state(self._config, self._step, self.like)
        return state, jax.device_put(self._monitor, sharding.replicated(self._mesh))

    def batch(self) -> dict[str, jax.Array]:
        """Copies the batch to the devices, each time it is called."""
        return sharding.to_devices(self._batch, build.batch_sharding(self._config, self._mesh))

    def inputs(self) -> tuple[jax.Array, BoundNet | None]:
        """The inputs after the batch: key and teacher."""
        key = jax.device_put(stream_key(self._config.seed, Stream.TRAINING), sharding.replicated(self._mesh))
        return key, self._teacher
