"""Where the time of a traced program went, by category, from the profiler's events and the text of the program.

An XLA instruction carries the path of Flax modules and JAX primitives it comes from, and the Python functions that
called them. A fusion carries only one of the many paths it combines, so its parts are examined.

XLA promises no format for this text, so an upgrade of JAX may break the regular expressions below. `module` and `table`
raise InputError if they do not find the program's name, instructions or stack frames. Events that match no instruction
are `UNKNOWN`: a large share means that the names of events or library calls have changed. Changed names of modules,
primitives or TrainStep's methods only move time to `ELEMENTWISE`; tests/eval/machine/test_profile.py checks them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
from jax.profiler import ProfileData

from sgflow_jax.interfaces import InputError

CONVOLUTIONS = "convolutions"
ATTENTION = "attention"
PRODUCTS = "other matrix products"
NORMALISATION = "normalisation"
RANDOM = "dropout and random numbers"
OPTIMISER = "optimiser and averages"
ELEMENTWISE = "other elementwise"
COPIES = "copies and collectives"
UNKNOWN = "unknown"  # matches no instruction of the program
CATEGORIES = (CONVOLUTIONS, ATTENTION, PRODUCTS, NORMALISATION, RANDOM, OPTIMISER, ELEMENTWISE, COPIES, UNKNOWN)

# On a GPU convolutions and products are library calls, like __cudnn$convForward and __cublas$lt$matmul.
_LIBRARY_PRODUCT = re.compile("conv|gemm|matmul|cublas", re.IGNORECASE)
_NORM = re.compile(r"/(\w*norm|norm_\w+|\w*Norm_\d+)/")
_RANDOM = re.compile(r"threefry|random|rng_|erf_inv|jit\(_(normal|uniform|bernoulli|randint)")
_NOTHING = re.compile("parameter|constant|tuple|get-tuple-element|bitcast|broadcast|iota|partition-id")
_MOVES = re.compile(
    "(all-|reduce-scatter|collective-|copy|send|recv|dynamic-).*|transpose|slice|concatenate|pad|reverse|gather|reshape"
)
_CONTAINERS = ("while", "conditional", "call")  # their bodies' instructions may have events too


class Event(NamedTuple):
    """One run of the instruction `name`. start, duration: nanoseconds."""

    name: str
    start: float
    duration: float


class Kernel(NamedTuple):
    """All runs of one instruction. path: modules, then the primitive. nanoseconds: its share of the busy time."""

    name: str
    opcode: str
    category: str
    path: str
    nanoseconds: float
    runs: int


class Table(NamedTuple):
    """busy: nanoseconds in which anything ran. kernels: longest first; their times add up to `busy`."""

    busy: float
    kernels: list[Kernel]

    def shares(self) -> dict[str, float]:
        """The share of the busy time of each of CATEGORIES."""
        spent = Counter()
        for kernel in self.kernels:
            spent[kernel.category] += kernel.nanoseconds
        return {category: spent[category] / self.busy for category in CATEGORIES}


class _Instruction(NamedTuple):
    """A line of a program. functions: the Python functions that led to it, innermost first. target: the library call,
    if it is one. inside: the computation that contains it. calls: the computations it runs."""

    opcode: str
    path: str
    functions: tuple[str, ...]
    target: str
    inside: str
    calls: tuple[str, ...]

    def is_product(self) -> bool:
        return self.opcode in ("convolution", "dot") or bool(_LIBRARY_PRODUCT.search(self.target))

    def category(self) -> str | None:
        """The category of this line alone; None if it does nothing or only moves data."""
        path = f"/{self.path}/"
        is_attention = "ttention" in path
        if self.is_product():
            is_convolution = "conv" in self.opcode + self.target or "/conv_general_dilated/" in path
            return ATTENTION if is_attention else CONVOLUTIONS if is_convolution else PRODUCTS
        if _NOTHING.fullmatch(self.opcode) or _MOVES.fullmatch(self.opcode):
            return None
        if _NORM.search(path):
            return NORMALISATION
        if is_attention:
            return ATTENTION
        if _RANDOM.search(path) or "dropout" in self.functions:
            return RANDOM
        is_update = "TrainStep.__call__" in self.functions and "TrainStep.gradient" not in self.functions
        return OPTIMISER if is_update else ELEMENTWISE


class _Program:
    """A compiled program, parsed from its text. instructions: by name. InputError if the text has another format."""

    def __init__(self, text: str):
        functions = _functions(text)
        self.instructions: dict[str, _Instruction] = {}
        self._computations = defaultdict(list)
        inside = ""
        for line in text.splitlines():
            if head := re.match(r"(?:ENTRY )?%([\w.-]+) \(.*\{$", line):
                inside = head[1]
            elif found := re.match(r"\s+(?:ROOT )?%([\w.-]+) = .*? ([a-z][a-z0-9-]*)\((.*)", line):
                name, opcode, rest = found.groups()
                path = re.sub(r"^jit\([^/]*\)/", "", _first(r'op_name="([^";]*)', rest))
                called = functions.get(_first(r"stack_frame_id=(\d+)", rest), ())
                target = _first(r'custom_call_target="([^"]*)', rest)
                lists = re.findall(r"(?:calls|to_apply|body|condition|\w+_computations?)=(%[\w.-]+|\{[^}]*\})", rest)
                calls = tuple(re.findall(r"%([\w.-]+)", " ".join(lists)))
                self.instructions[name] = _Instruction(opcode, path, called, target, inside, calls)
                self._computations[inside].append(self.instructions[name])
        if not (self.instructions and functions):
            raise _unreadable()

    def described(self, name: str) -> tuple[str, str, str]:
        """Opcode, category and path of an instruction, or of an event that matches none."""
        if (own := self.instructions.get(name)) is None:
            copies = re.match("mem(cpy|set)|nccl", name, re.IGNORECASE)
            return "", COPIES if copies else UNKNOWN, ""
        each = list(self._parts(own))
        # A fusion with a product takes the time of the product; any other has the category of most of its parts.
        products = [part for part in each if part.is_product()]
        counts = Counter(category for part in products[:1] or each if (category := part.category()))
        category = counts.most_common(1)[0][0] if counts else COPIES
        # Some instructions that XLA makes have no path, but a part of them does.
        paths = [part.path for part in (*products, own, *(p for p in each if p.category() == category)) if part.path]
        return own.opcode, category, paths[0] if paths else ""

    def _parts(self, instruction: _Instruction) -> Iterator[_Instruction]:
        """The instruction, or those it combines. Not what a reduction calls, which has no path of its own."""
        if instruction.opcode not in ("fusion", "async-start", *_CONTAINERS):
            yield instruction
            return
        for name in instruction.calls:
            for inner in self._computations[name]:
                yield from self._parts(inner)


def table(events: list[Event], program: str) -> Table:
    """Sums the events by instruction. program: the text of the compiled program.

    Time in which several events run is shared equally. A loop's event is dropped if its body has events.
    """
    parsed = _Program(program)
    lines = {event.name: parsed.instructions.get(event.name) for event in events}
    seen = {line.inside for line in lines.values() if line}
    enclosing = {
        name for name, line in lines.items() if line and line.opcode in _CONTAINERS and seen.intersection(line.calls)
    }
    events = [event for event in events if event.name not in enclosing]
    busy, parts = _shared(events)
    spent, runs = Counter(), Counter(event.name for event in events)
    for event, part in zip(events, parts, strict=True):
        spent[event.name] += part
    return Table(busy, [Kernel(name, *parsed.described(name), time, runs[name]) for name, time in spent.most_common()])


def _shared(events: list[Event]) -> tuple[float, list[float]]:
    """The time in which anything runs, and the share of each event in it."""
    changes = [(event.start, 1) for event in events] + [(event.start + event.duration, -1) for event in events]
    busy = integral = then = 0.0
    running, at = 0, {}
    for time, change in sorted(changes):
        if running:
            busy += time - then
            integral += (time - then) / running
        running, then, at[time] = running + change, time, integral
    return busy, [at[event.start + event.duration] - at[event.start] for event in events]


def module(text: str) -> str:
    """The name of a program. InputError if its text has another format."""
    if not (found := _first(r"^HloModule ([^\s,]+)", text)):
        raise _unreadable()
    return found


def read(file: Path, module: str) -> list[Event]:
    """The events of a program on the first device. file: the profiler's. module: the name of the program."""
    found, ends = [], {}
    for plane in ProfileData.from_file(str(file)).planes:
        if plane.name.startswith("/device:") and not re.fullmatch(r"/device:\w+:0", plane.name):
            continue
        for line in plane.lines:
            is_device = plane.name.startswith("/device:") and line.name.startswith(("Stream", "XLA Ops"))
            for event in line.events:
                stats = dict(event.stats)
                if event.name.startswith("end: "):
                    ends[stats.get("_c")] = event.start_ns
                elif is_device or "hlo_op" in stats and not stats.get("device_ordinal"):
                    # Nested operations, as in a loop, are joined by "::"; take the last.
                    name = str(stats.get("hlo_op", event.name)).split("::")[-1].lstrip("%").split(" ")[0]
                    if stats.get("hlo_module", module) == module:
                        found.append((Event(name, event.start_ns, event.duration_ns), stats.get("_p")))
    # On a CPU an operation may continue in other threads after its call returns; its end is a separate event.
    return [event._replace(duration=max(event.duration, ends.get(flow, 0) - event.start)) for event, flow in found]


def _functions(text: str) -> dict[str, tuple[str, ...]]:
    """For each stack frame listed in a program's text, the Python functions that led to it, innermost first."""
    names, places, frames = (
        dict(re.findall(r"^(\d+) (.*)$", _first(rf"^{title}\n((?:\d+ .*\n)*)", text), re.MULTILINE))
        for title in ("FunctionNames", "FileLocations", "StackFrames")
    )
    found = {}
    for frame in sorted(frames, key=int):  # callers come first
        function = names[_first(r"function_name_id=(\d+)", places[_first(r"file_location_id=(\d+)", frames[frame])])]
        # Numbered from 1; 1 means no caller.
        caller = str(int(_first(r"parent_frame_id=(\d+)", frames[frame]) or 1) - 1)
        found[frame] = (function.strip('"'), *found.get(caller, ()))
    return found


def _unreadable() -> InputError:
    return InputError(
        f"eval/machine/trace.py cannot read the programs of jax {jax.__version__}: use the jax of requirements.txt"
    )


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""
