"""The training loop: batches in; checkpoints, metrics and previews out."""

import functools
import time
from typing import Any

import jax
import ml_collections
import numpy as np
from clu import parameter_overview

from sgflow_jax import build, data, figures, generate, sampling, sharding
from sgflow_jax import workdir as paths
from sgflow_jax.checkpoint import Checkpoints
from sgflow_jax.interfaces import InputError, Stream, stream_key
from sgflow_jax.metric_log import MetricLog, NoLog
from sgflow_jax.models import BoundNet
from sgflow_jax.train_step import FAULTS, Monitor, TrainState, TrainStep, several

PREVIEW_CALLS = (1, 2, 4, 10)
PREVIEW_IMAGES = 16
PREVIEW_POINTS = 4096


class Stopped(InputError):
    """A run that diverged and was stopped."""


def train(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Trains to config.train.num_steps, from the newest checkpoint in workdir if there is one.

    InputError for a bad configuration, data set or workdir, before anything is written; Stopped when the run diverges.
    """
    build.check(config)
    step_fn = build.train_step(config)
    start, saved = _check_workdir(workdir, config)
    config, teacher = _with_teacher(config, saved)
    source = build.source(config)
    first_process = jax.process_index() == 0
    everywhere = sharding.replicated(sharding.mesh())
    init = functools.partial(step_fn.init, shape=data.shape(config.data.name))
    key = stream_key(config.seed, Stream.PARAMETERS)
    with Checkpoints(workdir, config.train.keep_checkpoints) as checkpoints:
        if start:
            state = checkpoints.state(start, jax.eval_shape(init, key), everywhere)
        else:
            state = jax.jit(init, out_shardings=everywhere)(key)
        if first_process:
            paths.record(workdir, config)
        log = MetricLog(workdir, start, config.train.num_steps) if first_process else NoLog()
        with log:
            log.say(parameter_overview.get_parameter_overview(state.params, include_stats=False))
            log.say(f"{jax.device_count()} {jax.devices()[0].device_kind} device(s), from step {start}")
            _Run(config, step_fn, source, checkpoints, log).run(state, start, teacher)


def _check_workdir(workdir: str, config: ml_collections.ConfigDict) -> tuple[int, dict[str, Any] | None]:
    """The step to start from, and the configuration of the run that is there, if any.

    InputError if the directory holds another run, or a longer one. Writes nothing.
    """
    if (saved := paths.recorded(workdir)) is not None:
        paths.check_same(workdir, saved, config)
    if not paths.checkpoints(workdir).is_dir():
        return 0, saved
    with Checkpoints(workdir, read_only=True) as checkpoints:
        start = checkpoints.latest() or 0
        if start:
            saved = checkpoints.config(start)
            paths.check_same(workdir, saved, config)
    if start > config.train.num_steps:
        raise InputError(
            f"--workdir={workdir} has a checkpoint of step {start}, and config.train.num_steps is "
            f"{config.train.num_steps}: raise it to go on, or use another --workdir"
        )
    return start, saved


def _with_teacher(
    config: ml_collections.ConfigDict, saved: dict[str, Any] | None
) -> tuple[ml_collections.ConfigDict, BoundNet | None]:
    """The configuration with the step of the teacher's checkpoint, which a continued run keeps, and the teacher."""
    config = config.copy_and_resolve_references()
    if saved is not None:
        config.teacher.step = saved["teacher"]["step"]
    teacher, config.teacher.step = build.teacher(config)
    return config, teacher


class _Run:
    """One uninterrupted stretch of training."""

    def __init__(
        self, config, step_fn: TrainStep, source: data.Source, checkpoints: Checkpoints, log: MetricLog | NoLog
    ):
        self._config, self._step_fn, self._source = config, step_fn, source
        self._checkpoints, self._log = checkpoints, log
        self._learning_rate = build.learning_rate(config)
        self._mesh = sharding.mesh()
        self._clock = (0, 0.0)  # step and time since which the speed is measured

    def run(self, state: TrainState, start: int, teacher: BoundNet | None) -> None:
        train, everywhere = self._config.train, sharding.replicated(self._mesh)
        per_call = train.steps_per_dispatch
        split = sharding.split(self._mesh, axis=0 if per_call == 1 else 1)
        advance = jax.jit(
            several(self._step_fn, per_call),
            in_shardings=(everywhere, everywhere, split, everywhere, everywhere),
            out_shardings=everywhere,
            donate_argnums=(0, 1),
        )
        key = jax.jit(lambda: stream_key(self._config.seed, Stream.TRAINING), out_shardings=everywhere)()
        empty = self._step_fn.init_monitor(self._batch(start), state)
        monitor = jax.device_put(empty, everywhere)

        began = time.perf_counter()
        for step in range(start + per_call, train.num_steps + 1, per_call):
            batches = self._batches(step - per_call, per_call)
            state, monitor = advance(state, monitor, sharding.to_devices(batches, split), key, teacher)
            self._log.advance(per_call)
            if step == start + per_call:
                jax.block_until_ready(state)
                self._log.say(
                    f"compiled, and took the first {per_call} step(s), in {time.perf_counter() - began:.1f} s"
                )
                self._clock = (step, time.perf_counter())

            log, save = self._due(step, train.log_every), self._due(step, train.checkpoint_every)
            preview = train.preview_every and self._due(step, train.preview_every)
            if log or save or preview:
                self._stop_on_fault(monitor)
            if log:
                self._write_metrics(step, monitor)
                monitor = jax.device_put(empty, everywhere)
            if save:
                self._checkpoints.save(step, state, self._config)
            if preview:
                self._preview(step, state)
            if log:
                self._clock = (step, time.perf_counter())

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self._config.train.num_steps

    def _batch(self, step: int) -> dict[str, np.ndarray]:
        """This process's rows of one batch."""
        size = self._config.data.batch_size
        return self._source.batch(self._config.seed, step, size, sharding.process_rows(size))

    def _batches(self, step: int, count: int) -> dict[str, np.ndarray]:
        """What one dispatch takes: one batch, or several stacked along a new first axis."""
        if count == 1:
            return self._batch(step)
        several_batches = [self._batch(step + i) for i in range(count)]
        return jax.tree.map(lambda *each: np.stack(each), *several_batches)

    def _stop_on_fault(self, monitor: Monitor) -> None:
        step = int(monitor.fault_step)
        if step < 0:
            return
        last = self._checkpoints.latest()
        good = f"the last good checkpoint is of step {last}" if last else "there is no checkpoint yet"
        raise Stopped(
            f"{FAULTS[int(monitor.fault)]} at step {step}; {good}: lower optim.learning_rate, or raise "
            "optim.warmup_steps and the objective's warmup_steps, in a new --workdir"
        )

    def _write_metrics(self, step: int, monitor: Monitor) -> None:
        since, then = self._clock
        seconds = time.perf_counter() - then
        averages = {name: float(value) for name, value in monitor.averages.compute().items()}
        values = {"loss": averages.pop("loss"), **averages}
        values["learning_rate"] = float(self._learning_rate(step - 1))
        if step > since:
            values["images_per_second"] = (step - since) * self._config.data.batch_size / seconds
        self._log.scalars(step, values)

    def _preview(self, step: int, state: TrainState) -> None:
        """The same noise in each number of steps, from the averaged parameters."""
        config = self._config
        net = BoundNet(self._step_fn.model, state.average)
        shape, objective = data.shape(config.data.name), self._step_fn.objective
        method = sampling.method_of(objective)
        count = PREVIEW_IMAGES if len(shape) == 3 else PREVIEW_POINTS
        plan = generate.Plan(shape, 1, method, config.seed, count, objective.interpolant)
        try:
            made = {
                calls: generate.examples(net, plan._replace(network_calls=calls), count)
                for calls in sampling.possible_calls(objective, method, PREVIEW_CALLS)
            }
        except InputError as error:  # the state itself is sound, so training may recover
            self._log.say(f"no preview of step {step}: {error}")
            return
        self._log.preview(step, figures.by_steps(made))
