"""The model card beside an exported file."""

import dataclasses
import functools
import json

import pytest
import yaml

from eval.scores import measured, results
from sgflow_jax import data
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access
from sgflow_jax.sample_run import Request
from sgflow_jax.weights import card, export_run
from tests import tiny
from tests.rows import row

REQUEST = Request(None, num_samples=1, method=None, seed=0)


def _export(workdir, out):
    export = functools.partial(export_run.export, measured=measured.table)
    return export(workdir, tiny.mixture(), str(out), REQUEST)


def test_a_card_has_data_training_and_what_was_measured_of_this_network(line_run, tmp_path):
    file, beside = tmp_path / "my: net.safetensors", tmp_path / "my: net.md"
    assert f"wrote {beside}: the model card" in _export(line_run, file)[-1]
    text = beside.read_text()
    _, front, body = text.split("---\n", 2)
    tags = ["jax", "flow-map", "sgflow", "mixture1d"]
    assert yaml.safe_load(front) == {"license": "unknown", "library_name": "sgflow_jax", "tags": tags}
    opened = access.open(line_run)
    start = json.loads((tmp_path / line_run / "events.jsonl").read_text().splitlines()[0])
    for part in (
        "# my: net\n",
        "points in 1 dimension(s), drawn while training",
        "Licence: none: a formula draws the points.",
        "| budget | 6 steps of 16 examples: 96 seen |",
        f"averaged parameters of step 6, fingerprint `{opened.fingerprint}`",
        "| devices | 4 x cpu, 1 process(es) |",
        "estimator paired",
        "--weights='my: net.safetensors' --workdir=runs/'my: net'",
        f"Trained with sgflow_jax {start['sgflow_jax']}, python",
        f"jax {start['versions']['jax']}",
        "## Measured\n\nNot measured.\n\n## Use",
    ):
        assert part in body, part
    ours, other = row(4, 2.5, network=opened.fingerprint, seed=3), row(4, 7.5)
    results.append(line_run, other, ours)
    assert f"replaced {beside}" in _export(line_run, file)[-1]
    (line,) = [line for line in beside.read_text().splitlines() if "2.5 ± 0.1" in line]
    assert results.name(ours.identity) in line and results.against(ours.identity.reference) in line and "seed 3" in line
    assert "7.5" not in beside.read_text() and "Not measured" not in beside.read_text()


def test_the_card_of_an_imported_network_says_what_is_not_known(labelled_run, tmp_path):
    opened = dataclasses.replace(access.open(labelled_run), data={}, workdir=str(tmp_path))
    event = {"event": "import", "file": "/home/someone/net.pth", "sha256": "12ab"}
    (tmp_path / "events.jsonl").write_text(json.dumps(event) + "\n")
    text = card.text(tmp_path / "a.safetensors", opened, "ema", (1,), "", "")
    for part in (
        "examples of 8 x 8 x 1; which ones is not known, as the network was trained elsewhere",
        "| objective | `flow_matching`: options not known |",
        "| budget | not known: trained elsewhere |",
        "| seed | not known |",
        "imported from `net.pth` (SHA-256 12ab)",
    ):
        assert part in text, part
    assert "someone" not in text and "seen" not in text


def test_an_edited_card_is_not_replaced(line_run, tmp_path):
    file, beside = tmp_path / "a.safetensors", tmp_path / "a.md"
    _export(line_run, file)
    before = file.stat().st_mtime_ns
    for text in (beside.read_text().replace("license: unknown", "license: mit"), "# mine\n", "\ud800"):
        beside.write_bytes(text.encode(errors="surrogatepass"))
        with pytest.raises(InputError, match="a.md was edited, or is no model card of --mode=export: move it"):
            _export(line_run, file)
        assert beside.read_bytes() == text.encode(errors="surrogatepass") and file.stat().st_mtime_ns == before


def test_the_card_of_a_sampler_of_labelled_images(labelled_run, tmp_path):
    opened = access.open(labelled_run)
    text = card.text(tmp_path / "a.stablehlo", opened, "raw", (1, 2), "euler in 2 network calls", "")
    for part in (
        "`a.stablehlo` has a sampler trained by `flow_matching` on `digits`: euler in 2 network calls.",
        "split train: 1,797 examples of 8 x 8 x 1, 10 classes.\n- Fingerprint",
        f"of the examples: `{opened.data['fingerprint']}`.\n- Licence: see",
        "see the data set's page, https://archive.ics.uci.edu/",
        "last parameters of step 2",
        'export.deserialize(open("a.stablehlo", "rb").read())',
    ):
        assert part in text, part
    assert "pipeline_tag" not in text  # it takes labels
    config = opened.config.copy_and_resolve_references()
    config.train.init_from = "/home/someone/runs/before@100"
    forked = dataclasses.replace(opened, config=config)
    begun = card.text(tmp_path / "a.safetensors", forked, "raw", (1,), "", "")
    assert "| begins with | `before@100` |" in begun and "someone" not in begun


def test_every_data_set_says_what_is_known_of_its_licence():
    known = {name: data.licence(data.Request(name)) for name in (*data.names(), "tfds:mnist", "tfds:a/b")}
    assert all(known.values()) and "not known here" not in known.values()
    assert known["tfds:a/b"].endswith("/catalog/a") and known["cifar10"].startswith("see the data set's page, https://")
