"""The training loop: reads batches; writes checkpoints, metrics and previews."""

import contextlib
import sys
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from clu import parameter_overview

from sgflow_jax import beginning, build, data, optim
from sgflow_jax.devices import processes, provenance, sharding
from sgflow_jax.display.banner import banner, ending
from sgflow_jax.display.phase import phase
from sgflow_jax.display.preview import preview
from sgflow_jax.guard import FAULTS
from sgflow_jax.interfaces import InputError, Stream, stream_key
from sgflow_jax.models import BoundNet
from sgflow_jax.preparation import Prepared, prepare
from sgflow_jax.run import access
from sgflow_jax.run.checkpoint import Checkpoints
from sgflow_jax.run.due import Due
from sgflow_jax.run.metric_log import MetricLog, NoLog
from sgflow_jax.run.preemption import MAINTENANCE_URL, Preemption
from sgflow_jax.run.step_trace import StepTrace
from sgflow_jax.run.stopwatch import Stopwatch
from sgflow_jax.train_step import Monitor, TrainState


class Stopped(InputError):
    """A run diverged and was stopped."""


Scores = dict[str, float]
Scorer = Callable[[BoundNet], Scores]


def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    make_scorer: Callable[[ml_collections.ConfigDict], Scorer] | None = None,
) -> bool:
    """Trains to config.train.num_steps, from the newest checkpoint in workdir if there is one. Returns True at the end,
    False if a signal ended the run first (see `Preemption`): the same call continues it.

    make_scorer: needed with config.eval.every. Builds, from the configuration, what measures a network while it trains:
    distances by their `metric_log.Distance.name`, as `eval.scores.while_training.scorer` does.
    InputError for a bad configuration, data set or workdir, before anything is written; Stopped if the run diverges.
    """
    prepared = prepare(config, workdir)
    config = prepared.config
    if config.eval.every and make_scorer is None:
        raise InputError("config.eval.every measures distances: pass eval.scores.while_training.scorer to train")
    score = make_scorer(config) if config.eval.every else None
    with contextlib.ExitStack() as stack:
        claim = stack.enter_context(access.claim(workdir, config, prepared.found))
        start, new_log = prepared.start, lambda: MetricLog(workdir, start, config.train.num_steps, config.log.wandb)
        log = stack.enter_context(processes.on_first(new_log) or NoLog())
        preemption = stack.enter_context(Preemption(log.say, MAINTENANCE_URL if jax.default_backend() == "tpu" else ""))
        keep = config.train.keep_checkpoints, config.train.keep_every
        checkpoints = stack.enter_context(Checkpoints(workdir, *keep, claim=claim))
        for place in checkpoints.set_aside_after(start):
            log.event("damaged", start, f"a damaged checkpoint was moved to {place}")
        trace = stack.enter_context(StepTrace(config.profile.steps, workdir, log.event))
        return _Run(prepared, workdir, checkpoints, log, score).run(preemption, trace)


class _Run:
    """One uninterrupted stretch of training."""

    def __init__(
        self,
        prepared: Prepared,
        workdir: str,
        checkpoints: Checkpoints,
        log: MetricLog | NoLog,
        score: Scorer | None,
    ):
        self._prepared, self._workdir, self._config = prepared, workdir, prepared.config
        self._checkpoints, self._log, self._score = checkpoints, log, score
        config = prepared.config
        self._learning_rate = build.learning_rate(config)
        self._everywhere = sharding.replicated(prepared.mesh)
        self._fresh_monitor = prepared.step_fn.init_monitor(
            data.batch_like(config.data, config.data.batch_size), prepared.like
        )
        before = log.last
        self._watch = Stopwatch(before.get("wall_seconds", 0.0), before.get("device_seconds", 0.0), jax.device_count())
        self._lap = (0, 0.0)  # step and device seconds at the start of the current speed measurement
        self._unsaved = False  # the last save failed

    def run(self, preemption: Preemption, trace: StepTrace) -> bool:
        """Trains from the step that was found. Returns whether it reached the end."""
        prepared, start, num_steps = self._prepared, self._prepared.start, self._config.train.num_steps
        per_call, split = self._config.train.steps_per_dispatch, build.batch_sharding(self._config, prepared.mesh)
        with phase("reading the checkpoint" if start else "making the parameters"):
            state, monitor = self._saved(start) if prepared.found.step else self._first()
        self._say_start(state)
        if prepared.first_step:
            self._save(start, state, monitor)  # from now on this run does not need the other one
        new_key = jax.jit(lambda: stream_key(self._config.seed, Stream.TRAINING), out_shardings=self._everywhere)
        step, stop, key, advance = start, False, new_key(), None
        trace.after(step, state)
        while step < num_steps and not stop:
            # Until the end, or a rollback, after which other batches follow.
            following = build.batches(self._config, prepared.source, prepared.mesh, step + int(state.skipped))
            with contextlib.closing(following) as batches:
                for batch in batches:
                    batch = sharding.to_devices(batch, split)
                    if advance is None:
                        advance = self._compiled(state, monitor, batch, key)
                        self._begin(step)
                    state, monitor = advance(state, monitor, batch, key, prepared.teacher)
                    step += per_call
                    trace.after(step, state)
                    self._log.advance(per_call)
                    stop = preemption.reached()
                    due = Due.after(step, self._config, stop)
                    if any(due) and (fault := self._fault(monitor)):
                        with self._watch.paused():
                            state, monitor, step = self._roll_back(fault, state, monitor)
                        break
                    if any(due):
                        monitor = self._write(step, state, monitor, due, stop)
                    if stop or step >= num_steps:
                        break
        return self._finish(step, state, monitor)

    def _say_start(self, state: TrainState) -> None:
        first, *rest = banner(self._prepared, self._workdir, sum(a.size for a in jax.tree.leaves(state.params)))
        begins = {field: self._config.train[field] or None for field in beginning.FIELDS}
        facts = {**begins, **provenance.describe(sys.argv)}
        self._log.event("start", self._prepared.start, first, **facts)
        for line in rest:
            self._log.say(line)
        self._log.describe(self._config, parameter_overview.get_parameter_overview(state.params, include_stats=False))

    def _compiled(self, *arguments) -> Callable:
        """The training step, compiled for these arguments."""
        prepared = self._prepared
        step = build.compiled(self._config, prepared.step_fn, prepared.like, prepared.mesh)
        with phase("tracing the training step") as tracing:
            lowered = step.lower(*arguments, prepared.teacher)
        with phase("compiling the training step") as compiling:
            compiled = lowered.compile()
        how = "loaded from the compilation cache" if compiling.from_cache else "compiled"
        self._log.say(f"training step traced in {tracing.seconds:.1f} s, {how} in {compiling.seconds:.1f} s")
        return step if sharding.searched() else compiled  # a compiled program does not name the operation

    def _begin(self, step: int) -> None:
        """Starts the clocks: training steps follow."""
        self._watch.start()
        self._lap = (step, self._watch.device)
        self._log.begin(step)

    def _first(self) -> tuple[TrainState, Monitor]:
        """The state a run begins with: new, or from another run's checkpoint."""
        monitor = jax.device_put(self._fresh_monitor, self._everywhere)
        prepared = self._prepared
        fresh = build.first_state(self._config, prepared.step_fn, prepared.like)
        state = beginning.first_state(prepared.begins_with, fresh, prepared.like) if prepared.begins_with else fresh
        return state, monitor

    def _saved(self, step: int) -> tuple[TrainState, Monitor]:
        """Reads state and monitor from this run's checkpoint of a step."""
        like = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=self._everywhere), self._fresh_monitor
        )
        return self._checkpoints.state(step, self._prepared.like), self._checkpoints.monitor(step, like)

    def _write(self, step: int, state: TrainState, monitor: Monitor, due: Due, stop: bool) -> Monitor:
        """Writes what is due after a step. Returns the monitor to continue with."""
        with self._watch.paused():
            if due.log:
                values = self._metrics(step, state, monitor)
                monitor = monitor.replace(averages=jax.device_put(self._fresh_monitor.averages, self._everywhere))
                self._say_write_fault(self._checkpoints.write_fault(), step)
            save = due.save or (due.log and self._unsaved)
            # The log's row, for which measuring may take long, comes before its checkpoint: after a kill between the
            # two the step is repeated. But a run that is to stop may not have that long.
            at_once = save and stop and due.score
            if at_once:
                self._save(step, state, monitor)
            scores = self._scores(step, state) if due.score else {}
            if due.log:
                self._log.scalars(step, {**values, **scores})
            if save and not at_once:
                self._save(step, state, monitor)
            if due.preview:
                self._preview(step, state)
        if due.log:
            self._lap = (step, self._watch.device)
        return monitor

    def _save(self, step: int, state: TrainState, monitor: Monitor) -> None:
        self._say_write_fault(self._checkpoints.write_fault(wait=True), step)  # of the previous save
        self._unsaved = False
        self._checkpoints.save(step, state, monitor, self._config, self._prepared.source.identity())

    def _say_write_fault(self, fault: str | None, step: int) -> None:
        if fault is not None:
            self._unsaved = True
            self._log.event("unsaved", step, f"warning: a checkpoint could not be written ({fault}); trying again")

    def _finish(self, step: int, state: TrainState, monitor: Monitor) -> bool:
        """Waits for the last checkpoint, retrying it once. Returns whether the run reached its end."""
        self._say_write_fault(self._checkpoints.write_fault(wait=True), step)
        if self._unsaved:
            self._save(step, state, monitor)
            if fault := self._checkpoints.write_fault(wait=True):
                raise InputError(
                    f"step {step} could not be saved ({fault}), and the newest checkpoint is of step "
                    f"{self._checkpoints.latest()}: free some space and give the same command again"
                )
        done = step >= self._config.train.num_steps
        if done:
            for line in ending(self._config, self._workdir, self._watch.wall):
                self._log.say(line)
        else:
            latest = self._checkpoints.latest()
            saved = f"saved step {latest}" if latest else "no step is saved yet"
            self._log.event("stopped", step, f"{saved}: the same command continues from there")
        return done

    def _fault(self, monitor: Monitor) -> str | None:
        step = int(monitor.guard.fault_step)
        return None if step < 0 else f"{FAULTS[int(monitor.guard.fault)]} at step {step}"

    def _roll_back(self, fault: str, state: TrainState, monitor: Monitor) -> tuple[TrainState, Monitor, int]:
        """Returns to the last good checkpoint, lowers the learning rate, and skips the batches up to the fault. Stopped
        if no rollback is left."""
        train = self._config.train
        self._say_write_fault(self._checkpoints.write_fault(wait=True), int(state.step))
        sound = self._checkpoints.newest()
        last = sound.step if sound else self._prepared.first_step
        for place in self._checkpoints.set_aside_after(last):
            self._log.event("damaged", last, f"a damaged checkpoint was moved to {place}")
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
        state, monitor = self._saved(last) if sound else self._first()
        place = lambda number: jax.device_put(np.int32(number), self._everywhere)  # noqa: E731
        state = state.replace(rollbacks=place(rollbacks + 1), skipped=place(skipped))
        self._log.rewind(last)
        self._begin(last)
        rate = train.rollback_factor ** (rollbacks + 1)
        self._log.event(
            "rollback",
            last,
            f"{fault}: back to step {last}, {left_out} batches skipped, learning rate times {rate:.3g}",
        )
        return state, monitor, last

    def _metrics(self, step: int, state: TrainState, monitor: Monitor) -> dict[str, float]:
        """The values of one row of the log."""
        since, then = self._lap
        averages = {name: float(value) for name, value in monitor.averages.compute().items()}
        values = {"loss": averages.pop("loss"), **averages}
        slowed = self._config.train.rollback_factor ** int(state.rollbacks)
        # Not by the step: an imported run has that of its file, and an optimiser that begins.
        values["learning_rate"] = float(self._learning_rate(max(optim.updates(state.opt_state), 1) - 1)) * slowed
        device = self._watch.device
        if step > since:
            images = (step - since) * self._config.data.batch_size
            values["images_per_second"] = images * jax.device_count() / (device - then)
        return {**values, "wall_seconds": self._watch.wall, "device_seconds": device}

    def _scores(self, step: int, state: TrainState) -> Scores:
        """Distances of the averaged parameters; none if the samples cannot be measured."""
        try:
            with phase("measuring the distance"):
                return self._score(self._averaged(state))
        except Exception as error:  # the state itself is sound, so training may recover
            if jax.process_count() > 1 and not isinstance(error, InputError):
                raise  # the others may be waiting for this process
            self._log.say(f"no distance at step {step}: {error}")
            return {}

    def _preview(self, step: int, state: TrainState) -> None:
        """Draws samples of the averaged parameters."""
        try:
            with phase("drawing the preview"):
                picture = preview(self._averaged(state), self._prepared.step_fn.objective, self._config)
        except InputError as error:  # the state itself is sound, so training may recover
            self._log.say(f"no preview of step {step}: {error}")
        except Exception as error:  # matplotlib raises any kind, and a run must not end for it
            self._log.say(f"no preview of step {step}: {type(error).__name__}, {error}")
        else:
            self._log.preview(step, picture)

    def _averaged(self, state: TrainState) -> BoundNet:
        return BoundNet(self._prepared.step_fn.model, state.average)
