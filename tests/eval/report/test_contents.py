"""The page has every number, picture and count."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from eval import features, reference, report
from eval.fid_sweep import Request, sweep
from eval.page import gallery, runs
from eval.scores import class_names, results
from tests import html_page, tiny
from tests.rows import digits_row, finished_run


def test_the_page_is_complete_and_self_contained(page):
    folder, _ = page
    text = (folder / "index.html").read_text()
    seen = html_page.seen(folder)
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
    (table,) = [lines for lines in html_page.tables(folder) if "against" in lines[0]]
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
    tables = html_page.tables(tmp_path / "out")
    assert tables[0][0][1].endswith("guidance 2 at times 0.2-0.8, step 4")
    (table,) = [lines for lines in tables if lines[0][0] == "class"]
    assert table[0] == ["class", "training data", "sgflow, 1 step", "sgflow, 4 steps"]
    assert table[1] == ["<b>", "9.9 %", "60 (5.7 %)", "60 (5.7 %)"] and len(table) == 11


def test_scores_are_side_by_side_without_a_winner(page):
    table = html_page.tables(page[0])[0]
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
    table = html_page.tables(tmp_path / "out")[0]
    assert table[-1] == ["real", f"{distance:.3g} between two halves of the real examples (899 and 898)"]
    assert distance == pytest.approx(0.26, abs=0.03)
    assert any("real images" in image["alt"] for image in html_page.seen(tmp_path / "out").all("img"))


def test_costs_and_copies_are_on_the_page(page):
    tables = {lines[0][-1]: lines[1:] for lines in html_page.tables(page[0])}
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


def test_points_are_shown_in_panels(tmp_path):
    reference = dict(data="eight_gaussians", fingerprint="0", reference_count=50_000)
    points = np.random.default_rng(0).standard_normal((100, 2)).astype(np.float32)
    finished_run(tmp_path / "run", [digits_row(n, 1.0 / n, reference=reference) for n in (1, 4)], examples=points)
    report.write([str(tmp_path / "run")], str(tmp_path / "out"))
    text = (tmp_path / "out" / "index.html").read_text()
    assert "eight_gaussians consists of points" in text and text.count("Points generated in") == 2
    assert not list((tmp_path / "out").glob("neighbours*")) and (tmp_path / "out" / "samples.png").exists()


def test_a_picture_of_samples_shows_the_first_images(page):
    found = runs.read([str(page[0].parent / "sgflow")])
    samples = gallery.samples(found, runs.common_kinds(found)[0])
    assert samples.seed == 0 and list(samples.by_steps) == [1, 2, 16] and not samples.missing
    (picture,) = samples.by_steps[16]
    images = found[0].examples(found[0].rows[0])
    np.testing.assert_array_equal(picture.pixels[2::6, 2::6][:8, :8, 0], images[0, :, :, 0])
    assert picture.caption == "sgflow" and picture.text.endswith("sgflow: FD-pixels-1k 0.3202.")
