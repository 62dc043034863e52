"""Imports run one way: each module imports only from those before it in the list."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent

ORDER = """
sgflow_jax.interfaces
sgflow_jax.interpolant
sgflow_jax.times
sgflow_jax.flow_map
sgflow_jax.oracles.runge_kutta
sgflow_jax.oracles.base
sgflow_jax.oracles.gaussian
sgflow_jax.oracles.mixture
sgflow_jax.oracles
sgflow_jax.models.embeddings
sgflow_jax.models.mlp
sgflow_jax.models.unet
sgflow_jax.models
sgflow_jax.objectives.base
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
sgflow_jax.processes
sgflow_jax.sharding
sgflow_jax.ahead
sgflow_jax.data.source
sgflow_jax.data.prepared
sgflow_jax.data.memory
sgflow_jax.data.points
sgflow_jax.data.records
sgflow_jax.data
sgflow_jax.guard
sgflow_jax.train_step
sgflow_jax.workdir
sgflow_jax.integrity
sgflow_jax.checkpoint
configs
configs.base
sgflow_jax.config_fields
sgflow_jax.build
sgflow_jax.generate
sgflow_jax.figures
sgflow_jax.tensorboard
sgflow_jax.metric_log
sgflow_jax.preemption
sgflow_jax.profile_steps
sgflow_jax.resume
sgflow_jax.trainer
sgflow_jax.sample_run
sgflow_jax.config_flag
sgflow_jax.cli
configs.cifar10
configs.imagenet64
configs.imagenet32
configs.quickstart
configs.toy2d
configs.mixture1d
eval
eval.rows
eval.document
eval.background
eval.progress
eval.features.interface
eval.features.pixels
eval.features.resize
eval.features.torch_file
eval.features.download
eval.features.network
eval.features.weights
eval.features.inception
eval.features.efficientnet
eval.features.classifier
eval.features
eval.real
eval.frechet
eval.kernel
eval.manifold
eval.results
eval.measure
eval.selfcheck
eval.reference
eval.plots
eval.labels
eval.summary
eval.measuring
eval.fid_sweep
eval.runs
eval.neighbours
eval.gallery
eval.embed
eval.map_error
eval.variants
eval.stationarity
eval.toy_table
eval.ablations
eval.counts
eval.steps
eval.hardware
eval.cost_table
eval.cost
eval.precision
eval.scaling
eval.trace
eval.profile
eval.training_section
eval.report
eval.table1
main
""".split()


# All that comes before the optimiser.
MATHEMATICS = ORDER[: ORDER.index("sgflow_jax.optim")]


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _modules() -> dict[str, Path]:
    files = [ROOT / "main.py", *(f for d in ("sgflow_jax", "configs", "eval") for f in (ROOT / d).rglob("*.py"))]
    return {_name(f): f for f in files}


def _imports(path: Path, known: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else node.module)
    return found & known


def test_every_module_has_its_place():
    assert set(_modules()) - {"sgflow_jax"} == set(ORDER)


def test_imports_run_one_way():
    modules = _modules()
    for position, name in enumerate(ORDER):
        later = _imports(modules[name], set(modules)) & set(ORDER[position:])
        assert not later, f"{name} imports {later}, which come after it"


def test_only_flow_map_differentiates_along_tangents():
    for name, path in _modules().items():
        calls = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert name == "sgflow_jax.flow_map" or not calls & {"jvp", "linearize"}, name


def test_the_mathematics_reads_no_flag_file_or_device():
    forbidden = {"absl", "ml_collections", "os", "pathlib", "orbax"}
    for name, path in _modules().items():
        if name in MATHEMATICS:
            tree = ast.walk(ast.parse(path.read_text()))
            heads = {
                (n.module if isinstance(n, ast.ImportFrom) else n.names[0].name).split(".")[0]
                for n in tree
                if isinstance(n, ast.Import | ast.ImportFrom)
            }
            assert not heads & forbidden, name
