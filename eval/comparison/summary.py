"""Groups the rows of a comparison, and its tables in Markdown."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from eval import features
from eval.comparison import statistics
from eval.tables.store import Values, markdown
from sgflow_jax.display.figures import in_steps

OWN, EULER = "own", "euler"


@dataclasses.dataclass(frozen=True)
class Group:
    """All seeds of one objective. name: its variant, and how it begins. rows: by seed, of `eval.compare`."""

    name: str
    rows: dict[int, Values]

    @property
    def diverged(self) -> list[int]:
        """The seeds that diverged."""
        return [seed for seed, row in self.rows.items() if row["diverged"] is not None]

    @property
    def jumps(self) -> bool:
        """Whether its own method uses the map, off the diagonal."""
        return any(row["method"] not in ("", EULER) for row in self.rows.values())

    @property
    def measured(self) -> bool:
        """Whether it was measured by its own method, at the end of its training."""
        return any(self.values(calls) for calls in calls_of([self]))

    def values(self, calls: int, how: str = OWN, share: float = 1.0) -> dict[int, float]:
        """The distance of each seed that has one. how: OWN, the objective's own method, or EULER on its diagonal; the
        same for flow matching. share: of the training."""
        found = {}
        for seed, row in self.rows.items():
            for each in row["distances"]:
                method = OWN if each["method"] == row["method"] else EULER
                euler = row["method"] == EULER  # there is only one curve
                if each["steps"] == calls and each["share"] == share and (method == how or euler):
                    found[seed] = each["value"]
        return found

    def mean(self, field: str) -> float | None:
        """The mean of a cost over the seeds that did not diverge."""
        found = [row[field] for row in self.rows.values() if row["diverged"] is None]
        return float(np.mean(found)) if found else None

    def images(self, share: float) -> float | None:
        """The images seen after a share of the training: of its second part, if it began with flow matching."""
        images, steps, last = (self.mean(field) for field in ("images", "num_steps", "last_steps"))
        return None if images is None else images * (1 - (1 - share) * last / steps)


def groups(rows: list[Values]) -> list[Group]:
    """One group for each objective, in the order of the rows."""
    found: dict[str, dict[int, Values]] = {}
    for row in rows:
        found.setdefault(name_of(row), {})[row["seed"]] = row
    return [Group(name, each) for name, each in found.items()]


def name_of(row: Values) -> str:
    """The name of a row's objective in tables and figures."""
    return row["objective"] + f" after flow_matching ({row['first']:g})" * bool(row["first"])


def calls_of(chosen: list[Group], share: float = 1.0) -> list[int]:
    """The numbers of steps that were measured."""
    return sorted(
        {d["steps"] for g in chosen for row in g.rows.values() for d in row["distances"] if d["share"] == share}
    )


def shares_of(chosen: list[Group]) -> list[float]:
    """The shares of the training after which distances were measured."""
    return sorted({each["share"] for group in chosen for row in group.rows.values() for each in row["distances"]})


def at(chosen: list[Group], calls: int, how: str = OWN, share: float = 1.0) -> dict[str, dict[int, float]]:
    """The distances at one number of steps, by objective and seed; without those that have none."""
    found = {group.name: group.values(calls, how, share) for group in chosen}
    return {name: values for name, values in found.items() if values}


def distance_name(rows: list[Values]) -> str:
    """The name of the distance of the rows, with its number of samples."""
    first = next((each for row in rows for each in row["distances"]), None)
    name = features.distance_name(rows[0]["features"], first["weights"], first["resize"]) if first else "no distance"
    return f"{name}, {rows[0]['num_samples']:,} samples"


class Identity(NamedTuple):
    """What distances were measured with: features and their weights, and the data set with its fingerprint."""

    features: str
    weights: str
    data: str
    fingerprint: str

    @classmethod
    def of(cls, values: Values) -> "Identity":
        return cls(*(values[field] for field in cls._fields))

    def __str__(self) -> str:
        return f"{self.features} of weights {self.weights}" if self.weights else self.features


def identities(rows: list[Values]) -> list[Identity]:
    """What the distances of the rows were measured with."""
    return sorted({Identity.of(each) for row in rows for each in row["distances"]})


def _cell(values: dict[int, float]) -> str:
    """Mean, and half of the range over seeds."""
    if not values:
        return "–"
    each = list(values.values())
    return f"{np.mean(each):.4g}" + (f" ± {(max(each) - min(each)) / 2:.2g}" if len(each) > 1 else "")


def curve_table(chosen: list[Group], how: str = OWN) -> str:
    """The distance of every objective at every number of steps."""
    columns: dict[str, Callable[[Group], str]] = {"objective": lambda group: group.name}
    for calls in calls_of(chosen):
        columns[str(calls)] = lambda group, calls=calls: _cell(group.values(calls, how))
    columns |= {"seeds": lambda group: str(len(group.rows)), "diverged": lambda group: str(len(group.diverged))}
    return markdown(columns, chosen)


def best_table(chosen: list[Group]) -> str:
    """Who is best at each number of steps, what is level with it, and who comes next."""

    def behind(places: list[statistics.Place]) -> str:
        return ", ".join(f"{place.name} ({100 * np.expm1(place.behind):+.0f} %)" for place in places)

    def told(calls: int) -> dict[str, str]:
        values = at(chosen, calls)
        best, *others = statistics.ranking(values)
        spread = statistics.layout(values)
        return {
            "steps": str(calls),
            "best (distance)": f"{best.name} ({best.mean:.4g})",
            "level with it": behind([each for each in others if each.level]) or "none" if spread.freedom else "unknown",
            "next": behind([each for each in others if not each.level][:1]),
            "spread over seeds": f"{100 * spread.deviation:.1f} %" if spread.freedom else "unknown",
        }

    lines = [told(calls) for calls in calls_of(chosen) if at(chosen, calls)]
    titles = list(lines[0]) if lines else []
    return markdown({title: lambda line, title=title: line[title] for title in titles}, lines)


def difference_table(chosen: list[Group], against: str) -> str:
    """The paired differences of every objective to one of them."""
    base = next(group for group in chosen if group.name == against)

    def cell(calls: int) -> Callable[[Group], str]:
        def show(group: Group) -> str:
            found = statistics.paired(group.values(calls), base.values(calls))
            if found is None:
                return "–"
            error = "" if found.standard_error is None else f" ± {found.standard_error:.2g}"
            return f"{found.mean:+.3g}{error}"

        return show

    columns = {"objective": lambda group: group.name}
    columns |= {str(calls): cell(calls) for calls in calls_of(chosen)}
    return markdown(columns, [group for group in chosen if group.name != against])


def velocity_table(chosen: list[Group]) -> str:
    """The share of each distance that is the velocity's: the distance by Euler's method in the most steps, which has
    next to no error of the map or of the integration left, over that by the objective's own method. Percent."""
    calls = calls_of(chosen)
    most = max(calls, default=0)

    def cell(count: int) -> Callable[[Group], str]:
        def show(group: Group) -> str:
            own, limit = group.values(count), group.values(most, EULER)
            shares = [100 * limit[seed] / own[seed] for seed in own if seed in limit]
            return f"{np.mean(shares):.0f} %" if shares else "–"

        return show

    columns = {"objective": lambda group: group.name, **{str(count): cell(count) for count in calls}}
    return markdown(columns, [group for group in chosen if group.values(most, EULER)])


def learning_table(chosen: list[Group], calls: int) -> str:
    """The distance at one number of steps after each measured share of the training."""
    columns = {"objective": lambda group: group.name}
    for share in shares_of(chosen):
        columns[f"{100 * share:g} %"] = lambda group, share=share: _cell(group.values(calls, OWN, share))
    return markdown(columns, chosen)


def cost_table(chosen: list[Group]) -> str:
    """What each run spent."""

    def cell(field: str, unit: float, form: str = "{:,.0f}") -> Callable[[Group], str]:
        return lambda group: "–" if (mean := group.mean(field)) is None else form.format(mean / unit)

    columns = {
        "objective": lambda group: group.name,
        "images": cell("images", 1),
        "training steps": cell("num_steps", 1),
        "10^12 operations": cell("flops", 1e12, "{:,.1f}"),
        "device seconds": cell("device_seconds", 1),
        "rollbacks": lambda group: str(sum(row["rollbacks"] for row in group.rows.values())),
    }
    return markdown(columns, chosen)


def curve_calls(rows: list[Values]) -> list[int]:
    """The numbers of steps of the learning curves."""
    return sorted({each["steps"] for row in rows for each in row["distances"] if each["share"] < 1})


def _floor(real: Values | None) -> str:
    """The distances between real examples, in a sentence."""
    if real is None:
        return "The distance between real examples was not measured."
    counts = real["counts"]
    ends = [f"{real['halves']:.4g} between two halves of the training examples ({counts['halves']:,} each)"]
    ends += [
        f"{real[split]:.4g} from {counts[split]:,} {split} examples to all training examples"
        for split in ("train", "test")
        if real[split] is not None
    ]
    return f"Between real examples the distance is {'; '.join(ends)}."


def _retrained(chosen: list[Group], spread: float) -> str:
    """A sentence for a classifier that was trained more than once."""
    found = identities([row for group in chosen for row in group.rows.values()])
    if len(found) < 2:
        return ""
    return (
        f" The classifier was trained {len(found)} times, on different machines (weights "
        f"{', '.join(each.weights for each in found)}): the distance between the halves differs by {spread:.1g} of it."
    )


def document(chosen: list[Group], real: Values | None, facts: dict[str, Any]) -> str:
    """All tables, in Markdown. real: of `floor.known`. facts: budget, distance, and the spread of `floor.spread`."""
    seeds = sorted({seed for group in chosen for seed in group.rows})
    parts = [
        f"{facts['distance']}, against the training examples; lower is better. Each run has the budget "
        f"{facts['budget']}; seeds {', '.join(map(str, seeds))}. Mean ± half of the range over seeds.",
        _floor(real) + _retrained(chosen, facts["spread"]),
        "## Sampled by its own method\n\n" + curve_table(chosen),
        "## Best at each number of steps\n\nLevel: not worse than the best at "
        f"{100 * statistics.LEVEL:.0f} % confidence, by the spread (standard deviation) over seeds of all objectives "
        "together; in brackets, how much larger the distance is. Objectives with other seeds are compared by the "
        "model log distance = objective + seed.\n\n" + best_table(chosen),
        "## By Euler's method on its own diagonal\n\n" + curve_table(chosen, EULER),
        "## The velocity's share\n\nThe distance by Euler's method in the most steps over that by the objective's own "
        "method: 100 % where the map adds no error to that of the velocity.\n\n" + velocity_table(chosen),
    ]
    for base in ("sgflow", "flow_matching"):
        if base in {group.name for group in chosen}:
            title = f"## Difference to {base}\n\nPaired by seed: mean ± standard error over seeds.\n\n"
            parts.append(title + difference_table(chosen, base))
    rows = [row for group in chosen for row in group.rows.values()]
    part = "training, of the part after flow matching" if any(row["first"] for row in rows) else "training"
    for calls in curve_calls(rows):
        title = f"## While training, in {in_steps(calls)}\n\nAfter these shares of the {part}.\n\n"
        parts.append(title + learning_table(chosen, calls))
    parts.append("## Cost of a run\n\n" + cost_table(chosen))
    faults = [
        f"- {group.name}, seed {seed}: {fault}"
        for group in chosen
        for seed, row in group.rows.items()
        for fault in [*filter(None, [row["diverged"]]), *row["faults"]]
    ]
    if faults:
        parts.append("## Not measured\n\n" + "\n".join(faults) + "\n")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def as_json(chosen: list[Group], real: Values | None, facts: dict[str, Any]) -> dict[str, Any]:
    """All numbers of the tables."""
    lines = []
    for group in chosen:
        for seed, row in group.rows.items():
            kept = ("steps", "method", "share", "value", "value_error", "kernel", "precision", "recall", "network")
            distances = [{name: each[name] for name in kept} for each in row["distances"]]
            lines.append({**row, "name": group.name, "seed": seed, "distances": distances})
    return {**facts, "real": real, "runs": lines}
