"""Imports run one way: each module imports only modules listed before it."""

import ast
from pathlib import Path

from tests.commands import ROOT

ORDER = """
sgflow_jax.interfaces
sgflow_jax.interpolant
sgflow_jax.times
sgflow_jax.flow_map
sgflow_jax.guidance
sgflow_jax.oracles.runge_kutta
sgflow_jax.oracles.base
sgflow_jax.oracles.gaussian
sgflow_jax.oracles.mixture
sgflow_jax.oracles.labelled
sgflow_jax.oracles
sgflow_jax.models.embeddings
sgflow_jax.models.levels
sgflow_jax.models.mlp
sgflow_jax.models.unet
sgflow_jax.models.edm
sgflow_jax.models.song_names
sgflow_jax.models.song_unet
sgflow_jax.models
sgflow_jax.models.trained
sgflow_jax.objectives.base
sgflow_jax.objectives.flow_map_objective
sgflow_jax.objectives.consistency
sgflow_jax.objectives.ctm
sgflow_jax.objectives.eulerian
sgflow_jax.objectives.flow_matching
sgflow_jax.objectives.fmm
sgflow_jax.objectives.lagrangian
sgflow_jax.objectives.mean_flow
sgflow_jax.objectives.progressive
sgflow_jax.objectives.sgflow
sgflow_jax.objectives.shortcut
sgflow_jax.objectives
sgflow_jax.sampling
sgflow_jax.optim
sgflow_jax.terminal
sgflow_jax.files
sgflow_jax.files.disk
sgflow_jax.files.locks
sgflow_jax.files.places
sgflow_jax.devices
sgflow_jax.devices.fetch
sgflow_jax.devices.provenance
sgflow_jax.devices.processes
sgflow_jax.devices.sharding
sgflow_jax.data.augmentation
sgflow_jax.data.fingerprint
sgflow_jax.data.origin
sgflow_jax.data.arrays
sgflow_jax.data.folder
sgflow_jax.data.pictures
sgflow_jax.data.decoding
sgflow_jax.data.prepared
sgflow_jax.data.shards
sgflow_jax.data.preparing
sgflow_jax.data.source
sgflow_jax.data.memory
sgflow_jax.data.points
sgflow_jax.data.records
sgflow_jax.data.own
sgflow_jax.data.unaltered
sgflow_jax.data
sgflow_jax.guard
sgflow_jax.train_step
sgflow_jax.config
sgflow_jax.config.fields
sgflow_jax.config.check
sgflow_jax.config.automatic
sgflow_jax.config.help
sgflow_jax.run
sgflow_jax.run.layout
sgflow_jax.run.history
sgflow_jax.run.integrity
sgflow_jax.run.ownership
sgflow_jax.run.checkpoint
sgflow_jax.run.preemption
sgflow_jax.run.record
sgflow_jax.run.classes
sgflow_jax.run.access
sgflow_jax.config.flag
sgflow_jax.run.due
sgflow_jax.run.step_trace
sgflow_jax.run.stopwatch
sgflow_jax.run.mirror
sgflow_jax.run.tensorboard
sgflow_jax.run.weights_and_biases
sgflow_jax.build
sgflow_jax.generate
sgflow_jax.labels
sgflow_jax.run_sampler
sgflow_jax.display
sgflow_jax.display.figures
sgflow_jax.run.metric_log
sgflow_jax.display.phase
sgflow_jax.display.preview
sgflow_jax.beginning
sgflow_jax.in_memory
sgflow_jax.preparation
sgflow_jax.display.banner
sgflow_jax.display.dry_run
sgflow_jax.trainer
sgflow_jax.sample_files
sgflow_jax.sample_run
sgflow_jax.weights
sgflow_jax.weights.torch_pickle
sgflow_jax.weights.torch_file
sgflow_jax.weights.tensor_file
sgflow_jax.weights.released
sgflow_jax.weights.import_run
sgflow_jax.weights.program
sgflow_jax.weights.card
sgflow_jax.weights.export_run
sgflow_jax.cli
configs
configs.base
configs.cifar10
configs.cifar8
configs.images
configs.imagenet32
configs.imagenet64
configs.quickstart
configs.toy2d
configs.mixture1d
configs.published
configs.published.mean_flow_cifar10
configs.published.mean_flow_cifar10_v0
configs.published.sgflow_cifar10
configs.published.lsd_cifar10
configs.published.psd_cifar10
configs.published.ict_cifar10
configs.published.flow_matching_cifar10
configs.published.edm_cifar10
eval.tables
eval.tables.document
eval.tables.runs
eval.tables.speed
eval.tables.store
eval.tables.variants
eval.features.download
eval.features.interface
eval.features.network
eval.features.pixels
eval.features.resize
eval.features.weights
eval.features.efficientnet_lite0
eval.features.inception
eval.frechet
eval.figure
eval.scores
eval.scores.background
eval.scores.kernel
eval.scores.labels
eval.scores.manifold
eval.scores.own_place
eval.scores.progress
eval.features.classifier
eval.features
eval.scores.moments
eval.scores.real
eval.scores.identity
eval.scores.results
eval.scores.seeds
eval.scores.measured
eval.scores.given
eval.scores.class_names
eval.scores.training_data
eval.scores.measure
eval.scores.plots
eval.scores.selfcheck
eval.exact
eval.exact.controls
eval.exact.audit
eval.exact.errors
eval.exact.line
eval.exact.method_plots
eval.exact.plots
eval.exact.toy_runs
eval.machine
eval.machine.gradient_cost
eval.machine.cost_table
eval.machine.hardware
eval.machine.plots
eval.machine.ready_step
eval.machine.trace
eval.page
eval.page.runs
eval.page.neighbours
eval.page.classes_section
eval.page.gallery
eval.page.embed
eval.page.training_section
eval
eval.cost
eval.map_error
eval.method_figures
eval.profile
eval.reference
eval.scores.summary
eval.scores.measuring
eval.scores.while_training
eval.fid_sweep
eval.score
eval.ablations
eval.report
eval.comparison
eval.comparison.budget
eval.comparison.statistics
eval.comparison.summary
eval.comparison.floor
eval.comparison.plots
eval.comparison.sweeps
eval.comparison.training
eval.compare
eval.rounding
eval.scaling
eval.stationarity
eval.table1
eval.toy_table
sgflow_jax.main
sgflow_jax.commands
main
""".split()


MATHEMATICS = ORDER[: ORDER.index("sgflow_jax.optim")]


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = [ROOT / "main.py", *(file for d in ("sgflow_jax", "configs", "eval") for file in (ROOT / d).rglob("*.py"))]
NODES = {_name(file): list(ast.walk(ast.parse(file.read_text()))) for file in FILES}


def _imports(name: str) -> set[str]:
    """The project's modules that a module imports."""
    found = set()
    for node in NODES[name]:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in NODES else node.module)
    return found


def _uses(name: str) -> set[str]:
    """All names and attributes in a module, like print, jvp and sys.stdout."""
    return {ast.unparse(node) for node in NODES[name] if isinstance(node, ast.Name | ast.Attribute)}


def test_every_module_is_listed():
    assert set(NODES) - {"sgflow_jax"} == set(ORDER)


def test_imports_run_one_way():
    for position, name in enumerate(ORDER):
        later = _imports(name) & set(ORDER[position:])
        assert not later, f"{name} imports {later}, listed after it"


def test_only_flow_map_differentiates_along_tangents():
    for name in NODES:
        used = {use.rpartition(".")[2] for use in _uses(name) if "." in use}
        assert name == "sgflow_jax.flow_map" or not used & {"jvp", "linearize"}, name


def test_only_terminal_prints():
    for name in NODES:
        assert name == "sgflow_jax.terminal" or not _uses(name) & {
            "print",
            "tqdm.write",
            "sys.stdout",
            "sys.stderr",
        }, name


def test_the_mathematics_reads_no_flags_files_or_devices():
    for name in MATHEMATICS:
        heads = {imported.partition(".")[0] for imported in _imports(name)}
        assert not heads & {"absl", "ml_collections", "os", "pathlib", "orbax"}, name
