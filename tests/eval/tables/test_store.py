"""Tables measured row by row, and the names of variants."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from eval.tables import store, variants
from sgflow_jax import __version__, objectives
from sgflow_jax.interfaces import InputError

WANTED = [{"objective": "esd", "seed": 0}, {"objective": "esd", "seed": 1}, {"objective": "lsd(a=1)", "seed": 0}]


def test_rows_are_measured_once_and_read_back(tmp_path):
    measured = []

    def measure(settings):
        measured.append(settings)
        return {"value": len(measured)}

    table = store.Store(tmp_path)
    first = store.complete(table, WANTED[:2], measure, "unused", 0)
    measured_by = {"sgflow_jax": __version__}
    assert first == [{**WANTED[0], "value": 1, **measured_by}, {**WANTED[1], "value": 2, **measured_by}]
    everything = store.complete(table, WANTED, measure, "unused", 0)
    assert everything[:2] == first and everything[2] == {**WANTED[2], "value": 3, **measured_by}
    assert measured == WANTED
    assert len(list((tmp_path / "rows").iterdir())) == 3


def test_an_interrupted_table_keeps_its_rows(tmp_path):
    def measure(settings):
        if settings["seed"] == 1:
            raise KeyboardInterrupt
        return {"value": 1}

    table = store.Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.complete(table, WANTED, measure, "unused", 0)
    assert table.find(WANTED[0])["value"] == 1 and table.find(WANTED[1]) is None


def test_rows_that_have_not_begun_are_not_measured_after_an_interrupt(tmp_path):
    measured = []

    def measure(settings):
        measured.append(settings)
        if settings["seed"] == 0:
            raise KeyboardInterrupt
        time.sleep(0.1)
        return {}

    with pytest.raises(KeyboardInterrupt):
        store.complete(store.Store(tmp_path), [{"seed": seed} for seed in range(20)], measure, "unused", 0)
    assert len(measured) < 10


def test_a_training_run_stays_in_the_directory(tmp_path):
    (tmp_path / "kept").mkdir()
    with store.fresh_workdir(tmp_path / "out", {"objective": "../../../kept", "seed": 0}) as workdir:
        assert Path(workdir).resolve().parent == tmp_path / "out" / "runs"
    assert (tmp_path / "kept").exists()


MODULE = """
import json, sys, pathlib
from eval.tables import store
flags = dict(a[2:].split("=", 1) for a in sys.argv[1:])
settings = json.loads(flags["row"])
if settings["seed"] == 1:
    sys.exit("no such luck")
store.Store(pathlib.Path(flags["out"])).write(settings, {"value": 7})
"""


def test_rows_in_processes_of_their_own(tmp_path, monkeypatch):
    (tmp_path / "measures.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    table = store.Store(tmp_path / "out")
    found = store.complete(table, [WANTED[0], WANTED[2]], None, "measures", 2)
    assert [row["value"] for row in found] == [7, 7]
    with pytest.raises(InputError, match="seed.*1.*no such luck"):
        store.complete(table, WANTED, None, "measures", 1)


def test_damage_and_bad_rows_are_named(tmp_path):
    table = store.Store(tmp_path)
    table.write(WANTED[0], {})
    next((tmp_path / "rows").iterdir()).write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        table.find(WANTED[0])
    allowed = {"objective": str, "seed": int}
    for bad in ("{", "3", "[]", "{}", '{"objective": 1, "seed": 0}', '{"objective": "esd", "seed": true}'):
        with pytest.raises(InputError, match="--row="):
            store.from_flag(bad, allowed)
    assert store.from_flag(json.dumps({**WANTED[0], "value": 3}), allowed) == WANTED[0]
    with pytest.raises(InputError, match="use lsd or psd"):
        store.from_flag(json.dumps(WANTED[0]), {"objective": ("lsd", "psd")})


def test_markdown():
    table = store.markdown(
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
    assert variants.parse("sgflow_recommended(correction=0.3)").name == "sgflow(velocity_target=batch,correction=0.3)"


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
        ("ctm(intervals=a)", "not of type int"),
        ("consistency(continuous=yes)", "not of type bool"),
        ("fmm(weight=residual)", "weight"),
    ],
)
def test_invalid_names(name, match):
    with pytest.raises(InputError, match=match):
        variants.parse(name)
