"""Train, or sample from a trained run; import and export weights.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart
    python main.py --workdir=runs/quickstart --mode=sample --steps=1,4 --out=samples.npz

A run that was stopped continues with its --workdir alone. An installed package calls this command sgflow-train. See
README.md, and docs/weights.md for the last two modes.
"""

import functools

from absl import flags

from sgflow_jax import cli, terminal
from sgflow_jax.interfaces import MAX_SAMPLES, MAX_SEED, InputError

MODES = ("train", "sample", "import", "export")


def define_flags() -> None:
    cli.define_config(
        "FILE.py[:OBJECTIVE], like configs/cifar10.py:mean_flow; --config.FIELD=VALUE changes any field of it. By "
        "default, the configuration of the run in --workdir.",
        of_run=True,
    )
    cli.define_run("workdir", "Directory of the run.")
    flags.DEFINE_enum(
        "mode",
        "train",
        MODES,
        "What to do. export takes the options of sample that choose the network, and for a sampler its steps.",
    )
    cli.define_path("weights", None, "import: the file to read, of PyTorch, EDM or safetensors; see docs/weights.md.")
    flags.DEFINE_string(
        "average", None, "import: which network becomes the averaged one; by default net_ema1 or ema_model."
    )
    flags.DEFINE_bool(
        "dry_run", False, "train: check everything, print the configuration and the cost of a step, and stop."
    )
    cli.define_output(
        "out",
        "sample: the .npz file to write, and a picture, NAME.png, beside it; or a directory for PNG files, with a "
        "slash at its end: DIR/. export: the file, NAME.safetensors (parameters) or NAME.stablehlo (a sampler).",
    )
    flags.DEFINE_integer("num_samples", 64, "sample: examples for each number of steps.", 1, MAX_SAMPLES)
    flags.DEFINE_list(
        "steps",
        None,
        "sample: numbers of steps (network calls); by default those of 1,2,4,10 that the run can take. "
        "export: the one number of a sampler.",
    )
    flags.DEFINE_string("method", None, "sample: flow_map, euler, heun or consistency; by default the objective's own.")
    cli.define_grid("sample: ")
    flags.DEFINE_string(
        "label", None, "sample: classes, by name or number, like cat or 3,5; by default all. They take turns."
    )
    cli.define_guidance("sample: ")
    flags.DEFINE_bool("interpolate", False, "sample: also write NAME_interpolation.png, interpolations between images.")
    flags.DEFINE_integer("seed", 0, "sample: seed of the noise.", 0, MAX_SEED)
    flags.DEFINE_integer("checkpoint", None, "sample: step of the checkpoint; by default the newest.", 1)
    cli.define_parameters("sample: ")


def main(_):
    given = flags.FLAGS
    mode, config, workdir = given.mode, given.config, given.workdir
    if mode == "import":
        cli.require(weights=given.weights, workdir=workdir)
    else:
        cli.require(config=config, workdir=workdir)
    _check_flags(mode)
    cli.start_jax(alone=mode in ("import", "export"), saves=mode == "train")
    if mode == "import":
        from sgflow_jax.weights import import_run

        import_run.import_weights(given.weights, workdir, config, given.average)
    elif mode in ("sample", "export"):
        _write(mode, config, workdir)
    elif given.dry_run:
        from eval.machine import gradient_cost
        from sgflow_jax import build
        from sgflow_jax.config import automatic
        from sgflow_jax.config.check import check_config
        from sgflow_jax.display import dry_run

        whole, _ = automatic.resolved(config)
        check_config(whole)
        terminal.say(dry_run.report(config, workdir, gradient_cost.gradient_cost(whole, build.objective(whole))))
    else:
        from sgflow_jax import trainer

        trainer.train(config, workdir, _make_scorer)


def _check_flags(mode: str) -> None:
    """InputError for a given flag of another mode. The help of such a flag begins with its mode. Exporting takes those
    of sampling, and refuses itself what it cannot use."""
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        meant = flag.help.partition(":")[0]
        others = set(MODES) - {mode} - ({"sample"} if mode == "export" else set())
        if flag.present and meant in others:
            raise InputError(f"--{name} is for --mode={meant}, not --mode={mode}: leave it out, or change --mode")


def _make_scorer(config):
    from eval.scores import while_training

    return while_training.scorer(config)


def _write(mode, config, workdir):
    from sgflow_jax import sample_run

    write = sample_run.sample
    if mode == "export":
        from eval.scores import measured
        from sgflow_jax.weights import export_run

        write = functools.partial(export_run.export, measured=measured.table)

    given = flags.FLAGS
    cli.require(out=given.out)
    request = sample_run.Request(
        calls=cli.integers("steps", given.steps, least=1),
        num_samples=given.num_samples,
        method=given.method,
        seed=given.seed,
        grid=cli.grid(),
        interpolate=given.interpolate,
        checkpoint=given.checkpoint,
        parameters=given.parameters,
        label=given.label,
        guidance=cli.guidance(),
    )
    for line in write(workdir, config, given.out, request):
        terminal.say(line)
