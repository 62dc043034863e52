"""The table of `eval.cost`, relative to flow matching without remat or microbatches."""

import json
from collections.abc import Callable
from typing import Any

from eval.machine import gradient_cost
from eval.tables import store
from sgflow_jax.models.unet import REMAT

BASELINE = ("flow_matching", "none", 1)  # objective, remat, microbatches
# Rows are compared if they agree in the last five.
KEY = ("objective", "remat", "microbatches", "dtype", "batch_size", "data", "network", "jax")
RELATIVE = ("flops", "residual_bytes", "temp_bytes", "reserved_bytes", "step_seconds", "peak_bytes")


def _order(row: store.Values) -> tuple:
    """The order of the table. Counted rows, which name no device, come before those measured on one."""
    return row["dtype"] != "float32", row["objective"], tuple(REMAT).index(row["remat"]), row["stage"] != "count"


def _type(row: store.Values) -> str:
    """The computation's dtype, with the precision of its products if that is below float32."""
    precision = json.loads(row["network"]).get("precision", "highest")
    return row["dtype"] + f" ({precision})" * (row["dtype"] == "float32" and precision != "highest")


def _rates(found: list[store.Values]) -> dict[str, float]:
    """The best measured rate of matrix products for each type."""
    rates: dict[str, float] = {}
    for row in found:
        if "multiply_rate" in row:
            rates[_type(row)] = max(row["multiply_rate"], rates.get(_type(row), 0.0))
    return rates


def summary(found: list[store.Values]) -> list[store.Values]:
    """Merges the stages of each row and adds what follows from them.

    reserved_bytes: all buffers of the compiled step. utilisation: share of the best measured rate of matrix products,
    without the operations that remat repeats. relative: ratios to `BASELINE` at the same type, network and batch.
    Also images_per_second.
    """
    merged: dict[tuple, store.Values] = {}
    for row in sorted(found, key=_order):
        merged.setdefault(tuple(row[name] for name in KEY), {}).update(row)

    rates = _rates(found)

    def counted(key: tuple, remat: str) -> store.Values:
        # Counted values do not depend on microbatches.
        return merged.get((key[0], remat, 1, *key[3:]), {})

    for key, row in merged.items():
        row.update(
            {name: counted(key, key[1])[name] for name in gradient_cost.Cost._fields if name in counted(key, key[1])}
        )
        if "temp_bytes" in row:
            row["reserved_bytes"] = row["argument_bytes"] + row["output_bytes"] - row["alias_bytes"] + row["temp_bytes"]
        if "step_seconds" in row:
            row["images_per_second"] = row["batch_size"] / row["step_seconds"]
            model = counted(key, "none").get("flops")
            row["utilisation"] = model and model / row["step_seconds"] / rates[_type(row)]
    for key, row in merged.items():
        base = merged.get((*BASELINE, *key[3:]), {})
        row["relative"] = {name: row[name] / base[name] for name in RELATIVE if row.get(name) and base.get(name)}
    return list(merged.values())


def _number(name: str, scale: float = 1.0, form: str = ".3g") -> Callable[[store.Values], str]:
    return lambda row: "" if row.get(name) is None else format(row[name] * scale, form)


def _relative(name: str, scale: float) -> Callable[[store.Values], str]:
    """The value, and in parentheses its ratio to flow matching."""

    def cell(row: store.Values) -> str:
        ratio = row["relative"].get(name)
        return _number(name, scale, ".4g")(row) + (f" ({ratio:.2f})" if ratio else "")

    return cell


def _plain(name: str) -> Callable[[store.Values], Any]:
    return lambda row: str(row[name])


COLUMNS = {
    "objective": _plain("objective"),
    "remat": _plain("remat"),
    "microbatches": _plain("microbatches"),
    "type": _type,
    "batch": _plain("batch_size"),
    "TFLOP": _relative("flops", 1e-12),
    "residuals, GB": _relative("residual_bytes", 1e-9),
    "compiled in, s": _number("compile_seconds", 1, ".0f"),
    "temporary, GB": _relative("temp_bytes", 1e-9),
    "reserved, GB": _relative("reserved_bytes", 1e-9),
    "step, ms": _relative("step_seconds", 1e3),
    "quartiles, ms": lambda row: " to ".join(f"{1e3 * s:.4g}" for s in row.get("step_quartiles", [])),
    "peak, GB": _relative("peak_bytes", 1e-9),
    "images/s": _number("images_per_second", 1, ",.0f"),
    "share of the matrix rate": _number("utilisation", 1, ".0%"),
    "J/step": _number("joules"),
    "sampled, calls/s": _number("calls_per_second", 1, ",.0f"),
    "fault": lambda row: row.get("fault", ""),
}


def markdown(merged: list[store.Values]) -> str:
    """The table of all non-empty columns. In parentheses: the ratio to flow matching of the same type."""
    shown = {title: cell for title, cell in COLUMNS.items() if any(cell(row) for row in merged)}
    where = sorted({f"{row['device']}, jax {row['jax']}" for row in merged if row["device"] != "any"})
    made = f"Measured on: {'; '.join(where)}" if where else f"Counted by jax {merged[0]['jax']}"
    made += "".join(f"; {dtype} matrix products at {rate / 1e12:.3g} TFLOP/s" for dtype, rate in _rates(merged).items())
    return f"{store.markdown(shown, merged)}\n{made}.\n"
