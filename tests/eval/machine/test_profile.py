"""Where the time of a step went: made-up events and programs by hand, and a real step."""

import json
import os
import subprocess
import sys

import jax
import pytest

from eval import profile
from eval.machine import trace
from eval.machine.trace import Event
from sgflow_jax.interfaces import InputError
from tests import tiny
from tests.commands import ROOT

# As XLA writes it. A frame names its caller by the caller's number plus one.
PROGRAM = """
HloModule jit_step, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }

FileNames
1 "train_step.py"

FunctionNames
1 "TrainStep.__call__"
2 "TrainStep.gradient"
3 "update_average"
4 "dropout"

FileLocations
1 {file_name_id=1 function_name_id=1 line=147 end_line=147 column=23 end_column=63}
2 {file_name_id=1 function_name_id=2 line=134 end_line=134 column=33 end_column=101}
3 {file_name_id=1 function_name_id=3 line=10}
4 {file_name_id=1 function_name_id=4 line=10}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=2}
4 {file_location_id=4 parent_frame_id=3}

%sum (x: f32[], y: f32[]) -> f32[] {
  ROOT %add.9 = f32[] add(%x, %y), metadata={op_name="add"}
}

%fused_conv (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  %dot.9 = f32[8,8]{1,0} dot(%p, %p), metadata={op_name="jit(step)/jvp(UNet)/a/conv_general_dilated" stack_frame_id=2}
  %m1 = f32[8]{0} multiply(%dot.9, %p), metadata={op_name="jit(step)/jvp(UNet)/norm_in/mul" stack_frame_id=2}
  ROOT %m2 = f32[8]{0} add(%m1, %p), metadata={op_name="jit(step)/jvp(UNet)/norm_in/add" stack_frame_id=2}
}

%fused_norm (p.1: f32[8,8]) -> f32[8,8] {
  %sub.1 = f32[8]{0} subtract(%p.1, %p.1), metadata={op_name="jit(step)/jvp(UNet)/norm_in/sub" stack_frame_id=2}
  %red.1 = f32[8]{0} reduce(%sub.1), to_apply=%sum, metadata={op_name="jit(step)/jvp(UNet)/norm_in/reduce_sum"}
  ROOT %silu.1 = f32[8]{0} multiply(%red.1, %p.1), metadata={op_name="jit(step)/jvp(UNet)/jit(silu)/mul"}
}

%fused_copy (p.2: f32[8,8]) -> f32[8,8] {
  ROOT %t.1 = f32[8,8]{0,1} transpose(%p.2), dimensions={1,0}, metadata={op_name="jit(step)/jvp(UNet)/norm_in/t"}
}

%body (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  ROOT %xor.1 = u32[8]{0} xor(%b, %b), metadata={op_name="jit(step)/jit(_threefry_split)/while/body/xor"}
}

%small (c: f32[8]) -> f32[8] {
  ROOT %scale.1 = f32[8]{0} multiply(%c, %c), metadata={op_name="jit(step)/mul" stack_frame_id=3}
}

ENTRY %main (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0), metadata={op_name="state.params"}
  %convolution.1 = f32[8,8]{1,0} convolution(%a, %a), metadata={op_name="jit(step)/jvp(UNet)/in/conv_general_dilated"}
  %cudnn.1 = (f32[8,8]{1,0:T(8,128)S(1)}, u8[0]{0}) custom-call(%a), custom_call_target="__cudnn$convBackwardFilter"
  %cublas.1 = (f32[8,8]{1,0}, /*index=1*/s8[9]{0}) custom-call(%a), custom_call_target="__cublas$gemm"
  %fusion.1 = f32[8,8]{1,0} fusion(%a), kind=kCustom, calls=%fused_conv, metadata={op_name="jit(step)/jvp(UNet)/x/add"}
  %fusion.2 = f32[8]{0} fusion(%a), calls=%fused_norm, metadata={op_name="jit(step)/jvp(UNet)/jit(silu)/mul"}
  %fusion.3 = f32[8,8]{0,1} fusion(%a), calls=%fused_copy, metadata={op_name="jit(step)/jvp(UNet)/norm_in/t"}
  %qk.1 = f32[8,8]{1,0} dot(%a, %a), metadata={op_name="jit(step)/jvp(UNet)/middle_attention/query/dot_general"}
  %exp.1 = f32[8]{0} exponential(%a), metadata={op_name="jit(step)/jvp(UNet)/middle_attention/exp"}
  %exp.2 = f32[8]{0} add(%a), metadata={op_name="jit(step)/jvp(UNet)/middle_attention/GroupNorm_0/add"}
  %select.1 = f32[8]{0} select(%a), metadata={op_name="jit(step)/jvp(UNet)/down0_block0/select_n" stack_frame_id=4}
  %silu.2 = f32[8]{0} multiply(%a), metadata={op_name="jit(step)/jvp(UNet)/jit(silu)/mul" stack_frame_id=2}
  %silu.3 = f32[8]{0} multiply(%a), metadata={op_name="jit(step)/mul;jit(step)" stack_frame_id=1}
  %while.1 = (s32[], f32[8]{0}) while(%a), condition=%cond, body=%body, metadata={op_name="jit(step)/while"}
  %call.1 = f32[8]{0} call(%a), to_apply=%small
  %all-reduce.1 = f32[8]{0} all-reduce(%a), channel_id=1, to_apply=%sum, metadata={op_name="jit(step)/psum"}
  ROOT %copy.1 = f32[8,8]{1,0} copy(%a)
}
"""


def _kernels(*events):
    return {kernel.name: kernel for kernel in trace.table([Event(*event) for event in events], PROGRAM).kernels}


@pytest.mark.parametrize(
    "name, category, path",
    [
        ("convolution.1", trace.CONVOLUTIONS, "jvp(UNet)/in/conv_general_dilated"),
        ("cudnn.1", trace.CONVOLUTIONS, ""),
        ("cublas.1", trace.PRODUCTS, ""),
        ("fusion.1", trace.CONVOLUTIONS, "jvp(UNet)/a/conv_general_dilated"),
        ("fusion.2", trace.NORMALISATION, "jvp(UNet)/jit(silu)/mul"),
        ("fusion.3", trace.COPIES, "jvp(UNet)/norm_in/t"),
        ("qk.1", trace.ATTENTION, "jvp(UNet)/middle_attention/query/dot_general"),
        ("exp.1", trace.ATTENTION, "jvp(UNet)/middle_attention/exp"),
        ("exp.2", trace.NORMALISATION, "jvp(UNet)/middle_attention/GroupNorm_0/add"),
        ("select.1", trace.RANDOM, "jvp(UNet)/down0_block0/select_n"),
        ("silu.2", trace.ELEMENTWISE, "jvp(UNet)/jit(silu)/mul"),
        ("silu.3", trace.OPTIMISER, "mul"),
        ("xor.1", trace.RANDOM, "jit(_threefry_split)/while/body/xor"),
        ("call.1", trace.OPTIMISER, "mul"),
        ("all-reduce.1", trace.COPIES, "psum"),
        ("copy.1", trace.COPIES, ""),
        ("MemcpyH2D", trace.COPIES, ""),
        ("some_kernel", trace.UNKNOWN, ""),
    ],
)
def test_category_of_an_instruction(name, category, path):
    kernel = _kernels((name, 5.0, 2.0))[name]
    assert (kernel.category, kernel.path, kernel.nanoseconds, kernel.runs) == (category, path, 2.0, 1)


def test_times_by_hand():
    """Two convolutions with a gap, a multiplication during the second: 10 + 4 alone, and 6 shared."""
    events = [("convolution.1", 0.0, 10.0), ("convolution.1", 20.0, 10.0), ("silu.2", 24.0, 6.0)]
    found = trace.table([Event(*event) for event in events], PROGRAM)
    assert found.busy == 20
    assert [(kernel.name, kernel.nanoseconds, kernel.runs) for kernel in found.kernels] == [
        ("convolution.1", 17.0, 2),
        ("silu.2", 3.0, 1),
    ]
    shares = found.shares()
    assert list(shares) == list(trace.CATEGORIES) and sum(shares.values()) == pytest.approx(1)
    assert shares[trace.CONVOLUTIONS] == pytest.approx(0.85) and shares[trace.ELEMENTWISE] == pytest.approx(0.15)


def test_a_loop_is_not_counted_beside_its_body():
    found = _kernels(("while.1", 0.0, 100.0), ("xor.1", 10.0, 20.0), ("xor.1", 50.0, 20.0))
    assert set(found) == {"xor.1"} and found["xor.1"].nanoseconds == 40
    # Unless its body has no events.
    assert _kernels(("while.1", 0.0, 100.0))["while.1"][2:5] == (trace.RANDOM, "while", 100.0)


def _trace(folder, *planes):
    """Writes a file like the profiler's. planes: (name, {line: [(event, start, duration in ns, stats)]})."""
    text = ""
    for name, lines in planes:
        names = sorted({event for events in lines.values() for event, *_ in events})
        stats = sorted({stat for events in lines.values() for *_, each in events for stat in each})
        inner = ""
        for line, events in lines.items():
            inside = ""
            for event, start, duration, each in events:
                values = "".join(
                    f"stats {{ metadata_id: {stats.index(stat) + 1} "
                    + (f"int64_value: {value} }}" if isinstance(value, int) else f'str_value: "{value}" }}')
                    for stat, value in each.items()
                )
                at = f"offset_ps: {start * 1000} duration_ps: {duration * 1000}"
                inside += f"events {{ metadata_id: {names.index(event) + 1} {at} {values} }}"
            inner += f'lines {{ name: "{line}" {inside} }}'
        for kind, known in (("event_metadata", names), ("stat_metadata", stats)):
            inner += "".join(f'{kind} {{ key: {i} value {{ id: {i} name: "{n}" }} }}' for i, n in enumerate(known, 1))
        text += f'planes {{ name: "{name}" {inner} }}'
    file = folder / "x.xplane.pb"
    file.write_bytes(jax.profiler.ProfileData.text_proto_to_serialized_xspace(text))
    return file


def test_the_events_of_a_cpu(tmp_path):
    """One continues in another thread after its call returns; others belong to another program or device."""
    of = lambda name, **more: {"hlo_op": name, "hlo_module": "jit_step", "device_ordinal": 0} | more  # noqa: E731
    threads = {
        "one": [
            ("conv.1", 10, 5, of("conv.1", _p=7)),
            ("add.1", 20, 5, of("add.1", _p=8)),
            ("end: add.1", 24, 1, {"_c": 8}),
            ("ThunkExecutor::Execute", 5, 90, {}),
            ("add.2", 30, 5, of("add.2", hlo_module="jit_other")),
            ("add.1", 40, 5, of("add.1", device_ordinal=1)),
        ],
        "two": [("end: conv.1", 60, 1, {"_c": 7})],
    }
    assert sorted(trace.read(_trace(tmp_path, ("/host:CPU", threads)), "jit_step")) == [
        ("add.1", 20, 5),
        ("conv.1", 10, 50),
    ]


def test_the_events_of_a_gpu(tmp_path):
    """Kernels of one instruction, of one in a loop and of none. A second device and derived lines are ignored."""
    of = lambda name, module="jit_step": {"hlo_op": name, "hlo_module": module}  # noqa: E731
    kernels = [
        ("void cutlass::kernel", 0, 5, of("cublas.1")),
        ("splitk", 5, 5, of("cublas.1")),
        ("xor_1", 20, 5, of("while.1::xor.1")),
        ("MemcpyH2D", 30, 5, {}),
        ("other", 40, 5, of("add.1", "jit_other")),
    ]
    lines = {"Stream #13(Compute)": kernels, "XLA Modules": [("jit_step", 0, 40, {})]}
    file = _trace(tmp_path, ("/device:GPU:0", lines), ("/device:GPU:1", lines), ("/host:CPU", {"a": [("f", 0, 9, {})]}))
    assert trace.read(file, "jit_step") == [
        ("cublas.1", 0, 5),
        ("cublas.1", 5, 5),
        ("xor.1", 20, 5),
        ("MemcpyH2D", 30, 5),
    ]


@pytest.fixture(scope="module")
def measured():
    config = tiny.digits("flow_matching")
    config.model.attention_sizes = (8,)
    return profile.profile(config, 2)


@pytest.mark.slow
def test_a_real_step(measured):
    row, table = measured
    shares = table.shares()
    assert sum(shares.values()) == pytest.approx(1) and shares[trace.UNKNOWN] == 0
    assert sum(kernel.nanoseconds for kernel in table.kernels) == pytest.approx(table.busy)
    assert all(shares[name] > 0 for name in trace.CATEGORIES[:-1])
    assert 0 < row["busy"] <= 1 and row["step_ms"] > 0 and row["steps"] == 2
    assert table.busy / 1e6 <= row["steps"] * row["traced_step_ms"]
    # Every instruction is seen in both steps.
    assert all(kernel.runs >= 2 and kernel.runs % 2 == 0 for kernel in table.kernels)
    found = {kernel.path for kernel in table.kernels if kernel.category == trace.CONVOLUTIONS}
    assert any("down0_block0/conv_in/conv_general_dilated" in path for path in found)


def test_the_last_dispatch_is_filled():
    config = tiny.mixture()
    config.train.steps_per_dispatch = 2
    row, table = profile.profile(config, 3)
    products = [kernel for kernel in table.kernels if kernel.category == trace.PRODUCTS]
    assert row["steps"] == 4 and products and all(kernel.runs == 4 for kernel in products)


def test_a_profiler_that_records_nothing(monkeypatch):
    monkeypatch.setattr(trace, "read", lambda *_: [])
    with pytest.raises(InputError, match="the profiler recorded no event of the cpu: allow profiling"):
        profile.profile(tiny.mixture(), 1)


@pytest.mark.parametrize("text", ["", "HloModule x\n", PROGRAM.replace("StackFrames", "Frames")])
def test_a_program_in_another_format_is_rejected(text):
    with pytest.raises(InputError, match="trace.py cannot read the programs of jax"):
        trace.module(text)
        trace.table([], text)


@pytest.mark.slow
def test_the_command_needs_no_data(tmp_path):
    out = tmp_path / "out.json"
    small = "--config=configs/cifar10.py:flow_matching --config.model.channels=4 --config.data.batch_size=2"
    less = "--config.model.channel_mult=(1,) --config.model.num_blocks=1 --config.model.attention_sizes=()"
    command = [sys.executable, "-m", "eval.profile", *small.split(), *less.split(), "--steps=2", "--top=3"]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    done = subprocess.run([*command, f"--out={out}"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    assert written["jax"] == jax.__version__ and written["device"] == "cpu" and written["batch_size"] == 2
    assert sum(written["categories"].values()) == pytest.approx(1)
    assert {"name", "opcode", "category", "path", "nanoseconds", "runs"} == set(written["kernels"][0])
    assert f"flow_matching, 2 examples a step, 1 cpu device(s), jax {jax.__version__}: " in done.stdout
    tables = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(tables) == 2 + len(trace.CATEGORIES) + 2 + 3
    assert f"| convolutions | {written['categories']['convolutions']:.1%} |" in done.stdout
