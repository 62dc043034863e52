"""--mode=import: makes a run's directory of a file of weights."""

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from clu import parameter_overview
from flax import traverse_util

from sgflow_jax import build, data, models, preparation
from sgflow_jax.config import automatic, fields
from sgflow_jax.config.check import check_config, check_fields, completed
from sgflow_jax.devices import provenance
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import classes, layout, record
from sgflow_jax.run.checkpoint import Checkpoints
from sgflow_jax.run.integrity import Saved
from sgflow_jax.run.metric_log import MetricLog
from sgflow_jax.weights import released, tensor_file
from sgflow_jax.weights.tensor_file import TensorFile

KEY = "sgflow_jax"  # of the metadata of our own files: JSON, see `export_run`
FORMAT = 1  # of that
# By the height, width and channels of a network's images: the data set that a run has unless --config names one.
_DATA = {(32, 32, 3): "cifar10"}
_COUNTS = ("depth", "num_blocks")  # options that say how many layers a network has


class Imported(NamedTuple):
    """A run to write. data: identity of the training data, {} if the file does not tell. facts: for events.jsonl."""

    config: ml_collections.ConfigDict
    data: dict[str, Any]
    step: int
    params: Any
    average: Any
    facts: dict[str, Any]


def import_weights(
    file: str, workdir: str, config: ml_collections.ConfigDict | None = None, average: str | None = None
) -> None:
    """Writes the directory of a run whose only checkpoint has the network of a file.

    file: of PyTorch, a pickle of EDM, or .safetensors, see docs/weights.md. config: the data, and the optimiser of a
    training that begins with this network; the network and the objective follow from the file. By default, that of the
    file, or the defaults with the data set that images of this size suggest. average: see `released.recognised`.
    InputError, before anything is written, for any fault; if the directory has a run; or if it cannot be written.
    """
    layout.check_places(workdir)
    if os.path.isdir(workdir) and (there := sorted(os.listdir(workdir))):
        raise InputError(f"--workdir={workdir} has files already ({there[0]:.40}): use another, nothing is overwritten")
    _write(workdir, file, _read(file, config, average))


def _read(file: str, config: ml_collections.ConfigDict | None, average: str | None) -> Imported:
    options = _kept(config)
    if Path(file).suffix != tensor_file.SUFFIX:
        return _with_config(released.of_torch(file, average, options), file, config)
    with TensorFile(file) as opened:
        if KEY not in opened.texts:
            return _with_config(released.of_tensors(file, opened, average, options), file, config)
        if config is not None or average is not None:
            raise InputError(f"{file} has its own configuration and one network: leave out --config and --average")
        return _own(file, opened)


def _kept(config: ml_collections.ConfigDict | None) -> dict[str, Any]:
    """The options of the configured network that a file cannot tell, if it is of the same kind."""
    if config is None or config.model.name != released.NETWORK:
        return {}
    return {name: config.model[name] for name in ("dropout", "dtype", "precision", "remat")}


def _with_config(found: released.Released, file: str, given: ml_collections.ConfigDict | None) -> Imported:
    """The configuration of a run with a network of another project."""
    objective = "flow_matching" if found.denoiser else "mean_flow"
    config = fields.get_config(objective) if given is None else given.copy_and_resolve_references().unlock()
    height, width, channels = found.shape
    what = f"{file} makes images of {height} x {width} pixels with {channels} channel(s)"
    if given is None:
        if found.shape not in _DATA:
            raise InputError(
                f"{what}: give --config=FILE.py with such data, like --config=configs/cifar10.py "
                f"--config.data.size={height}"
            )
        config.data.name = _DATA[found.shape]
    elif config.objective.name != objective:
        config.objective = fields.get_config(objective).objective
    if (shape := data.shape(config.data)) != found.shape:
        raise InputError(f"{what}, but config.data makes {shape}: set config.data.size={height}, or use other data")
    config.model = ml_collections.ConfigDict(found.model)
    config.train.num_steps = max(config.train.num_steps, found.step)
    config, _ = automatic.resolved(config.lock())
    check_config(config)
    config = preparation.filled_in(config, Saved())
    return Imported(config, {}, found.step, found.params, found.average, found.facts)


def _own(file: str, opened: TensorFile) -> Imported:
    """The run that `export_run` wrote to a file."""
    try:
        facts = disk.from_json(opened.texts[KEY])
        version, step, identity, parameters = (facts[name] for name in ("format", "step", "data", "parameters"))
        if version != FORMAT:
            raise InputError(f"its format is {version!r:.20}, and this version reads {FORMAT}: use another version")
        config = completed(facts["config"]).lock()
        check_fields(config)
        if type(step) is not int or not 1 <= step <= config.train.num_steps or not isinstance(identity, dict | None):
            raise ValueError(f"step {step!r:.20}")
        if any(config.model.get(name, 0) > len(opened.shapes) for name in _COUNTS):
            raise ValueError("more layers than arrays")
        model, shape = models.make(**config.model), data.shape(config.data)
        build.objective(config)
        model.check(shape)
        classes.of_identity(identity)
        expected = {".".join(path): leaf for path, leaf in released.shapes(model, shape).items()}
    except InputError as error:
        raise InputError(f"{file} cannot be imported: {error}") from error
    except Exception as error:  # the text may be any JSON
        raise InputError(
            f"{file} has a damaged configuration ({' '.join(f'{type(error).__name__}: {error}'.split()):.100}): "
            "export it again"
        ) from error
    for name in sorted(expected.keys() ^ opened.shapes.keys()):
        fault = "lacks the array" if name in expected else "has the unknown array"
        raise InputError(f"{file} {fault} {name!r:.80}: export it again")
    arrays = {}
    for name, right in expected.items():
        arrays[name] = array = opened.array(name)
        if array.shape != right or array.dtype != np.float32:
            kinds = f"{array.dtype} {array.shape}, not float32 {right}"
            raise InputError(f"{file} has the array {name} of {kinds}: export it again")
    params = traverse_util.unflatten_dict({tuple(name.split(".")): array for name, array in arrays.items()})
    return Imported(config, identity or {}, step, params, params, {"parameters": parameters})


def _write(workdir: str, file: str, imported: Imported) -> None:
    config, step = imported.config, imported.step
    step_fn = build.train_step(config)
    begun = step_fn.begin(imported.params, imported.average)
    state = begun.replace(step=jnp.asarray(step, jnp.int32))
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), state)
    monitor = step_fn.init_monitor(data.batch_like(config.data, config.data.batch_size), like)
    sha256 = _sha256(file)
    kept = config.train.keep_checkpoints, config.train.keep_every
    with _whole(workdir) as place:
        record.record(place, config)
        with MetricLog(place, step, config.train.num_steps) as log:
            log.describe(config, parameter_overview.get_parameter_overview(imported.params, include_stats=False))
            with Checkpoints(place, *kept) as checkpoints:
                checkpoints.save(step, state, monitor, config, imported.data)
                if fault := checkpoints.write_fault(wait=True):
                    raise InputError(f"--workdir={workdir} cannot be written ({fault}): free some space")
            network = f"{config.model.name}, {sum(a.size for a in jax.tree.leaves(imported.params)):,} parameters"
            log.event(
                "import",
                step,
                f"imported {file} to {workdir}: {network}, objective {config.objective.name}, step {step:,}",
                file=str(Path(file).absolute()),
                sha256=sha256,
                layout=imported.facts,
                **provenance.describe(sys.argv),
            )


@contextlib.contextmanager
def _whole(workdir: str) -> Iterator[str]:
    """A directory beside `workdir` to write to; it gets that name at the end, so that nothing is half-written."""
    target = Path(workdir).absolute()
    place = target.with_name(f"{target.name}.part-{os.getpid()}")
    disk.make_directory(place)
    try:
        yield str(place)
        os.replace(place, target)  # also over an empty directory
    except OSError as error:
        raise InputError(f"--workdir={workdir} cannot be written ({error.strerror}): use a new directory") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _sha256(file: str) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
