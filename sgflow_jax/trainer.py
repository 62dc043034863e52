"""The training loop: batches in; checkpoints, metrics and previews out."""

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh

from sgflow_jax import build, data, figures, generate, integrity, processes, resume, sampling, sharding
from sgflow_jax.checkpoint import Checkpoints
from sgflow_jax.guard import FAULTS
from sgflow_jax.interfaces import InputError, Stream, stream_key
from sgflow_jax.metric_log import MetricLog, NoLog
from sgflow_jax.models import BoundNet
from sgflow_jax.preemption import MAINTENANCE_URL, Preemption
from sgflow_jax.profile_steps import StepTrace
from sgflow_jax.train_step import Monitor, TrainState, TrainStep

PREVIEW_CALLS = (1, 2, 4, 10)
PREVIEW_IMAGES = 16
PREVIEW_POINTS = 4096


class Stopped(InputError):
    """A run that diverged and was stopped."""


def train(config: ml_collections.ConfigDict, workdir: str) -> bool:
    """Trains to config.train.num_steps, from the newest checkpoint in workdir if there is one. True when it got there,
    False when a signal ended it first (see `Preemption`): the same call goes on.

    InputError for a bad configuration, data set or workdir, before anything is written; Stopped when the run diverges.
    """
    build.check(config)
    mesh = build.mesh(config)
    step_fn = build.train_step(config, mesh)
    found = processes.from_process(processes.on_first(lambda: resume.look(workdir, config)))
    saved = resume.Found(*found)
    config, teacher = _with_teacher(config, saved.config, mesh)
    source = processes.on_all(lambda: build.source(config))
    if saved.data not in (None, source.identity()):
        raise InputError(
            f"--workdir={workdir} was trained on {saved.data}, and the data set is {source.identity()}: set "
            "config.data.data_dir to the former"
        )
    with contextlib.ExitStack() as stack:
        token = processes.from_process(processes.on_first(lambda: resume.claim(stack, workdir, config, saved)))
        processes.on_all(lambda: resume.check_shared(workdir, token))
        start, num_steps = saved.step, config.train.num_steps
        log = stack.enter_context(processes.on_first(lambda: MetricLog(workdir, start, num_steps)) or NoLog())
        preemption = stack.enter_context(Preemption(log.say, MAINTENANCE_URL if jax.default_backend() == "tpu" else ""))
        keep = config.train.keep_checkpoints, config.train.keep_every
        checkpoints = stack.enter_context(Checkpoints(workdir, *keep))
        for place in checkpoints.set_aside_after(start):
            log.event("damaged", start, f"a damaged checkpoint is now {place}")
        trace = stack.enter_context(StepTrace(config.profile.steps, workdir, log.event))
        return _Run(config, workdir, mesh, step_fn, source, checkpoints, log).run(start, teacher, preemption, trace)


def _with_teacher(
    config: ml_collections.ConfigDict, saved: dict[str, Any] | None, mesh: Mesh
) -> tuple[ml_collections.ConfigDict, BoundNet | None]:
    """The configuration with the step of the teacher's checkpoint, which a continued run keeps, and the teacher."""
    config = config.copy_and_resolve_references()
    if saved is not None:
        config.teacher.step = saved["teacher"]["step"]
    teacher, config.teacher.step = build.teacher(config, mesh)
    return config, teacher


class _Run:
    """One uninterrupted stretch of training."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: str,
        mesh: Mesh,
        step_fn: TrainStep,
        source: data.Source,
        checkpoints: Checkpoints,
        log: MetricLog | NoLog,
    ):
        self._config, self._workdir, self._mesh = config, workdir, mesh
        self._step_fn, self._source = step_fn, source
        self._checkpoints, self._log = checkpoints, log
        self._learning_rate = build.learning_rate(config)
        self._per_call = config.train.steps_per_dispatch
        self._split = sharding.split(mesh, axis=0 if self._per_call == 1 else 1)
        self._everywhere = sharding.replicated(mesh)
        self._like = build.state_like(config, step_fn, mesh)
        self._fresh_monitor = step_fn.init_monitor(
            data.batch_like(config.data.name, config.data.batch_size), self._like
        )
        self._clock = (0, 0.0)  # step and time since which the speed is measured
        self._unsaved = False  # the last save failed

    def run(self, start: int, teacher: BoundNet | None, preemption: Preemption, trace: StepTrace) -> bool:
        """Trains from step `start`. Whether it got to its end."""
        num_steps = self._config.train.num_steps
        state, monitor = self._at(start)
        self._log.say(parameter_overview.get_parameter_overview(state.params, include_stats=False))
        devices = f"{jax.device_count()} {jax.devices()[0].device_kind} device(s), {jax.process_count()} process(es)"
        self._log.event("start", start, f"{devices}, mesh {dict(self._mesh.shape)}, from step {start}")
        advance = build.compiled(self._step_fn, self._like, self._mesh, self._per_call)
        key = jax.jit(lambda: stream_key(self._config.seed, Stream.TRAINING), out_shardings=self._everywhere)()

        step, began, stop = start, time.perf_counter(), False
        trace.after(step, state)
        while step < num_steps and not stop:
            # Until the end, or a rollback, after which other batches follow.
            with contextlib.closing(self._batches(step + int(state.skipped), self._per_call)) as batches:
                for batch in batches:
                    state, monitor = advance(state, monitor, sharding.to_devices(batch, self._split), key, teacher)
                    step += self._per_call
                    trace.after(step, state)
                    self._log.advance(self._per_call)
                    if began:
                        jax.block_until_ready(state)
                        seconds = time.perf_counter() - began
                        self._log.say(f"compiled, and took the first {self._per_call} step(s), in {seconds:.1f} s")
                        self._clock, began = (step, time.perf_counter()), 0
                    stop = preemption.reached()
                    if self._anything_due(step, stop) and (fault := self._fault(monitor)):
                        state, monitor, step = self._roll_back(fault, state, monitor)
                        break
                    monitor = self._write(step, state, monitor, stop)
                    if stop or step >= num_steps:
                        break
        return self._finish(step, state, monitor)

    def _at(self, step: int) -> tuple[TrainState, Monitor]:
        """The state after `step` steps, as a checkpoint has it; before the first, a new one."""
        if not step:
            init = functools.partial(self._step_fn.init, shape=data.shape(self._config.data.name))
            where = jax.tree.map(lambda a: a.sharding, self._like)
            key = stream_key(self._config.seed, Stream.PARAMETERS)
            return jax.jit(init, out_shardings=where)(key), jax.device_put(self._fresh_monitor, self._everywhere)
        like = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=self._everywhere), self._fresh_monitor
        )
        return self._checkpoints.state(step, self._like), self._checkpoints.monitor(step, like)

    def _batches(self, start: int, count: int) -> Iterator[dict[str, np.ndarray]]:
        """This process's rows of the batches from number `start`, or of `count` batches stacked along a new axis."""
        size = self._config.data.batch_size
        rows = sharding.process_rows(self._mesh, size)
        with contextlib.closing(self._source.batches(self._config.seed, start, size, rows)) as batches:
            while True:
                several_batches = [next(batches) for _ in range(count)]
                stack = lambda *each: each[0] if count == 1 else np.stack(each)  # noqa: E731
                yield jax.tree.map(stack, *several_batches)

    def _due(self, step: int, every: int) -> bool:
        return bool(every) and (step % every == 0 or step == self._config.train.num_steps)

    def _anything_due(self, step: int, stop: bool) -> bool:
        train = self._config.train
        every = train.log_every, train.checkpoint_every, train.preview_every, train.keep_every
        return stop or any(self._due(step, each) for each in every)

    def _write(self, step: int, state: TrainState, monitor: Monitor, stop: bool) -> Monitor:
        """What is due after a step; the monitor with which to go on."""
        train = self._config.train
        log = self._due(step, train.log_every)
        if log:
            self._write_metrics(step, state, monitor)
            monitor = monitor.replace(averages=jax.device_put(self._fresh_monitor.averages, self._everywhere))
            self._say_write_fault(self._checkpoints.write_fault(), step)
        save = stop or self._due(step, train.checkpoint_every) or self._due(step, train.keep_every)
        if save or (log and self._unsaved):
            self._save(step, state, monitor)
        if self._due(step, train.preview_every):
            self._preview(step, state)
        if log:
            self._clock = (step, time.perf_counter())
        return monitor

    def _save(self, step: int, state: TrainState, monitor: Monitor) -> None:
        self._say_write_fault(self._checkpoints.write_fault(wait=True), step)  # of the save before, long over
        self._unsaved = False
        self._checkpoints.save(step, state, monitor, self._config, self._source.identity())

    def _say_write_fault(self, fault: str | None, step: int) -> None:
        if fault is not None:
            self._unsaved = True
            self._log.event("unsaved", step, f"warning: a checkpoint could not be written ({fault}); trying again")

    def _finish(self, step: int, state: TrainState, monitor: Monitor) -> bool:
        """Waits for the last checkpoint, which is tried once more. Whether the run got to its end."""
        self._say_write_fault(self._checkpoints.write_fault(wait=True), step)
        if self._unsaved:
            self._save(step, state, monitor)
            if fault := self._checkpoints.write_fault(wait=True):
                raise InputError(
                    f"step {step} could not be saved ({fault}), the newest checkpoint is of step "
                    f"{self._checkpoints.latest()}: free some space and give the same command again"
                )
        done = step >= self._config.train.num_steps
        if not done:
            latest = self._checkpoints.latest()
            saved = f"saved step {latest}" if latest else "no step is saved yet"
            self._log.event("stopped", step, f"{saved}: the same command goes on from there")
        return done

    def _fault(self, monitor: Monitor) -> str | None:
        step = int(monitor.guard.fault_step)
        return None if step < 0 else f"{FAULTS[int(monitor.guard.fault)]} at step {step}"

    def _roll_back(self, fault: str, state: TrainState, monitor: Monitor) -> tuple[TrainState, Monitor, int]:
        """The last good checkpoint, with a lower learning rate, to go on after the batch that brought the fault; or
        Stopped."""
        train = self._config.train
        self._say_write_fault(self._checkpoints.write_fault(wait=True), int(state.step))
        sound = processes.from_process(processes.on_first(lambda: integrity.newest(self._workdir)))
        last = sound[0] if sound else 0
        for place in self._checkpoints.set_aside_after(last):
            self._log.event("damaged", last, f"a damaged checkpoint is now {place}")
        good = f"the last good checkpoint is of step {last}" if last else "there is no checkpoint yet"
        rollbacks = int(state.rollbacks)
        if train.on_divergence != "rollback" or rollbacks >= train.max_rollbacks:
            again = f" after {rollbacks} rollback(s)" if rollbacks else ""
            self._log.event("diverged", int(state.step), f"{fault}{again}; {good}")
            raise Stopped(
                f"{fault}{again}; {good}: lower optim.learning_rate, or raise optim.warmup_steps and the objective's "
                "warmup_steps, in a new --workdir"
            )
        left_out = int(monitor.guard.fault_step) - last
        skipped = int(state.skipped) + left_out
        state, monitor = self._at(last)
        place = lambda number: jax.device_put(np.int32(number), self._everywhere)  # noqa: E731
        state = state.replace(rollbacks=place(rollbacks + 1), skipped=place(skipped))
        self._log.rewind(last)
        self._clock = (last, time.perf_counter())
        rate = train.rollback_factor ** (rollbacks + 1)
        self._log.event(
            "rollback",
            last,
            f"{fault}: back to step {last}, {left_out} batches skipped, learning rate times {rate:.3g}",
        )
        return state, monitor, last

    def _write_metrics(self, step: int, state: TrainState, monitor: Monitor) -> None:
        since, then = self._clock
        seconds = time.perf_counter() - then
        averages = {name: float(value) for name, value in monitor.averages.compute().items()}
        values = {"loss": averages.pop("loss"), **averages}
        slowed = self._config.train.rollback_factor ** int(state.rollbacks)
        values["learning_rate"] = float(self._learning_rate(step - 1)) * slowed
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
        self._log.preview(step, figures.by_steps(made, data.density(config.data.name)))
