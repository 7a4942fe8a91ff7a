"""The explorer in headless Chromium: until the first page stands, until the map does, how smoothly it moves.

The workspace of ``explorer.py --work DIR``, served by ``clickintent serve`` and by Python's ``http.server``;
a page of one sentence is the floor of the browser and the server. Every figure is of a new browser profile,
the kinds in turn. The headless browser draws without a graphics card: frames per second are a floor of what
a user sees.

    python benchmarks/explorer_browser.py WORKSPACE [--rounds 15]
"""

from __future__ import annotations

import argparse
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from common import read_results, write_results

_ARGUMENTS = ["--no-sandbox", "--no-first-run", "--disable-sync", "--disable-dev-shm-usage"]
_ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-quic"]

#: Two frames after something is in the page, it is on the screen.
_WATCH = """
window.drawn = {};
const kinds = {first: ".scroll tbody tr", map: ".canvas canvas", floor: "p"};
new MutationObserver(() => {
  for (const [name, what] of Object.entries(kinds))
    if (!(name in drawn) && document.querySelector(what)) {
      drawn[name] = null;
      requestAnimationFrame(() => requestAnimationFrame(() => { drawn[name] = performance.now(); }));
    }
}).observe(document, {childList: true, subtree: true});
"""
_PAN = """
() => new Promise((done) => {
  const canvas = document.querySelector(".canvas");
  const began = performance.now();
  let frames = 0;
  const next = () => {
    const key = frames++ % 2 ? "ArrowLeft" : "ArrowRight";
    canvas.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    const passed = performance.now() - began;
    if (passed < 2000) requestAnimationFrame(next); else done(frames / passed * 1000);
  };
  requestAnimationFrame(next);
})
"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def drawn(browser: Browser, url: str, name: str) -> tuple[Page, float]:
    """A page in a new profile, and the milliseconds from the navigation until it was drawn."""
    page = browser.new_context(viewport={"width": 1300, "height": 900}).new_page()
    page.add_init_script(_WATCH)
    page.goto(url)
    for _ in range(600):
        found = page.evaluate("window.drawn")
        if found.get(name):
            return page, float(found[name])
        time.sleep(0.02)
    raise SystemExit(f"{url} was not drawn")


def selected(page: Page) -> float:
    """Milliseconds from the end of a drag over the map until it says who they are."""
    box = page.locator(".canvas").bounding_box()
    assert box is not None
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 5, steps=4)
    began = time.perf_counter()
    page.mouse.up()
    page.keyboard.up("Shift")
    page.locator(".selected h2").wait_for()
    return (time.perf_counter() - began) * 1000


def filtered(page: Page) -> float:
    """Milliseconds from the choice of a device until it is said how many sessions that are."""
    page.get_by_text("Filter", exact=True).click()
    device = page.get_by_role("combobox", name="Device")
    began = time.perf_counter()
    device.select_option(index=1)
    page.locator(".selected h2").wait_for()
    return (time.perf_counter() - began) * 1000


def measure(browser: Browser, urls: dict[str, str], floor: str, rounds: int) -> dict[str, Any]:
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, url, what in (
            ("floor", floor, "floor"),
            *((f"first page, {kind}", url, "first") for kind, url in urls.items()),
            ("map", f"{urls['service']}#/map", "map"),
        ):
            page, milliseconds = drawn(browser, url, what)
            found[name].append(milliseconds)
            if what == "map":
                time.sleep(1)
                found["frames a second"].append(float(page.evaluate(_PAN)))
                found["selection of all"].append(selected(page))
                page.get_by_role("button", name="Clear").click()
                found["filter"].append(filtered(page))
            page.context.close()
    return {
        name: {
            "median": round(float(np.median(values)), 1),
            "low": round(min(values), 1),
            "high": round(max(values), 1),
        }
        for name, values in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    folder = arguments.workspace.resolve()
    site = folder / "explorer"
    (site / "floor.html").write_text("<!doctype html><title>floor</title><p>One sentence.</p>")
    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    port = 8765
    environment = {"CLICKINTENT_KEY": "a key for benchmarks only", **os.environ}
    config = folder / "serve.toml"
    config.write_text('workspace = "."\n')
    command = [sys.executable, "-m", "clickintent", "serve", str(config), "--port", str(port)]
    service = subprocess.Popen(command, env=environment)
    try:
        for _ in range(600):
            try:
                with closing(urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz")):
                    break
            except OSError:
                time.sleep(0.1)
        static = f"http://127.0.0.1:{files.server_port}/"
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
            urls = {"service": f"http://127.0.0.1:{port}/", "files": static}
            found = measure(browser, urls, f"{static}floor.html", arguments.rounds)
            browser.close()
    finally:
        service.terminate()
        service.wait()
        files.shutdown()
        (site / "floor.html").unlink()
    for name, value in found.items():
        print(f"{name:24s} {value['median']:8.1f}   {value['low']:.1f} to {value['high']:.1f}")
    write_results("explorer", {**read_results("explorer"), "browser": {"rounds": arguments.rounds, **found}})


if __name__ == "__main__":
    main()
