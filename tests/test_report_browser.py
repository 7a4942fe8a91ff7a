"""The report in a real browser: charts are drawn, and hostile data stays text."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from clickintent.report import build
from report_factories import NAMES, comparison, metrics, report, taxonomy

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; .ci/run installs it")

ATTACK = (
    "</script><script>document.documentElement.dataset.pwned=1</script>"
    '<img src=x onerror="document.documentElement.dataset.pwned=2">\'"{{ 7 * 7 }}'
)

#: Runs before the page's own scripts: remembers what goes wrong, then points at a session on the map.
WATCH = """
const seen = document.documentElement.dataset;
addEventListener("error", (e) => { seen.problem = "error " + e.message; });
addEventListener("unhandledrejection", (e) => { seen.problem = "rejection " + e.reason; });
addEventListener("securitypolicyviolation", (e) => { seen.problem = "policy " + e.violatedDirective; });
const timer = setInterval(() => {
  if (seen.charts !== "done") return;
  clearInterval(timer);
  const mark = document.querySelector("#chart-map .mark-symbol path");
  const box = mark.getBoundingClientRect();
  const at = {bubbles: true, clientX: box.x + 1, clientY: box.y + 1};
  mark.dispatchEvent(new PointerEvent("pointermove", at));
  document.querySelector(".chips[data-focus-of=map] button").click();
  document.querySelector(".switch button:last-child").click();
  setTimeout(() => { seen.finished = "yes"; }, 300);
}, 50);
"""


def rendered(page: str, folder: Path, *, policy: bool) -> str:
    """The page's DOM after its scripts ran, without or with its own Content-Security-Policy."""
    if policy:
        digest = base64.b64encode(hashlib.sha256(WATCH.encode()).digest()).decode()
        page = page.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    else:
        page, n = re.subn(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page)
        assert n == 1
    page = page.replace("<body>", f"<body><script>{WATCH}</script>", 1)
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    arguments += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
    arguments += [
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1200,900",
        "--virtual-time-budget=6000",
    ]
    done = subprocess.run(
        [str(CHROMIUM), *arguments, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("policy", [True, False], ids=["as it is", "without its policy"])
def test_charts_are_drawn_and_hostile_data_is_inert(policy: bool, tmp_path: Path) -> None:
    sections = metrics(
        events={
            "read": 9,
            "events": 8,
            "duplicates": 0,
            "quarantined": 1,
            "by_source": {ATTACK: {"read": 9, "events": 8, "duplicates": 0, "quarantined": 1}},
            "quarantine_reasons": {ATTACK: 1},
        },
        conversion={"kind": "in_session", "outcome": ATTACK, **comparison("auc", 0.05)}
        | {"prefixes": {"1": comparison("auc", 0.01), "2": comparison("auc", 0.03)}},
    )
    sections["conversion"]["methods"]["embedding"]["log_loss"] = {"value": 0.5, "low": 0.4, "high": 0.6}
    ids = [f"s{i:04d}" for i in range(400)]
    outcomes = pa.table({"session_id": ids, "outcome": [(ATTACK, "card", "none")[i % 3] for i in range(400)]})
    data = report(
        title=ATTACK,
        narrative=ATTACK,
        taxonomy=taxonomy((ATTACK, *NAMES[1:]), model=ATTACK, approved_by=ATTACK),
        metrics=sections,
        outcomes=outcomes,
        versions={ATTACK: ATTACK},
    )
    dom = rendered(build(data), tmp_path, policy=policy)
    root = re.search(r"<html[^>]*>", dom)
    assert root is not None
    assert "data-problem" not in root[0], root[0]
    assert "data-error" not in root[0], root[0]
    assert "data-pwned" not in root[0], root[0]
    assert 'data-finished="yes"' in root[0]
    assert "<img" not in re.sub(r"(?s)<script.*?</script>", "", dom)

    charts = re.findall(r'<div class="chart[^"]*" id="chart-([\w-]+)"[^>]*data-drawn="yes"', dom)
    expected = {"reasons", "links", "time", "movers", "map", "lifts", "rates", "conversion-prefixes"}
    expected |= {"reliability", "learning"}
    expected |= {f"{task}-{part}" for task in ("conversion", "tiles") for part in ("scores", "differences")}
    assert set(charts) == expected
    for name in expected:
        inside = dom.split(f'id="chart-{name}"', 1)[1].split("</figure>", 1)[0]
        assert re.search(r"<svg[^>]*class=\"marks\"", inside), name
        assert re.search(r"<(path|text)[^>]*(fill|stroke)=\"", inside), name

    tooltip = dom.split('id="vg-tooltip-element"', 1)[1].split("</table>", 1)[0]
    assert "Confidence" in tooltip
    assert 'aria-pressed="true"><i class="dot c0">' in dom
    assert re.search(r'<span data-metric="log_loss">', dom), "the other measure is explained"
