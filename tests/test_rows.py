"""Tables measured row by row, and the names of the variants they go through."""

import json
import os
import sys
from pathlib import Path

import pytest

from eval import rows, variants
from sgflow_jax import objectives
from sgflow_jax.interfaces import InputError

WANTED = [{"objective": "esd", "seed": 0}, {"objective": "esd", "seed": 1}, {"objective": "lsd(a=1)", "seed": 0}]


def test_rows_are_measured_once_and_read_back(tmp_path):
    measured = []

    def measure(settings):
        measured.append(settings)
        return {"value": len(measured)}

    store = rows.Store(tmp_path)
    first = rows.complete(store, WANTED[:2], measure, "unused", 0)
    assert first == [{**WANTED[0], "value": 1}, {**WANTED[1], "value": 2}]
    everything = rows.complete(store, WANTED, measure, "unused", 0)
    assert everything[:2] == first and everything[2] == {**WANTED[2], "value": 3}
    assert measured == WANTED
    assert len(list((tmp_path / "rows").iterdir())) == 3


def test_a_stopped_table_keeps_its_rows(tmp_path):
    def measure(settings):
        if settings["seed"] == 1:
            raise KeyboardInterrupt
        return {"value": 1}

    store = rows.Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        rows.complete(store, WANTED, measure, "unused", 0)
    assert store.find(WANTED[0]) == {**WANTED[0], "value": 1} and store.find(WANTED[1]) is None


def test_a_training_run_stays_in_the_directory(tmp_path):
    (tmp_path / "kept").mkdir()
    with rows.fresh_workdir(tmp_path / "out", {"objective": "../../../kept", "seed": 0}) as workdir:
        assert Path(workdir).resolve().parent == tmp_path / "out" / "runs"
    assert (tmp_path / "kept").exists()


MODULE = """
import json, sys, pathlib
from eval import rows
flags = dict(a[2:].split("=", 1) for a in sys.argv[1:])
settings = json.loads(flags["row"])
if settings["seed"] == 1:
    sys.exit("no such luck")
rows.Store(pathlib.Path(flags["out"])).write(settings, {"value": 7})
"""


def test_rows_in_processes_of_their_own(tmp_path, monkeypatch):
    (tmp_path / "measures.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    store = rows.Store(tmp_path / "out")
    found = rows.complete(store, [WANTED[0], WANTED[2]], None, "measures", 2)
    assert [row["value"] for row in found] == [7, 7]
    with pytest.raises(InputError, match="seed.*1.*no such luck"):
        rows.complete(store, WANTED, None, "measures", 1)


def test_damage_and_bad_rows_are_named(tmp_path):
    store = rows.Store(tmp_path)
    store.write(WANTED[0], {})
    next((tmp_path / "rows").iterdir()).write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        store.find(WANTED[0])
    allowed = {"objective": str, "seed": int}
    for bad in ("{", "3", "[]", "{}", '{"objective": 1, "seed": 0}', '{"objective": "esd", "seed": true}'):
        with pytest.raises(InputError, match="--row="):
            rows.from_flag(bad, allowed)
    assert rows.from_flag(json.dumps({**WANTED[0], "value": 3}), allowed) == WANTED[0]
    with pytest.raises(InputError, match="use lsd or psd"):
        rows.from_flag(json.dumps(WANTED[0]), {"objective": ("lsd", "psd")})


def test_markdown():
    table = rows.markdown(
        {"name": lambda row: row["name"], "twice": lambda row: str(2 * row["n"])}, [{"name": "a", "n": 2}]
    )
    assert table == "| name | twice |\n| --- | --- |\n| a | 4 |\n"


def test_names_of_variants_and_back():
    everything = variants.every()
    assert [variants.parse(variant.name) for variant in everything] == everything
    assert len(set(everything)) == len(everything) >= 40
    assert {variant.objective for variant in variants.own()} == set(objectives.names())
    assert variants.parse("consistency(continuous=true)").make().continuous is True
    assert variants.parse("esd").make(stopgrad="none").stopgrad == "none"


def test_names_in_a_flag():
    series = "consistency(initial_intervals=8,final_intervals=8)"
    assert variants.from_flag(f"esd,{series}, lsd(stopgrad=none)".split(",")) == ["esd", series, "lsd(stopgrad=none)"]
    assert variants.from_flag([]) == []
    with pytest.raises(InputError, match="'nope'"):
        variants.from_flag(["esd", "nope"])


@pytest.mark.parametrize(
    "name, match",
    [
        ("nope", "'nope'"),
        ("esd(x=1)", "no option 'x'"),
        ("ctm(intervals=a)", "is no int"),
        ("consistency(continuous=yes)", "is no bool"),
        ("fmm(weight=residual)", "weight"),
    ],
)
def test_names_that_are_none(name, match):
    with pytest.raises(InputError, match=match):
        variants.parse(name)
