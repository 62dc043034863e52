"""Train, or sample from a trained run. See README.md."""

from sgflow_jax import terminal

if __name__ == "__main__":
    terminal.begin()  # before the other imports, which take seconds

from absl import flags

from sgflow_jax import cli
from sgflow_jax.interfaces import MAX_SAMPLES, MAX_SEED

_CONFIG = cli.define_config("FILE.py[:OBJECTIVE], like configs/cifar10.py:mean_flow.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "sample"], "What to do.")
_OUT = flags.DEFINE_string("out", None, "sample: the .npz file to write; a picture, NAME.png, comes beside it.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 64, "sample: examples for each number of steps.", 1, MAX_SAMPLES)
_STEPS = flags.DEFINE_list("steps", None, "sample: numbers of steps (network calls); by default of 1,2,4,10.")
_METHOD = flags.DEFINE_string(
    "method", None, "sample: flow_map, euler, heun or consistency; the objective's own by default."
)
_GRID = flags.DEFINE_string("grid", "uniform", "sample: times of the steps: uniform, quadratic or cosine.")
_INTERPOLATE = flags.DEFINE_bool("interpolate", False, "sample: also NAME_interpolation.png, between images.")
_SEED = flags.DEFINE_integer("seed", 0, "sample: seed of the noise.", 0, MAX_SEED)


def main(_):
    cli.require(config=_CONFIG.value, workdir=_WORKDIR.value)
    if _MODE.value == "train":
        from sgflow_jax import trainer

        cli.start_jax(saves=True)
        trainer.train(_CONFIG.value, _WORKDIR.value)
        return

    from sgflow_jax import sample_run

    cli.require(out=_OUT.value)
    cli.start_jax()
    sample_run.sample(
        _WORKDIR.value,
        _CONFIG.value,
        _OUT.value,
        sample_run.Request(
            steps=cli.integers("steps", _STEPS.value, least=1),
            num_samples=_NUM_SAMPLES.value,
            method=_METHOD.value,
            seed=_SEED.value,
            grid=_GRID.value,
            interpolate=_INTERPOLATE.value,
        ),
    )


if __name__ == "__main__":
    cli.run(main)
