"""The cost of training: operations, memory and time of every objective.

    python -m eval.cost --config=configs/cifar10.py --stages=count,compile --out=runs/cost
    python -m eval.cost --config=configs/quickstart.py --objectives=sgflow,mean_flow --stages=run --out=runs/cost

For every objective and way to save memory, with the network and batch size of the configuration:

    count    operations and residual bytes of a gradient, from the program JAX builds: the same on any machine
    compile  the whole training step: seconds, and the bytes the compiler reserves
    run      the compiled step: seconds, peak memory, energy; also the machine's rate of matrix products
    sample   images a second, per network call

Writes DIR/cost.json, cost.md and cost.png with all rows in DIR, relative to flow matching without remat; --doc puts the
table into a document. Rows measured earlier are reused. With --processes each row has its own process, and timed rows
run one at a time; without, the peak memory of a GPU includes all earlier rows.
"""

import functools
import json
import time
from pathlib import Path

import jax
import ml_collections
import numpy as np
from absl import flags

from eval.machine import cost_table, gradient_cost, hardware, plots
from eval.machine.ready_step import Step
from eval.tables import document, store, variants
from sgflow_jax import build, cli, data, generate, models, objectives, sampling, terminal
from sgflow_jax.config import automatic, fields
from sgflow_jax.config.check import check_config
from sgflow_jax.files import disk
from sgflow_jax.interfaces import MAX_SEED, InputError, Stream, stream_key
from sgflow_jax.models import BoundNet

STAGES = ("count", "compile", "run", "sample")
TIMED = ("run", "sample")
WARM_UP = 3
STEPS, SECONDS = (5, 50), 4.0  # fewest and most steps; seconds to aim for
SAMPLE_CALLS, SAMPLE_BATCHES = 10, 4
SETTINGS = {
    "objective": str,  # a variant
    "remat": str,
    "dtype": str,
    "batch_size": store.Range(1, MAX_SEED),
    "microbatches": store.Range(1, MAX_SEED),
    "eval_batch_size": store.Range(1, MAX_SEED),
    "stage": STAGES,
    "data": str,  # NAME, NAME@SIZE of images that are resized, or NAME@SIZE:DIR of own images
    "network": str,  # its other fields, as JSON
    "device": str,
    "jax": str,
}


def config_of(settings: store.Settings) -> ml_collections.ConfigDict:
    """The configuration of a row. InputError if it is not valid."""
    variant = variants.parse(settings["objective"])
    config = fields.get_config(variant.objective)
    variant.apply(config)
    config.data.name, _, rest = settings["data"].partition("@")
    size, _, config.data.dir = rest.partition(":")
    config.data.size, config.data.batch_size = int(size or 0), settings["batch_size"]
    config.eval.batch_size = settings["eval_batch_size"]
    network = disk.from_json(settings["network"])  # JSON has no tuples, but a network's fields must be hashable
    network = {name: tuple(value) if isinstance(value, list) else value for name, value in network.items()}
    config.model = ml_collections.ConfigDict(network)
    config.model.dtype, config.train.microbatches = settings["dtype"], settings["microbatches"]
    if "remat" in models.default_options(config.model.name):
        config.model.remat = settings["remat"]
    elif settings["remat"] != "none":
        raise InputError(f"--remat={settings['remat']} works with unet and song_unet only: use none")
    check_config(config)
    return config


def _count(config: ml_collections.ConfigDict) -> store.Values:
    return gradient_cost.gradient_cost(config, build.objective(config))._asdict()


def _compile(config: ml_collections.ConfigDict) -> store.Values:
    cached = []
    jax.monitoring.register_event_listener(lambda event, **_: cached.append(event.endswith("/cache_hits")))
    step = Step(config)
    cached.clear()
    began = time.perf_counter()
    memory = step.lowered.compile().memory_analysis()
    seconds = None if any(cached) else round(time.perf_counter() - began, 1)
    kinds = ("argument", "output", "alias", "temp")
    return {"compile_seconds": seconds, **{f"{k}_bytes": getattr(memory, f"{k}_size_in_bytes") for k in kinds}}


def _run(config: ml_collections.ConfigDict) -> store.Values:
    step = Step(config)
    program, (state, monitor), inputs = step.lowered.compile(), step.first(), (step.batch(), *step.inputs())
    for _ in range(WARM_UP):
        state, monitor = jax.block_until_ready(program(state, monitor, *inputs))

    seconds, energy = [], hardware.joules()
    while len(seconds) < STEPS[0] or (len(seconds) < STEPS[1] and sum(seconds) < SECONDS):
        began = time.perf_counter()
        state, monitor = jax.block_until_ready(program(state, monitor, *inputs))
        seconds.append(time.perf_counter() - began)
    spent = None if energy is None else (hardware.joules() - energy) / len(seconds)

    low, median, high = np.percentile(seconds, [25, 50, 75])
    return {
        "step_seconds": float(median),
        "step_quartiles": [float(low), float(high)],
        "steps": len(seconds),
        "peak_bytes": hardware.peak_bytes(),
        "joules": spent,
        "multiply_rate": hardware.multiply_rate(config.model.dtype, config.model.precision),
    }


def _sample(config: ml_collections.ConfigDict) -> store.Values:
    step = build.train_step(config)
    shape, size = data.shape(config.data), config.eval.batch_size
    net = BoundNet(step.model, step.init(stream_key(config.seed, Stream.PARAMETERS), shape).params)
    plan = generate.Plan(shape, sampling.Sampler(objectives.make("sgflow")), SAMPLE_CALLS, config.seed, size)
    examples = functools.partial(generate.examples, net, plan)
    examples(size)

    began = time.perf_counter()
    examples(SAMPLE_BATCHES * size)
    return {"calls_per_second": SAMPLE_BATCHES * size * SAMPLE_CALLS / (time.perf_counter() - began), "at_once": size}


_MEASURES = {"count": _count, "compile": _compile, "run": _run, "sample": _sample}


def measure(settings: store.Settings) -> store.Values:
    """Measures one stage of one row. Running out of device memory is a result too."""
    here = jax.devices()[0].device_kind, jax.__version__
    if settings["stage"] != "count" and (settings["device"], settings["jax"]) != here:
        row, found = (f"{device} with jax {jax}" for device, jax in ((settings["device"], settings["jax"]), here))
        raise InputError(f"--row is for {row}, but this is {found}: remove --row")
    if settings["stage"] != "count" and jax.device_count() > 1:
        raise InputError(f"costs are measured on one device, found {jax.device_count()}: set CUDA_VISIBLE_DEVICES=0")
    config = config_of(settings)
    try:
        return _MEASURES[settings["stage"]](config)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"fault": "out of memory"}


def wanted(given: flags.FlagValues) -> list[store.Settings]:
    """The settings of all requested rows, stage by stage, the baseline first. InputError for an invalid one."""
    config, _ = automatic.resolved(given.config)
    data_set = config.data.name + f"@{config.data.size}" * bool(config.data.size)
    data_set += f":{config.data.dir}" * bool(config.data.dir)
    network = {k: v for k, v in config.model.to_dict().items() if k not in ("dtype", "remat")}
    names = variants.from_flag(given.objectives) or [variant.name for variant in variants.own()]
    parts = cli.integers("microbatches", given.microbatches, 1)
    if not given.stages or not set(given.stages) <= set(STAGES):
        raise InputError(f"--stages={','.join(given.stages)}: use some of {','.join(STAGES)}")
    asked = [cost_table.BASELINE] + [(name, remat, count) for name in names for remat in given.remat for count in parts]
    # Counted values do not depend on microbatches. Those without remat are needed for the utilisation.
    counted = [(name, remat, 1) for name, last, _ in asked for remat in ("none", last)]
    settings = []
    for stage in (stage for stage in STAGES if stage in given.stages):
        for dtype in given.dtypes:
            for name, remat, count in counted if stage == "count" else asked:
                row = {
                    "objective": name,
                    "remat": remat,
                    "dtype": dtype,
                    "batch_size": config.data.batch_size,
                    "microbatches": count,
                    "eval_batch_size": config.eval.batch_size if stage == "sample" else 1,  # others do not use it
                    "stage": stage,
                    "data": data_set,
                    "network": json.dumps(network, sort_keys=True),
                    "device": "any" if stage == "count" else _device(),
                    "jax": jax.__version__,
                }
                config_of(row)
                settings.append(row)
    return [row for place, row in enumerate(settings) if row not in settings[:place]]


def _device() -> str:
    return jax.devices()[0].device_kind


def define_flags() -> None:
    cli.define_config("FILE.py: the network and the batch size.", "configs/cifar10.py")
    store.define_flags("runs/cost")
    flags.DEFINE_list("stages", ["count"], "What to measure: some of count, compile, run and sample.")
    flags.DEFINE_list("objectives", [], "Objectives or variants like 'psd(split=uniform)'; all by default.")
    flags.DEFINE_list("remat", ["none"], "What the backward pass recomputes: some of none, elementwise and block.")
    flags.DEFINE_list("dtypes", ["float32"], "Types of the computation: float32, bfloat16 or both.")
    flags.DEFINE_list("microbatches", ["1"], "Numbers of parts a batch is split into.")
    cli.define_path("doc", None, "Document to put the table into.")
    flags.DEFINE_string("section", "cost", "Name of the place in the document.")


def main(_):
    given = flags.FLAGS
    cli.start_jax(alone=True)
    place = document.Place(Path(given.doc), f"python -m eval.cost: {given.section}") if given.doc else None
    out = Path(given.out)
    # The compiler of a GPU times kernels to choose among them.
    alone = (*TIMED, "compile") if jax.default_backend() == "gpu" else TIMED
    found = store.from_command(
        "eval.cost", SETTINGS, lambda: wanted(given), measure, alone=lambda row: row["stage"] in alone
    )
    if found is None:
        return
    # Includes the rows of earlier calls.
    here = [row for row in store.Store(out).every() if row["device"] in ("any", _device())]
    merged = cost_table.summary(here)
    table = cost_table.markdown(merged)
    terminal.say(table)
    disk.write_atomically(out / "cost.json", json.dumps(merged, indent=1) + "\n")
    disk.write_atomically(out / "cost.md", table)
    disk.write_atomically(out / "cost.png", plots.cost(merged))
    if place is not None:
        place.fill(table)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
