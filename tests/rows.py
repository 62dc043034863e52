"""Made-up rows of fid.jsonl, for tests of what is made from them."""

import dataclasses
import json
import shutil
from pathlib import Path

from eval.scores import results
from sgflow_jax import build
from sgflow_jax.data import fingerprint
from sgflow_jax.files import disk
from sgflow_jax.run import layout, record
from tests import tiny

REFERENCE = results.ReferenceIdentity(results.VERSION, "digits", "train", "0123456789ab", 1797, "pixels", "", "")
IDENTITY = results.Identity(
    "sgflow", 100, "ema", "fedcba987654", "highest", 1, "flow_map", "uniform", 2000, 0, REFERENCE
)
SCORES = results.Scores(1.0, 0.1, (0.9, 1.2, 0.8, 1.1), 0.9, 0.01, 0.002, 0.7, 0.6, None)


def row(calls: int = 1, value: float = 1.0, class_counts=None, **identity) -> results.Row:
    """A row with these fields; those of the reference may be given too."""
    fields = {field.name for field in dataclasses.fields(results.ReferenceIdentity)}
    reference = dataclasses.replace(REFERENCE, **{k: v for k, v in identity.items() if k in fields})
    rest = {k: v for k, v in identity.items() if k not in fields}
    scores = dataclasses.replace(SCORES, value=value, class_counts=class_counts)
    return results.Row(dataclasses.replace(IDENTITY, calls=calls, reference=reference, **rest), scores)


def digits_row(calls, value, seed=0, reference=None, **identity) -> results.Row:
    """A row of the digits that scikit-learn has. reference: fields of it."""
    settings = {"fingerprint": fingerprint.of_examples(build.source(tiny.digits())), **(reference or {})}
    settings |= {"checkpoint_step": 4, "num_samples": 1000, "seed": seed, **identity}
    scores = dict.fromkeys(field.name for field in dataclasses.fields(results.Scores))
    scores |= dict(value=value, value_error=value / 17, value_infinite=value / 1.1, kernel=value / 300, precision=0.625)
    scores |= dict(class_counts=tuple(range(60, 160, 10)))
    return dataclasses.replace(row(calls, **settings), scores=results.Scores(**scores))


def finished_run(folder: Path, rows: list[results.Row], config=None, examples=None) -> str:
    """A finished run; examples: [n, ...], of every row."""
    results.append(str(folder), *rows)
    if config is not None:
        record.record(str(folder), config)
        lines = [
            {"step": n, "loss": 3.0 - n, "diagonal_loss": 1 / n, "grad_norm": 10.0 * n, "images_per_second": 512.0 + n}
            for n in (1, 2, 3, 4)
        ]
        layout.metrics_file(folder).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 5, "lo')
    for each in rows if examples is not None else []:
        disk.write_arrays(results.examples_file(str(folder), each.identity), {"examples": examples})
    return str(folder)


def copies(run: str, folder: Path, names: str) -> list[str]:
    """Copies of a run without its rows, one for each letter of names."""
    return [str(shutil.copytree(run, folder / name, ignore=lambda *_: {"eval"})) for name in names]
