"""Budgets of training runs: an amount of images, steps, seconds or floating-point operations."""

import dataclasses
import math
import re
from collections.abc import Callable

from sgflow_jax.interfaces import MAX_SEED, InputError

KINDS = ("images", "steps", "seconds", "flops")
PARTS = 8  # a run has this many parts of equal length, with a checkpoint after each


@dataclasses.dataclass(frozen=True)
class Budget:
    """What one training run may spend.

    kind: "images" seen, optimiser "steps", "seconds" of device time without compilation, or "flops", floating-point
    operations of gradients as `eval.machine.gradient_cost` counts them. amount: that many.
    """

    kind: str
    amount: float

    def num_steps(
        self, batch_size: int, speed: Callable[[], float], flops: Callable[[], float], least: int = PARTS
    ) -> int:
        """The steps that the budget buys, a multiple of the least that a run can have.

        speed: steps a second. flops: of a step. Both are called only if they are needed. InputError if the budget buys
        less than the least, or too many.
        """
        costs = {
            "images": lambda: batch_size,
            "steps": lambda: 1,
            "seconds": lambda: 1 / speed(),
            "flops": flops,
        }
        steps = int(self.amount / costs[self.kind]()) // least * least
        if not least <= steps <= MAX_SEED:
            raise InputError(f"the budget {self} buys less than {least} steps, or more than {MAX_SEED}: use another")
        return steps

    def __str__(self) -> str:
        return f"{self.kind}:{self.amount:g}"


def parse(text: str) -> Budget:
    """The budget in KIND:AMOUNT. InputError unless it is one."""
    kind, _, amount = text.partition(":")
    number = float(amount) if re.fullmatch(r"\d+(\.\d*)?(e[+-]?\d+)?", amount) else math.nan
    if kind not in KINDS or not 0 < number < math.inf:
        raise InputError(f"--budget={text}: use {', '.join(f'{each}:AMOUNT' for each in KINDS)}, like images:1e6")
    return Budget(kind, number)
