"""The data report in a real browser, at phone and desk width, light and dark, with hostile text too."""

import html
import json
import re

import pytest
from headless import CHROMIUM, served, visit
from synthetic_data import CONFIG, EVIL, hostile, make_audit, make_manifest, make_timings, write_data_folder

from maskwright.report import build_data_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a headless Chromium, and none is installed"),
]

PROBE = """<!doctype html><title>probe</title><iframe id="page" src="PAGE"
style="width:WIDTHpx;height:900px;border:0"></iframe><pre id="found"></pre><script>
addEventListener("load", () => {
  const inner = document.getElementById("page").contentWindow, page = inner.document;
  for (const fold of page.querySelectorAll("details")) fold.open = true;
  const root = page.documentElement, box = (element) => element.getBoundingClientRect();
  const texts = [...page.querySelectorAll("body *")]
    .filter((element) => [...element.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
    .filter((element) => !["SCRIPT", "TITLE"].includes(element.tagName.toUpperCase()));
  const sizes = texts.map((element) => parseFloat(inner.getComputedStyle(element).fontSize));
  const overlaps = [];
  for (const list of page.querySelectorAll(".flow .ends")) {
    const labels = [...list.children].map(box);
    labels.slice(1).forEach((label, index) => {
      if (label.top < labels[index].bottom - 1) overlaps.push(index);
    });
    if (labels.some((label) => label.left < -1 || label.right > root.clientWidth + 1)) overlaps.push("out");
  }
  const plot = page.querySelector("#near .plot");
  if (plot) {
    const place = box(plot), at = place.left + 0.8 * place.width;
    plot.dispatchEvent(new inner.PointerEvent("pointermove", { clientX: at }));
  }
  document.getElementById("found").textContent = JSON.stringify({
    scrolls: root.scrollWidth, width: root.clientWidth, smallest: Math.min(...sizes), overlaps,
    paper: inner.getComputedStyle(page.body).backgroundColor, title: page.title,
    readout: plot ? plot.querySelector(".readout").textContent : null,
    ribbons: page.querySelectorAll(".ribbon").length,
    ink: inner.getComputedStyle(page.querySelector(".ribbon") || page.body).fill,
  });
});</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with two data folders and their reports, and its address on this machine."""
    folder = tmp_path_factory.mktemp("data-site")
    build_data_report(write_data_folder(folder / "mixed"))
    parts = [hostile(part) for part in (make_audit(), make_timings(), make_manifest())]
    build_data_report(write_data_folder(folder / "hostile", *parts, config=f"{EVIL}: {EVIL}\n{CONFIG}"))
    with served(folder) as address:
        yield folder, address


def probe(site, profile, name, width, scheme=1):
    folder, address = site
    page = f"probe-{name}-{width}.html"
    written = PROBE.replace("PAGE", f"{name}/data_report.html").replace("WIDTH", str(width))
    (folder / page).write_text(written, encoding="utf-8")
    dom, console = visit(f"{address}/{page}", profile, scheme)
    found = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found[1])), console


@pytest.mark.parametrize("name", ["mixed", "hostile"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_and_reports_no_error(site, tmp_path, name, width):
    found, console = probe(site, tmp_path, name, width)
    assert console == []
    assert found["title"] == name
    assert found["width"] == pytest.approx(width, abs=20)
    assert found["scrolls"] <= found["width"]
    assert found["smallest"] >= 11
    assert found["ribbons"] >= 8
    assert found["overlaps"] == []


def test_pointing_at_the_curve_shows_similarity_and_chance(site, tmp_path):
    found, _ = probe(site, tmp_path, "mixed", 1000)
    assert found["readout"] == "similarity of two documents 80.00 %by similarity 97.46 %"


def test_dark_and_light_differ(site, tmp_path):
    light, _ = probe(site, tmp_path / "light", "mixed", 800, scheme=1)
    dark, _ = probe(site, tmp_path / "dark", "mixed", 800, scheme=0)
    assert (light["paper"], dark["paper"]) == ("rgb(251, 250, 248)", "rgb(21, 23, 27)")
    assert light["ink"] != dark["ink"]
