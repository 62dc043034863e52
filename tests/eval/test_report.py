"""The report page, made from files written here, with random examples as generated ones."""

import html
import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from eval import features, reference, report
from eval.fid_sweep import Request, sweep
from eval.machine import gradient_cost
from eval.page import gallery, runs
from eval.scores import class_names, results
from sgflow_jax import __version__
from sgflow_jax.devices import provenance
from sgflow_jax.interfaces import InputError
from tests import tiny
from tests.rows import digits_row, finished_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
VOID = {"meta", "img", "br"}


@pytest.fixture(autouse=True)
def no_cost(monkeypatch):
    """Compiling a gradient takes seconds. `page`, which is made before this, has true costs."""
    monkeypatch.setattr(gradient_cost, "gradient_cost", lambda *_: gradient_cost.Cost(1.0, 1))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page about two runs: its folder and its rows."""
    folder = tmp_path_factory.mktemp("report")
    images = np.random.default_rng(0).integers(0, 255, (16, 8, 8, 1)).astype(np.uint8)
    rows = {
        name: [digits_row(n, scale / n + seed / 7, seed, objective=name) for n in (1, 2, 16) for seed in (0, 3)]
        for name, scale in (("sgflow", 5.123), ("flow_matching", 90.77))
    }
    workdirs = [finished_run(folder / name, rows[name], tiny.digits(name), images) for name in rows]
    assert report.write(workdirs, str(folder / "out")) == folder / "out" / "index.html"
    return folder / "out", [row for each in rows.values() for row in each]


class _Seen(html.parser.HTMLParser):
    """All tags with attributes, all text, and the tags left open; fails on unbalanced tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [tag] * (tag not in VOID)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def _seen(folder):
    return _Seen((folder / "index.html").read_text())


def _tables(folder):
    """The text of every table: a list of lines of cells, the heading first."""
    text = (folder / "index.html").read_text()
    found = []
    for table in re.findall("<table>(.*?)</table>", text, re.DOTALL):
        lines = re.findall("<tr[^>]*>(.*?)</tr>", table, re.DOTALL)
        cells = [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL) for line in lines]
        found.append([[html.unescape(re.sub("<[^>]+>", " ", cell)).strip() for cell in line] for line in cells])
    return [[[re.sub(r"\s+", " ", cell) for cell in line] for line in table] for table in found]


def test_the_page_is_complete_and_self_contained(page):
    folder, _ = page
    text = (folder / "index.html").read_text()
    seen = _seen(folder)
    assert text.startswith("<!DOCTYPE html>") and not seen.open
    assert seen.all("html")[0]["lang"] == "en" and len(seen.all("h1")) == 1
    assert not seen.all("script") and not seen.all("link") and not re.search(r"url\(|@import", text)
    linked = [a[name] for _, a in seen.tags for name in ("src", "href", "srcset") if name in a]
    places = {"#" + a["id"] for _, a in seen.tags if "id" in a}
    assert len(linked) > 15 and all(link.startswith("data:image/") or link in places for link in linked)
    assert all(len(image["alt"]) > 30 for image in seen.all("img"))
    alts = [image["alt"] for image in seen.all("img")]
    assert len(set(alts)) == len(alts)


def test_the_page_has_every_number_with_its_settings(page):
    folder, rows = page
    (table,) = [lines for lines in _tables(folder) if "against" in lines[0]]
    share = " ".join(f"{100 * count / 1050:.1f}" for count in range(60, 160, 10))
    columns = results.columns()
    assert table[0] == [*columns, "class shares, %"]
    expected = [[*(cell(row) for cell in columns.values()), share] for row in results.in_order(rows)]
    assert sorted(table[1:]) == sorted(expected)


def test_classes_are_counted_by_name(tmp_path):
    rows = [digits_row(n, 2.0, guidance=2.0, guidance_interval="0.2-0.8", labels="data") for n in (1, 4)]
    workdir = finished_run(tmp_path / "run", rows, tiny.digits())
    class_names.write(workdir, ("<b>", *"123456789"))
    report.write([workdir], str(tmp_path / "out"))
    tables = _tables(tmp_path / "out")
    assert tables[0][0][1].endswith("guidance 2 at times 0.2-0.8, step 4")
    (table,) = [lines for lines in tables if lines[0][0] == "class"]
    assert table[0] == ["class", "training data", "sgflow, 1 step", "sgflow, 4 steps"]
    assert table[1] == ["<b>", "9.9 %", "60 (5.7 %)", "60 (5.7 %)"] and len(table) == 11


def test_scores_are_side_by_side_without_a_winner(page):
    table = _tables(page[0])[0]
    assert table[0][0] == "steps" and [cell.split()[0] for cell in table[0][1:]] == ["sgflow", "flow_matching"]
    assert [line[0] for line in table[1:4]] == ["1", "2", "16"]
    assert table[1][1] == "5.337 ± 0.21"  # 5.123 and 5.123 + 3 / 7
    text = (page[0] / "index.html").read_text()
    assert "<strong>" not in text and "Lowest" not in text
    assert "each is one training with one seed" in " ".join(text.split())
    assert "min-width: max-content" in text and "anywhere; }\nsummary" not in text  # words do not break


def test_real_examples_are_shown_beside_samples_and_scores(tmp_path):
    """The distance between real halves is read from the cache, never computed."""
    images = np.random.default_rng(0).integers(0, 255, (8, 8, 8, 1)).astype(np.uint8)
    workdir = finished_run(tmp_path / "run", [digits_row(1, 2.0)], tiny.digits(), images)
    target = reference.of_data(tiny.digits().data, features.make("pixels"))
    assert target.identity == digits_row(1, 2.0).identity.reference
    reference.cached(target.identity).unlink(missing_ok=True)
    report.write([workdir], str(tmp_path / "out"))
    assert "two halves" not in (tmp_path / "out" / "index.html").read_text()
    distance = target.statistics().halves.distance
    report.write([workdir], str(tmp_path / "out"))
    table = _tables(tmp_path / "out")[0]
    assert table[-1] == ["real", f"{distance:.3g} between two halves of the real examples (899 and 898)"]
    assert distance == pytest.approx(0.26, abs=0.03)
    assert any("real images" in image["alt"] for image in _seen(tmp_path / "out").all("img"))


def test_runs_are_compared_by_fields_devices_and_hours(tmp_path):
    workdirs = []
    for name, rate in (("one", 1e-3), ("two", 2e-3)):
        config = tiny.digits()
        config.optim.learning_rate = rate
        workdirs.append(finished_run(tmp_path / name, [digits_row(1, 2.0)], config))
        log = [
            {
                "step": n,
                "loss": 1.0,
                "wall_seconds": 900.0 * n,
                "device_seconds": 3600.0 * n,
                "distance_4_pixels_500": 9.0 / n,
            }
            for n in (1, 2)
        ]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    start = {"event": "start", "step": 0, **provenance.describe([])}  # as written by training
    start |= {"device_kind": "TPU v5", "devices": 4, "commit": "0123456789abcdef", "dirty": True}
    (tmp_path / "one" / "events.jsonl").write_text(
        json.dumps(start) + "\n" + json.dumps({**start, "devices": 8}) + "\n"
    )
    (tmp_path / "two" / "events.jsonl").write_text('{"event": "start", "step": 0}\n{"half')
    report.write(workdirs, str(tmp_path / "out"))
    assert _tables(tmp_path / "out")[1] == [
        ["field", "lr 0.001", "lr 0.002"],
        ["optim.learning_rate", "0.001", "0.002"],
        ["steps trained", "2", "2"],
        ["hours", "0.5", "0.5"],
        ["device hours", "2", "2"],
        ["devices", "4 TPU v5, then 8 TPU v5", "–"],
        ["processes", "1", "–"],
        ["code", f"{__version__} 0123456789ab (changed)", "–"],
    ]
    alts = [image["alt"] for image in _seen(tmp_path / "out").all("img")]
    for axis in ("training step", "hours"):
        expected = "one line per run. lr 0.001: 4.5 at the end; lr 0.002: 4.5 at the end."
        assert f"FD-pixels, 500 samples, in 4 steps while training, against {axis}, {expected}" in alts
    assert not any(alt.startswith(("wall", "device", "distance 4")) for alt in alts)


def test_costs_and_copies_are_on_the_page(page):
    tables = {lines[0][-1]: lines[1:] for lines in _tables(page[0])}
    costs = {line[0]: line[1:] for line in tables["residuals (× flow matching)"]}
    assert costs["flow_matching"][4] == costs["flow_matching"][6] == "1.00" and float(costs["sgflow"][4]) > 1
    assert costs["sgflow"][1:3] == ["514.5", "8"]
    # Random images are not copies.
    assert [line[3:] for line in tables["generated images"]] == [["0.0 %", "32"]] * 2
    assert "is unknown:" not in (page[0] / "index.html").read_text()


def test_from_a_sweep_to_the_page(line_run, tmp_path):
    run = shutil.copytree(line_run, tmp_path / "run", ignore=lambda *_: {"eval"})
    sweep([str(run)], Request(calls=(1, 2), num_samples=50))
    report.write([str(run)], str(tmp_path / "out"))
    text = (tmp_path / "out" / "index.html").read_text()
    assert text.count("Points generated in") == 2 and "is unknown:" not in text


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("metrics.jsonl", b"5\n", "metrics.jsonl has an invalid line"),
        ("metrics.jsonl", b'{"loss": 1}\n', "metrics.jsonl has an invalid line"),
        ("metrics.jsonl", b'{"step": 1, "loss": null}\n', "metrics.jsonl has an invalid line"),
        ("metrics.jsonl", b"\xff\xfe", "metrics.jsonl cannot be read"),
        ("config.json", b"[]", "config.json is damaged"),
        ("config.json", b"\xff\xfe", "config.json is damaged"),
        ("eval/samples/step_4-fedcba987654-flow_map-1.npz", b"", "flow_map-1.npz is damaged"),
    ],
)
def test_damaged_files_are_named(name, content, match, tmp_path):
    images = np.zeros((3, 8, 8, 1), np.uint8)
    workdir = finished_run(tmp_path / "run", [digits_row(1, 1.0)], tiny.digits(), images)
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(InputError, match=match):
        report.write([workdir], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_examples_of_another_shape_are_rejected(tmp_path):
    for wrong in (np.zeros((3, 4, 4, 1), np.uint8), np.zeros((0, 8, 8, 1), np.uint8), np.zeros((3, 8, 8, 1))):
        workdir = finished_run(tmp_path / "run", [digits_row(1, 1.0)], tiny.digits(), wrong)
        with pytest.raises(InputError, match="is damaged"):
            report.write([workdir], str(tmp_path / "out"))


def test_a_config_of_another_version_affects_only_two_sections(tmp_path):
    workdir = finished_run(tmp_path / "run", [digits_row(1, 1.0)], tiny.digits())
    (tmp_path / "run" / "config.json").write_text("{}")
    report.write([workdir], str(tmp_path / "out"))
    assert "is unknown:" in (tmp_path / "out" / "index.html").read_text()


def test_special_characters_in_names_are_escaped(tmp_path):
    names = ["$\\x$", "_hidden", "a <b> & c", "run 1", "run_1"]
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1)).astype(np.uint8)
    workdirs = [
        finished_run(tmp_path / name, [digits_row(n, 1.0) for n in (1, 2)], tiny.digits(), images) for name in names
    ]
    report.write(workdirs, str(tmp_path / "out"))
    seen = _seen(tmp_path / "out")
    assert all(any(name in word for word in seen.words) for name in names)
    assert len(list((tmp_path / "out").glob("neighbours_*.png"))) == len(names)


def test_pictures_are_also_written_as_files(page):
    folder, _ = page
    names = {file.name for file in folder.iterdir()}
    curves = {f"{name}.{kind}" for name in ("quality", "training") for kind in ("svg", "png")}
    pictures = {"samples.png", "neighbours_sgflow.png", "neighbours_flow_matching.png"}
    assert names == {"index.html"} | curves | pictures
    for name in names:
        if name.endswith(".png"):
            with Image.open(folder / name) as picture:
                assert len(np.unique(np.asarray(picture))) > 10
    assert all(name in (folder / "index.html").read_text() for name in curves | pictures)


def test_runs_of_one_objective_are_kept_apart_and_missing_data_is_reported(tmp_path):
    rows = [digits_row(2, 3.25), digits_row(4, 1.5)]
    workdirs = [finished_run(tmp_path / "first", rows), finished_run(tmp_path / "second", rows)]
    report.write(workdirs, str(tmp_path / "out"))
    seen = _seen(tmp_path / "out")
    text = " ".join(" ".join(seen.words).split())
    for sentence in (
        "2 runs on digits (first, second), 4 measured rows.",
        "No log (metrics.jsonl) from first, second.",
        "No stored examples of first in 2 steps, second in 2 steps, first in 4 steps, second in 4 steps.",
        "no run has a config.json",
        "The cost of first is unknown: there is no config.json.",
    ):
        assert sentence in text
    assert [image["alt"] for image in seen.all("img")] == [
        "FD-pixels-1k against the number of sampling steps, one line per run. "
        "first: 3.25 in 2 steps, 1.5 in 4 steps; second: 3.25 in 2 steps, 1.5 in 4 steps."
    ]


def test_points_are_shown_in_panels(tmp_path):
    reference = dict(data="eight_gaussians", fingerprint="0", reference_count=50_000)
    points = np.random.default_rng(0).standard_normal((100, 2)).astype(np.float32)
    finished_run(tmp_path / "run", [digits_row(n, 1.0 / n, reference=reference) for n in (1, 4)], examples=points)
    report.write([str(tmp_path / "run")], str(tmp_path / "out"))
    text = (tmp_path / "out" / "index.html").read_text()
    assert "eight_gaussians consists of points" in text and text.count("Points generated in") == 2
    assert not list((tmp_path / "out").glob("neighbours*")) and (tmp_path / "out" / "samples.png").exists()


@pytest.mark.parametrize(
    "second, match",
    [
        (None, "no measured rows: run python -m eval.fid_sweep --workdir=.*second first"),
        (
            digits_row(1, 1.0, reference=dict(data="cifar10")),
            "different data .cifar10, digits.: report them separately",
        ),
        (digits_row(1, 1.0, reference=dict(fingerprint="0")), "different examples of digits/train .fingerprints 0, "),
        (
            digits_row(1, 1.0, num_samples=50),
            "no kind of distance in common .first: FD-pixels-1k; second: FD-pixels, 50 sam",
        ),
    ],
)
def test_incomparable_runs_are_rejected(second, match, tmp_path):
    first = finished_run(tmp_path / "first", [digits_row(1, 1.0)])
    finished_run(tmp_path / "second", [] if second is None else [second])
    with pytest.raises(InputError, match=match):
        report.write([first, str(tmp_path / "second")], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_out_must_not_be_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out is a file: give a directory"):
        report.write([finished_run(tmp_path / "run", [digits_row(1, 1.0)])], str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def test_a_picture_of_samples_shows_the_first_images(page):
    found = runs.read([str(page[0].parent / "sgflow")])
    samples = gallery.samples(found, runs.common_kinds(found)[0])
    assert samples.seed == 0 and list(samples.by_steps) == [1, 2, 16] and not samples.missing
    (picture,) = samples.by_steps[16]
    images = found[0].examples(found[0].rows[0])
    np.testing.assert_array_equal(picture.pixels[2::6, 2::6][:8, :8, 0], images[0, :, :, 0])
    assert picture.caption == "sgflow" and picture.text.endswith("sgflow: FD-pixels-1k 0.3202.")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")

    def run(*arguments):
        profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
        command = [found, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", profile, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    probe = tmp_path_factory.mktemp("probe") / "probe.html"
    probe.write_text("<p>here</p>")
    if "here" not in run("--dump-dom", f"file://{probe}"):
        pytest.skip(f"{found} renders no page: it is a stub, or may not read temporary files")
    return run


def test_a_browser_renders_the_page(page, browser, tmp_path):
    browser("--window-size=375,4000", f"--screenshot={tmp_path / 'shot.png'}", f"file://{page[0] / 'index.html'}")
    with Image.open(tmp_path / "shot.png") as shot:
        pixels = np.asarray(shot.convert("L"))
    assert pixels.shape[0] == 4000
    for part in np.split(pixels, 8):
        assert part.std() > 5  # no large part is blank


def test_on_a_phone_the_page_does_not_scroll_sideways(page, browser, tmp_path):
    """In a frame of 375 pixels, narrower than browser windows may be; a script in the page reports its width."""
    tell = """<script>addEventListener("load", () => parent.postMessage({
        width: document.documentElement.scrollWidth,
        font: getComputedStyle(document.body).fontSize,
        broken: [...document.images].filter(image => !image.naturalWidth).length,
        tables: [...document.querySelectorAll("table")].filter(t => !t.closest(".scroll")).length,
        }, "*"))</script>"""
    (tmp_path / "inner.html").write_text((page[0] / "index.html").read_text().replace("</body>", tell + "</body>"))
    hear = """<script>addEventListener("message", e => document.title = JSON.stringify(e.data))</script>"""
    frame = '<iframe src="inner.html" style="width:375px; height:800px; border:0"></iframe>'
    (tmp_path / "outer.html").write_text(f"<title>none</title>{hear}{frame}")
    dom = browser("--virtual-time-budget=5000", "--dump-dom", f"file://{tmp_path / 'outer.html'}")
    told = json.loads(re.search("<title>(.*?)</title>", dom)[1])
    assert told["width"] <= 375 and float(told["font"].removesuffix("px")) >= 16
    assert told["broken"] == 0 and told["tables"] == 0
