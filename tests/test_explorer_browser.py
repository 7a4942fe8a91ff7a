"""The explorer in a real browser: its pages by mouse and keyboard, served and as files, and hostile data."""

from __future__ import annotations

import contextlib
import csv
import functools
import http.server
import json
import math
import re
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Browser, Download, Page, expect, sync_playwright  # noqa: E402

import serving  # noqa: E402
from clickintent import pipeline  # noqa: E402
from clickintent.config import Config, load_config  # noqa: E402
from clickintent.taxonomy import Taxonomy  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; .ci/run installs it")

ARGUMENTS = ["--no-sandbox", "--no-first-run", "--disable-sync", "--disable-dev-shm-usage"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-quic"]
ATTACK = '</script><img src=x onerror="document.documentElement.dataset.pwned=1">'

#: What a browser without WebGPU says of it, before the map is drawn with WebGL.
EXPECTED = re.compile("WebGPU|GPU stall|No available adapters")

TABS = ("", "map", "intents", "sessions", "accounts", "review", "drift")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def config(served: tuple[Config, Any], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A workspace with an explorer."""
    folder = tmp_path_factory.mktemp("explored")
    shutil.copytree(served[0].workspace, folder / "w")
    (folder / "clickintent.toml").write_text('workspace = "w"\n[serve]\nlate_hours = 24\n')
    config = load_config(folder / "clickintent.toml")
    pipeline.explore(config)
    return config


@pytest.fixture(scope="module")
def server(config: Config) -> Iterator[str]:
    server = serving.Server(config.workspace.parent / "clickintent.toml")
    yield f"http://127.0.0.1:{server.port}/"
    server.end(signal.SIGTERM)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser) as page:
        yield page


@contextlib.contextmanager
def opened(browser: Browser, *, width: int = 1300, height: int = 900, dark: bool = False) -> Iterator[Page]:
    """A page that fails the test if anything is amiss in it: an error, a refused script or style."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    amiss: list[str] = []
    page.on("pageerror", lambda error: amiss.append(str(error)))
    page.on(
        "console",
        lambda said: (
            amiss.append(said.text)
            if said.type in ("error", "warning") and not EXPECTED.search(said.text)
            else None
        ),
    )
    page.set_default_timeout(20_000)
    yield page
    context.close()
    refused = re.compile(r"status of 40[1349]")  # by the service; the page tells it in its own words
    assert not [text for text in amiss if not refused.search(text)]


@contextlib.contextmanager
def files(folder: Path) -> Iterator[str]:
    """A folder as any web server would serve it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def data(config: Config, name: str) -> Any:
    folder = config.workspace / "explorer" / "data"
    return json.loads((folder / ("" if name == "overview.json" else run(config)) / name).read_text())


def run(config: Config) -> str:
    return str(json.loads((config.workspace / "explorer" / "data" / "overview.json").read_text())["run"])


def place(link: str) -> int:
    """Where a session is, by the link to it."""
    return int(link.split("/sessions/")[1].split("/")[0])


def number(text: str | None) -> int:
    found = re.search(r"[\d,]+", text or "")
    assert found, text
    return int(found[0].replace(",", ""))


@pytest.mark.parametrize(
    ("width", "dark"), [(1300, False), (390, True)], ids=["wide and light", "narrow and dark"]
)
def test_every_page_is_drawn(browser: Browser, server: str, config: Config, width: int, dark: bool) -> None:
    first = data(config, "overview.json")["intents"][0]["id"]
    with opened(browser, width=width, height=800, dark=dark) as page:
        for route in (*TABS, f"intents/{first}", "sessions/0", f"review/{first}"):
            page.goto(f"{server}#/{route}")
            expect(page.locator(".wait")).to_have_count(0)
            expect(page.locator("[role=alert]")).to_have_count(0)
            assert page.locator("main").inner_text().strip(), route
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{route} is too wide"
            fields = page.locator("input, select, textarea").evaluate_all(
                "all => all.map(e => e.labels.length)"
            )
            assert all(fields), f"{route}: a field without a label"


def test_the_overview_says_what_the_tables_say_and_sorts(page: Page, server: str, config: Config) -> None:
    about = data(config, "overview.json")
    page.goto(server)
    assert number(page.locator(".figures dd").first.text_content()) == about["sessions"]
    rows = page.locator(".scroll tbody tr")
    expect(rows).to_have_count(len(about["intents"]))
    assert [number(text) for text in rows.locator("td:nth-child(2) .num").all_text_contents()] == [
        row["sessions"] for row in about["intents"]
    ]
    page.get_by_role("button", name="Intent", exact=True).click()
    names = [name.lower() for name in rows.locator("th .name").all_text_contents()]
    assert names == sorted(names)
    assert page.locator("th[aria-sort=ascending]").text_content() == "Intent"
    name = about["intents"][0]["name"]
    rows.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    expect(page.locator(".lede")).to_have_text(about["intents"][0]["definition"])


def test_an_intent_leads_to_a_session_and_its_labels(page: Page, server: str, config: Config) -> None:
    about = data(config, "overview.json")
    row = about["intents"][0]
    page.goto(f"{server}#/intents/{row['id']}")
    strip = page.locator(".strip").first
    expect(strip.locator(".name")).to_have_text(row["name"])
    strip.get_by_role("link").first.click()
    page.wait_for_url("**/#/sessions/*/*")
    index = place(page.url)
    session = data(config, f"sessions/{index // about['shard']}.json")[index % about["shard"]]
    expect(page.locator(".timeline li")).to_have_count(len(session["events"]))
    expect(page.locator(".label")).to_have_count(len(session["labels"]))
    supported = [label for label in session["labels"] if label["events"]]
    if supported:
        expect(page.locator(".timeline li.behind")).to_have_count(len(supported[0]["events"]))
        page.locator(".label button[aria-pressed=true]").click()
        expect(page.locator(".timeline li.behind")).to_have_count(0)
    near = page.locator("section").filter(has_text="Most like it").locator(".strip")
    expect(near).to_have_count(8)


def test_the_nearest_sessions_are_those_of_the_embeddings(page: Page, server: str, config: Config) -> None:
    about = data(config, "overview.json")
    folder = config.workspace / "explorer" / "data" / run(config)
    vectors = np.fromfile(folder / "vectors.bin", np.int8).reshape(about["points"]["n"], -1).astype(int)
    order = np.argsort(-(vectors @ vectors[0]), kind="stable")
    expected = [int(i) for i in order if i != 0][:8]
    page.goto(f"{server}#/sessions/0")
    links = page.locator("section").filter(has_text="Most like it").locator(".strip a:first-child")
    expect(links).to_have_count(8)
    hrefs = [str(link.get_attribute("href")) for link in links.all()]
    found = [place(href) for href in hrefs if "sessions" in href]
    similar = vectors @ vectors[0]
    assert [similar[i] for i in found] == [similar[i] for i in expected]


def test_a_part_of_the_map_says_who_they_are(page: Page, server: str, config: Config) -> None:
    about = data(config, "overview.json")
    page.goto(f"{server}#/map")
    box = page.locator(".canvas canvas").first.bounding_box()
    assert box is not None
    heading = page.locator("aside h2")

    def drag(x0: float, y0: float, x1: float, y1: float) -> None:
        page.keyboard.down("Shift")
        page.mouse.move(box["x"] + x0 * box["width"], box["y"] + y0 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + x1 * box["width"], box["y"] + y1 * box["height"], steps=5)
        page.mouse.up()
        page.keyboard.up("Shift")

    drag(0.005, 0.005, 0.995, 0.995)
    expect(heading).to_contain_text("sessions")
    assert number(heading.text_content()) == about["shown"]
    page.get_by_role("button", name="Clear").click()
    expect(heading).to_have_count(0)
    drag(0.01, 0.01, 0.5, 0.94)
    expect(heading).to_contain_text("sessions")
    assert 0 < number(heading.text_content()) < about["shown"]
    page.locator(".canvas").focus()
    page.keyboard.press("Escape")
    expect(heading).to_have_count(0)


def test_the_map_by_keyboard_and_a_session_of_it(page: Page, server: str, config: Config) -> None:
    """Far into the map, a click in its middle hits the session that was brought there."""
    page.goto(f"{server}#/map")
    canvas = page.locator(".canvas")
    expect(canvas.locator("canvas").first).to_be_visible()
    before = canvas.screenshot()
    canvas.focus()
    page.keyboard.press("Enter")  # all is in view
    assert number(page.locator("aside h2").text_content()) == data(config, "overview.json")["shown"]
    page.keyboard.press("Escape")
    for key in ("ArrowRight", "ArrowUp", "+", "+"):
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert canvas.screenshot() != before
    page.keyboard.press("0")
    for by in ("confidence", "linked"):
        page.get_by_label("Colour by").select_option(by)
        expect(page.locator(".legend li").first).to_be_visible()
    page.get_by_label("Colour by").select_option("intent")
    first = page.locator(".legend button").first
    first.click()
    expect(first).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Show all").click()
    expect(first).to_have_attribute("aria-pressed", "false")


def test_sessions_are_found_by_keyboard_alone(page: Page, server: str, config: Config) -> None:
    about = data(config, "overview.json")
    page.goto(f"{server}#/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    for _ in range(5):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Sessions")).to_be_focused()
    page.keyboard.press("Enter")
    found = page.locator("[role=status]").filter(has_text="found")
    assert number(found.text_content()) == about["shown"]
    page.get_by_role("combobox", name="Intent").select_option(about["intents"][1]["id"])
    names = page.locator(".strip .name")
    expect(names.first).to_have_text(about["intents"][1]["name"])
    n = min(25, number(found.text_content()))
    expect(names).to_have_text([about["intents"][1]["name"]] * n)


def table(downloaded: Download) -> list[dict[str, str]]:
    with Path(downloaded.path()).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_map_and_list_show_the_sessions_that_pass_the_same_filter(
    page: Page, server: str, config: Config
) -> None:
    about = data(config, "overview.json")
    shards = range(math.ceil(about["shown"] / about["shard"]))
    told = [session for k in shards for session in data(config, f"sessions/{k}.json")]
    device = about["points"]["names"]["device"][0]
    first, last = told[len(told) // 4]["start"], told[len(told) // 2]["start"]
    days = [time.strftime("%Y-%m-%d", time.gmtime(ms // 1000)) for ms in (first, last)]
    wanted = {
        session["id"]
        for session in told
        if (session["device"] or "unknown") == device
        and days[0] <= time.strftime("%Y-%m-%d", time.gmtime(session["start"] // 1000)) <= days[1]
    }
    assert 0 < len(wanted) < len(told)

    page.goto(f"{server}#/map")
    expect(page.locator(".canvas canvas").first).to_be_visible()
    page.get_by_text("Filter", exact=True).click()
    chosen = page.get_by_role("combobox", name="Device")
    chosen.focus()
    for key, value in (("ArrowDown", device), ("ArrowUp", ""), ("ArrowDown", device)):  # it stays where it is
        page.keyboard.press(key)
        expect(page).to_have_url(re.compile(rf"device={device}$" if value else r"map\?$"))
        expect(chosen).to_be_focused()
        expect(chosen).to_have_value(value)
    page.get_by_label("From (UTC)").fill(days[0])
    page.get_by_label("To (inclusive)").fill(days[1])
    heading = page.locator("aside h2")
    expect(heading).to_have_text(re.compile(rf"^{len(wanted):,} session"))
    page.locator(".canvas").focus()
    page.keyboard.press("Enter")  # of those in view, all
    expect(heading).to_have_text(re.compile(rf"^{len(wanted):,} session"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    taken = table(download.value)
    assert {row["session"] for row in taken} == wanted
    assert {row["device"] for row in taken} == {device}
    by_id = {session["id"]: session for session in told}
    for row in taken:
        session = by_id[row["session"]]
        assert int(row["events"]) == session["n_events"]
        assert row["start"] == time.strftime("%Y-%m-%dT%H:%M", time.gmtime(session["start"] // 1000))

    page.get_by_role("link", name="As a list").click()
    expect(page.locator("[role=status]").filter(has_text="found")).to_have_text(f"{len(wanted):,} found")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    assert {row["session"] for row in table(download.value)} == wanted

    page.goto(f"{server}#/map?device={device}&from=1999-01-01&to=1999-01-02")
    expect(heading).to_have_text("0 sessions")
    page.get_by_role("button", name="Clear").click()
    expect(heading).to_have_count(0)
    expect(page.locator(".hint")).to_contain_text(f"{about['shown']:,} sessions")


def test_tables_sort_both_ways_and_can_be_taken_along(page: Page, server: str, config: Config) -> None:
    about = data(config, "overview.json")
    page.goto(server)
    rows = page.locator(".scroll tbody tr")
    sizes = [row["sessions"] for row in about["intents"]]
    page.locator("th").get_by_role("button", name=re.compile("^Sessions")).click()
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("Sessions")
    shown = [number(text) for text in rows.locator("td:nth-child(2) .num").all_text_contents()]
    assert shown == sorted(sizes)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").last.click()
    taken = table(download.value)
    assert [row["intent_id"] for row in taken] == [row["id"] for row in about["intents"]]
    assert [int(row["sessions"]) for row in taken] == sizes
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").first.click()
    over_time = table(download.value)
    assert [int(row["sessions"]) for row in over_time] == about["total"]
    assert sum(int(row["partial"]) for row in over_time) == len(about["partial"])


def test_an_account_is_looked_up_at_the_service(page: Page, server: str, config: Config) -> None:
    ts = (time.time_ns() // 1000) - 60_000_000
    address = data(config, "pages.json")["pages"][0]["page"]
    events = [
        {"event_id": f"e{i}", "visitor_id": "v", "account_id": "a/1 &", "ts": ts + i * 5_000_000}
        | {"event_type": "page_view", "page": address}
        for i in range(4)
    ]
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{server}v1/events", json.dumps({"events": events}).encode(), headers)
    with urllib.request.urlopen(asked, timeout=20) as answer:
        assert json.load(answer)["accepted"] == len(events)
    page.goto(f"{server}#/accounts")
    page.get_by_label("Account id").fill("nobody")
    page.keyboard.press("Enter")
    expect(page.locator("[role=alert]")).to_contain_text("no visitor is tied to this account")
    page.get_by_label("Account id").fill("a/1 &")
    page.keyboard.press("Enter")
    expect(page.locator("[role=status]")).to_contain_text("1 session kept")
    expect(page.locator("section.card h2")).to_have_count(3)
    expect(page.locator(".evidence").first).to_contain_text("logged in during the session")
    assert page.url == f"{server}#/accounts"


def test_decisions_are_written_where_the_terminal_writes_them(
    page: Page, server: str, config: Config
) -> None:
    path = config.workspace / "taxonomy.yaml"
    before = Taxonomy.load(path)
    one, other = before.intents[0], before.intents[1]
    page.goto(f"{server}#/review/{one.id}")
    page.get_by_label("Your name").fill("Ann")
    page.get_by_label("Name", exact=True).fill('Cards -- and | "more" <b>')
    page.get_by_label("Why").fill("it says more")
    page.get_by_role("button", name="Change").first.click()
    expect(page.locator(".said")).to_contain_text("Written: rename")
    after = Taxonomy.load(path)
    assert after.intents[0].name == 'Cards -- and | "more" <b>'
    expect(page.get_by_role("heading", level=2).first).to_have_text('Cards -- and | "more" <b>')
    history = page.locator(".history li").first
    expect(history).to_contain_text("Ann rename")
    expect(history).to_contain_text("it says more")

    page.get_by_role("button", name="Approve as it stands").click()
    page.wait_for_url(f"**/#/review/{other.id}")  # the next one
    assert Taxonomy.load(path).intents[0].is_approved

    page.once("dialog", lambda asked: asked.accept())
    page.get_by_label("It is the same as").select_option(one.id)
    page.get_by_role("button", name="Merge into it").click()
    expect(page.locator(".said")).to_contain_text("Written: merge")
    merged = Taxonomy.load(path)
    assert other.id not in merged.intent_ids

    # meanwhile, somebody else
    path.write_text(path.read_text().replace(merged.intents[1].name, "Renamed by hand"))
    page.goto(f"{server}#/review/{merged.intents[2].id}")
    page.get_by_role("button", name="Approve as it stands").click()
    expect(page.locator("[role=alert]")).to_be_visible()
    expect(page.get_by_role("link", name="Renamed by hand")).to_be_visible()


def test_a_service_with_keys_asks_for_one(browser: Browser, config: Config, tmp_path: Path) -> None:
    from clickintent.serve import api_keys

    shutil.copytree(config.workspace, tmp_path / "w")
    (tmp_path / "clickintent.toml").write_text('workspace = "w"\n')
    reading = api_keys.add(tmp_path / "w", "analysts", ("read",))
    server = serving.Server(tmp_path / "clickintent.toml")
    try:
        with opened(browser) as page:
            page.goto(f"http://127.0.0.1:{server.port}/")
            page.get_by_label("API key").fill("ci_wrong")
            page.keyboard.press("Enter")
            expect(page.locator("[role=alert]")).to_contain_text("does not know")
            page.get_by_label("API key").fill(reading)
            page.keyboard.press("Enter")
            expect(page.get_by_role("heading", level=1)).to_have_text("What people come for")
            page.goto(f"http://127.0.0.1:{server.port}/#/review")
            page.locator(".with-list nav a").first.click()
            page.get_by_label("Your name").fill("Ann")
            page.get_by_role("button", name="Approve as it stands").click()
            expect(page.locator("[role=alert]")).to_contain_text("admin")
    finally:
        server.end(signal.SIGTERM)


def test_as_files_nothing_can_be_decided_and_hostile_data_is_text(
    page: Page, config: Config, tmp_path: Path
) -> None:
    folder = tmp_path / "site"
    shutil.copytree(config.workspace / "explorer", folder)
    about = data(config, "overview.json")
    about["title"] = ATTACK
    about["outcome"] = ATTACK
    about["points"]["names"] = {"device": [ATTACK], "source": [ATTACK]}
    for row in about["intents"]:
        row.update(name=ATTACK, area=ATTACK, definition=ATTACK)
    (folder / "data" / "overview.json").write_text(json.dumps(about))
    pages = data(config, "pages.json")
    pages = {
        "pages": [{"page": ATTACK, "title": ATTACK}] * len(pages["pages"]),
        "types": [ATTACK] * len(pages["types"]),
    }
    (folder / "data" / about["run"] / "pages.json").write_text(json.dumps(pages))
    with files(folder) as site:
        for route in (*TABS, f"intents/{about['intents'][0]['id']}", "sessions/0"):
            page.goto(f"{site}#/{route}")
            expect(page.locator(".wait")).to_have_count(0)
            assert page.evaluate("document.documentElement.dataset.pwned") is None, route
            assert page.locator("main img").count() == 0, route
        page.goto(f"{site}#/review")
        expect(page.locator(".banner")).to_contain_text("nothing can be decided here")
        expect(page.get_by_role("button")).to_have_count(0)


def test_what_was_made_anew_is_told_and_not_mixed(page: Page, config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    shutil.copytree(config.workspace / "explorer", folder)
    about = data(config, "overview.json")
    run = folder / "data" / about["run"]
    session = data(config, "sessions/0.json")[1]
    with files(folder) as site:
        page.goto(f"{site}#/sessions/1/{session['id']}")
        expect(page.locator(".timeline li")).to_have_count(len(session["events"]))
        page.goto(f"{site}#/sessions/2/{session['id']}")
        expect(page.locator("[role=alert]")).to_contain_text("made anew")
        run.rename(run.with_name("0123456789ab"))
        page.goto(f"{site}#/intents/{about['intents'][0]['id']}")
        expect(page.locator("[role=alert]")).to_contain_text("Reload the page")


def test_the_way_back_leads_to_the_same_list(page: Page, server: str, config: Config) -> None:
    about = data(config, "overview.json")
    page.goto(f"{server}#/sessions")
    page.get_by_role("combobox", name="Intent").select_option(about["intents"][0]["id"])
    page.get_by_role("combobox", name="Order").select_option("surest first")
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".pager")).to_contain_text("2 of")
    page.wait_for_load_state("networkidle")
    first = page.locator(".strip a").first
    link = first.get_attribute("href")
    first.click()
    page.wait_for_url(f"**/{link}")
    page.go_back()
    expect(page.locator(".pager")).to_contain_text("2 of")
    expect(first).to_have_attribute("href", str(link))


def test_without_sessions_it_says_so(page: Page, config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    shutil.copytree(config.workspace / "explorer", folder)
    about = data(config, "overview.json")
    about |= {"sessions": 0, "shown": 0, "visitors": 0, "links": {}, "rate": None, "bins": [], "total": []}
    about |= {"compared": None, "unlabelled": 0, "intents": []}
    about["points"] |= {"n": 0, "vectors": None}
    (folder / "data" / "overview.json").write_text(json.dumps(about))
    with files(folder) as site:
        for route, says in (("", "No sessions yet"), ("map", "No map"), ("sessions", "No single sessions")):
            page.goto(f"{site}#/{route}")
            expect(page.get_by_role("heading", level=1)).to_have_text(says)
        page.goto(f"{site}#/intents/nothing")
        expect(page.locator("[role=alert]")).to_contain_text("There is no intent nothing")
