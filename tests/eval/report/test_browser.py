"""The page in a browser: it is drawn, and fits a phone."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


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
