"""The page in a real browser, at phone and desk width: no error, no sideways scrolling, readable text."""

import html
import json
import re

import pytest
from headless import CHROMIUM, served, visit
from synthetic_run import make_run

from maskwright.report import write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a headless Chromium, and none is installed"),
]

PROBE = """<!doctype html><title>probe</title><iframe id="page" src="report.html"
style="width:WIDTHpx;height:900px;border:0"></iframe><pre id="found"></pre><script>
addEventListener("load", () => {
  const inner = document.getElementById("page").contentWindow, page = inner.document;
  for (const fold of page.querySelectorAll("details")) fold.open = true;
  const root = page.documentElement;
  const sizes = [...page.querySelectorAll("body *")]
    .filter((element) => [...element.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
    .filter((element) => !["SCRIPT", "TITLE"].includes(element.tagName.toUpperCase()))
    .map((element) => parseFloat(inner.getComputedStyle(element).fontSize));
  const plot = page.querySelector("#loss .plot"), box = plot.getBoundingClientRect();
  plot.dispatchEvent(new inner.PointerEvent("pointermove", { clientX: box.left + box.width / 2 }));
  const paper = inner.getComputedStyle(page.body).backgroundColor;
  document.getElementById("found").textContent = JSON.stringify({
    scrolls: root.scrollWidth, width: root.clientWidth, smallest: Math.min(...sizes), paper,
    readout: plot.querySelector(".readout").textContent, charts: page.querySelectorAll("svg").length,
  });
});</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a report, and its address on this machine."""
    folder = tmp_path_factory.mktemp("site")
    write_report(folder / "report.html", "A demo", **make_run(folder / "run"))
    with served(folder) as address:
        yield folder, address


def probe(site, profile, width, scheme=1):
    folder, address = site
    (folder / f"probe-{width}.html").write_text(PROBE.replace("WIDTH", str(width)))
    dom, console = visit(f"{address}/probe-{width}.html", profile, scheme)
    found = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found[1])), console


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_and_reports_no_error(site, tmp_path, width):
    found, console = probe(site, tmp_path, width)
    assert console == []
    assert found["width"] == pytest.approx(width, abs=20)
    assert found["scrolls"] <= found["width"]
    assert found["smallest"] >= 11
    assert found["charts"] >= 10


def test_pointing_at_a_chart_shows_its_values(site, tmp_path):
    found, _ = probe(site, tmp_path, 1000)
    assert re.search(r"step 1,\d{3}", found["readout"])
    assert re.search(r"validation 3\.\d+", found["readout"])


def test_dark_and_light_differ(site, tmp_path):
    light, _ = probe(site, tmp_path / "light", 800, scheme=1)
    dark, _ = probe(site, tmp_path / "dark", 800, scheme=0)
    assert light["paper"] == "rgb(251, 250, 248)"
    assert dark["paper"] == "rgb(21, 23, 27)"


def test_the_probe_would_notice(site, tmp_path):
    folder, address = site
    broken = "<script>console.error('seen')</script><div style='width:2000px'>wide</div>"
    (folder / "broken.html").write_text(broken)
    _, console = visit(f"{address}/broken.html", tmp_path)
    assert any("seen" in line for line in console)


def test_foreign_script_does_not_run_even_if_escaping_failed(site, tmp_path):
    folder, address = site
    page = (folder / "report.html").read_text(encoding="utf-8")
    injected = page.replace("<footer>", "<script>document.title = 'taken'</script><footer>")
    assert injected != page
    (folder / "injected.html").write_text(injected, encoding="utf-8")
    dom, console = visit(f"{address}/injected.html", tmp_path)
    assert "<title>A demo</title>" in dom
    assert any("Content Security Policy" in line for line in console)
