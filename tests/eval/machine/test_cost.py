"""The command that measures cost, and, without a clock, the operations and memory of every objective."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from configs import base, mixture1d, quickstart
from eval import cost, scaling
from eval.machine import cost_table, gradient_cost, hardware
from eval.machine.ready_step import Step
from eval.tables import variants
from sgflow_jax import objectives
from sgflow_jax.interfaces import InputError
from tests import own_images, tiny
from tests.commands import ROOT

ROW = {
    "objective": "flow_matching",
    "remat": "none",
    "microbatches": 1,
    "dtype": "float32",
    "batch_size": 8,
    "data": "digits",
    "network": "{}",
    "jax": "0",
    "eval_batch_size": 64,
}


def _row(**values):
    return {**ROW, "device": "gpu", **values}


def test_a_row_s_remat_reaches_every_network_for_images():
    for model in (base.unet(), base.song_unet()):
        model.channels, model.channel_mult, model.attention_sizes = 8, (1, 2), ()
        network = {k: v for k, v in model.to_dict().items() if k not in ("dtype", "remat")}
        row = {**ROW, "network": json.dumps(network), "remat": "block"}
        assert cost.config_of(row).model.remat == "block"


def test_a_row_reads_own_images_and_their_classes(tmp_path):
    folder = own_images.numbered(tmp_path, ["cats/1.png", "cats/2.png", "dogs/1.png"])
    model = base.unet()
    model.channels, model.channel_mult, model.attention_sizes, model.num_classes = 8, (1, 2), (), 2
    config = cost.config_of({**ROW, "network": json.dumps(model.to_dict()), "data": f"images@8:{folder}"})
    assert (config.data.size, config.data.dir) == (8, str(folder))


def test_stages_are_joined_and_compared_with_flow_matching_by_hand():
    buffers = {"argument_bytes": 100, "output_bytes": 90, "alias_bytes": 80, "temp_bytes": 50}
    run = {"stage": "run", "peak_bytes": 40, "multiply_rate": 1000.0, "step_quartiles": [0.4, 0.6]}
    found = [
        _row(stage="count", flops=100.0, residual_bytes=10),
        _row(stage="count", flops=200.0, residual_bytes=30, objective="sgflow"),
        _row(stage="count", flops=240.0, residual_bytes=5, objective="sgflow", remat="block"),
        _row(stage="compile", **buffers),
        _row(step_seconds=0.5, **run),
        _row(step_seconds=1.5, objective="sgflow", remat="block", microbatches=2, **{**run, "peak_bytes": 60}),
        _row(step_seconds=9.0, dtype="bfloat16", **run),
    ]
    merged = cost_table.summary(found)
    by_name = {(row["objective"], row["remat"], row["dtype"], row["microbatches"]): row for row in merged}
    assert len(by_name) == len(merged) == 5
    base = by_name["flow_matching", "none", "float32", 1]
    assert (base["reserved_bytes"], base["images_per_second"], base["utilisation"]) == (160, 16, 0.2)
    ours = by_name["sgflow", "block", "float32", 2]
    expected = {"flops": 2.4, "residual_bytes": 0.5, "step_seconds": 3.0, "peak_bytes": 1.5}
    assert ours["relative"] == expected
    assert ours["utilisation"] == pytest.approx(200 / 1.5 / 1000)  # recomputation does not count
    assert by_name["flow_matching", "none", "bfloat16", 1]["relative"] == {"step_seconds": 1.0, "peak_bytes": 1.0}


@pytest.mark.slow
def test_the_command_measures_what_is_missing_on_a_cpu(tmp_path):
    config = [
        "--config=configs/mixture1d.py",
        "--config.model.width=8",
        "--config.data.batch_size=8",
    ]
    command = [sys.executable, "-m", "eval.cost", *config, f"--out={tmp_path}", "--stages=count,compile,run"]
    command += ["--objectives=mean_flow", f"--doc={tmp_path / 'page.md'}", "--section=here"]
    page = "before\n<!-- python -m eval.cost: here: begin -->\n<!-- python -m eval.cost: here: end -->\n"
    (tmp_path / "page.md").write_text(page)
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    table = (tmp_path / "cost.md").read_text()
    assert table in (tmp_path / "page.md").read_text()
    rows = {row["objective"]: row for row in json.loads((tmp_path / "cost.json").read_text())}
    assert set(rows) == {"flow_matching", "mean_flow"} and (tmp_path / "cost.png").exists()
    for row in rows.values():
        assert row["flops"] > 0 and row["temp_bytes"] > 0 and row["steps"] >= 5 and row["images_per_second"] > 0
        low, high = row["step_quartiles"]
        assert low <= row["step_seconds"] <= high and 0 < row["utilisation"] < 1
        assert row["peak_bytes"] is None and row["joules"] is None  # a CPU reports neither
    assert rows["mean_flow"]["relative"]["flops"] > 1.1
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "rows").iterdir()}
    assert len(files) == 6
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "rows").iterdir()} == files
    assert table in again.stdout


def test_a_row_of_another_device_is_rejected():
    with pytest.raises(InputError, match="abacus with jax 0"):
        cost.measure({**ROW, "stage": "run", "device": "abacus"})


def test_running_out_of_memory_is_a_result(monkeypatch):
    def full(config):
        raise jax.errors.JaxRuntimeError(f"{fault}: Out of memory allocating 1 bytes")

    monkeypatch.setitem(cost._MEASURES, "count", full)
    network = {k: v for k, v in tiny.digits().model.to_dict().items() if k not in ("dtype", "remat")}
    settings = {**ROW, "eval_batch_size": 1, "stage": "count", "network": json.dumps(network)}
    fault = "RESOURCE_EXHAUSTED"
    row = cost.measure(settings)
    assert "| out of memory |" in cost_table.markdown(cost_table.summary([{**settings, "device": "any", **row}]))
    fault = "INTERNAL"
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        cost.measure(settings)


def test_rate_of_matrix_products():
    assert 1e8 < hardware.multiply_rate("float32", "highest") < 1e13  # of any CPU


# Ratios to flow matching, by network. Those of the mlp were made by
#   python -m eval.cost --config=configs/mixture1d.py --config.data.batch_size=16 --out=DIR
# and those of the unet, the only network with remat but ten times slower to count, by
#   python -m eval.cost --config=configs/quickstart.py --config.model.channels=8 --config.model.channel_mult='(1,)'
#     --config.model.attention_sizes='(8,)' --config.data.batch_size=16 --out=DIR --remat=elementwise,block
#     --objectives='flow_matching,sgflow(estimator=split),sgflow,sgflow(tangents=vmap)'
COMMITTED = json.loads((Path(__file__).parent / "cost.json").read_text())


@functools.cache
def _counted(network, objective, remat):
    variant = variants.parse(objective)
    config = (mixture1d if network == "mlp" else quickstart).get_config(variant.objective)
    config.data.batch_size = 16
    if network == "unet":
        config.model.channels, config.model.channel_mult, config.model.attention_sizes = 8, (1,), (8,)
        config.model.remat = remat
    return gradient_cost.gradient_cost(config, variant.make())


def _ratios(network, name):
    base, found = _counted(network, "flow_matching", "none"), _counted(network, *name.split(", "))
    return {"flops": found.flops / base.flops, "residual_bytes": found.residual_bytes / base.residual_bytes}


def _case(network, name):
    is_slow = network == "unet" and name != "sgflow, elementwise"  # the default of configs/cifar10.py stays quick
    return pytest.param(network, name, marks=[pytest.mark.slow] * is_slow)


@pytest.mark.parametrize(
    "network, name", [_case(network, name) for network, names in COMMITTED.items() for name in names]
)
def test_operations_and_memory_relative_to_flow_matching_are_those_committed(network, name):
    """Within 5 %. A change that moves a cost must update cost.json."""
    assert _ratios(network, name) == pytest.approx(COMMITTED[network][name], rel=0.05)


def test_a_teacher_is_counted():
    config = mixture1d.get_config("consistency")
    objective = objectives.make(**config.objective)
    own = gradient_cost.gradient_cost(config, objective).flops
    config.teacher.workdir = "runs/teacher"
    assert 1.1 * own < gradient_cost.gradient_cost(config, objective).flops < 2 * own


def test_every_objective_has_a_committed_cost():
    assert {f"{variant.name}, none" for variant in variants.own()} <= set(COMMITTED["mlp"])


def test_a_step_updates_its_state_in_place():
    """No second copy of parameters, average or optimiser state."""
    step = Step(tiny.mixture())
    memory = step.lowered.compile().memory_analysis()
    assert memory.alias_size_in_bytes >= scaling.bytes_per_device(step.like)
