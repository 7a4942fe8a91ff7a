"""The simulated bank: what it writes, how dirty that is, and that its truth is true."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from clickintent.config import AccountConversion, SimBankConfig, load_config
from clickintent.simbank import simulate
from clickintent.simbank.app import MAX_TILES, MIN_TILES, policy
from clickintent.simbank.export import SCHEMA
from clickintent.simbank.intents import CAMPAIGNS, INTENTS, PRODUCTS, TILES, weights
from clickintent.simbank.latent import Draw, build_latent
from clickintent.simbank.pages import NEW_PAGES, PAGES, ROLES

DAY = 86_400_000_000
START = 1_772_409_600_000_000  # 2026-03-02, the configuration's default


@dataclass(frozen=True)
class Bank:
    out: Path
    summary: dict[str, Any]

    def table(self, name: str) -> pa.Table:
        return pq.read_table(self.out / name)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    out = tmp_path_factory.mktemp("simbank") / "bank"
    return Bank(out, simulate(SimBankConfig(out=out, sessions=9000), seed=3))


@pytest.fixture(scope="module")
def web(bank: Bank) -> pa.Table:
    return bank.table("web")


@pytest.fixture(scope="module")
def sessions(bank: Bank) -> pa.Table:
    return bank.table("truth/sessions.parquet")


def param(web: pa.Table, key: str, kind: str = "string_value") -> pa.Array:
    """The values of one event parameter, of the events that have it."""
    entries = web["event_params"].combine_chunks().flatten()
    values = entries.field("value").field(kind)
    return values.filter(pc.equal(entries.field("key"), key))


def test_site_is_large_and_written() -> None:
    assert len({page.path for page in PAGES}) == len(PAGES) >= 60
    assert len({page.key for page in PAGES}) == len({page.title for page in PAGES}) == len(PAGES)
    assert len({page.area for page in PAGES}) >= 10
    assert all(page.role in ROLES for page in PAGES)
    assert all(15 <= len(page.text.split()) <= 40 for page in PAGES)


def test_intents_refer_to_what_exists() -> None:
    names = {intent.name for intent in INTENTS}
    keys = {page.key for page in PAGES}
    assert len(names) == len(INTENTS) == 35
    shares = sorted((intent.share for intent in INTENTS), reverse=True)
    assert shares[0] > 5 * shares[-1]  # a long tail
    for intent in INTENTS:
        assert set(weights(intent.pages)) | set(intent.early.split()) | set(intent.late.split()) <= keys
        assert set(weights(intent.products)) <= set(PRODUCTS)
        assert set(weights(intent.tiles)) <= set(TILES)
        assert set(intent.related) <= names - {intent.name}
        assert set(intent.campaigns) <= set(CAMPAIGNS)
        assert len(intent.terms) >= 3


def test_pages_are_shared_by_intents() -> None:
    users = [key for intent in INTENTS for key in weights(intent.pages)]
    shared = [key for key in set(users) if users.count(key) > 1]
    assert len(shared) > 0.5 * len(set(users))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three small banks: two of one seed, one of another."""
    root = tmp_path_factory.mktemp("seeds")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        simulate(SimBankConfig(out=root / name, sessions=300, days=20), seed=seed)
    return {name: root / name for name in "abc"}


@pytest.mark.parametrize(
    "name",
    [
        "web",
        "app/events.parquet",
        "app/tile_impressions.parquet",
        "app/conversions.parquet",
        "truth/sessions.parquet",
        "truth/tiles.parquet",
    ],
)
def test_same_seed_same_tables(small: dict[str, Path], name: str) -> None:
    a, b, c = (pq.read_table(small[x] / name) for x in "abc")
    assert a.equals(b)
    assert not a.equals(c)


def test_chunks_hold_different_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clickintent.simbank._CHUNK_SESSIONS", 100)
    summary = simulate(SimBankConfig(out=tmp_path / "bank", sessions=400, days=20), seed=1)
    assert len(list((tmp_path / "bank" / "web").glob("part-*.parquet"))) == 4
    truth = pq.read_table(tmp_path / "bank" / "truth" / "sessions.parquet")
    assert truth.num_rows == summary["sessions"]
    app = pq.read_table(tmp_path / "bank" / "app" / "events.parquet")
    assert pc.count_distinct(app["event_id"]).as_py() == app.num_rows == summary["app_events"]
    slates = pq.read_table(tmp_path / "bank" / "app" / "tile_impressions.parquet")
    places = slates.group_by(["slate_id", "position"]).aggregate([])
    assert places.num_rows == slates.num_rows  # no slate number is given twice
    web = pq.read_table(tmp_path / "bank" / "web")
    distinct = pc.count_distinct(web["event_bundle_sequence_id"]).as_py()
    assert distinct == web.num_rows - _duplicates(web)


@pytest.mark.parametrize("sessions", [1, 2, 20])
def test_tiny_banks_are_whole(tmp_path: Path, sessions: int) -> None:
    for seed in range(3):
        out = tmp_path / f"bank{seed}"
        summary = simulate(SimBankConfig(out=out, sessions=sessions, days=2), seed=seed)
        assert pq.read_table(out / "web").num_rows == summary["web_events"]
        assert pq.read_table(out / "truth" / "sessions.parquet").num_rows == summary["sessions"]


def test_a_failed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="disk full"):
        simulate(SimBankConfig(out=tmp_path / "bank", sessions=50, days=5), seed=1)
    assert list(tmp_path.iterdir()) == []


def test_export_has_the_columns_of_ga4(bank: Bank, web: pa.Table) -> None:
    for part in (bank.out / "web").iterdir():
        found = pq.read_schema(part)
        assert found.names == SCHEMA.names
        for name in SCHEMA.names:
            assert _plain(found.field(name).type) == _plain(SCHEMA.field(name).type), name
    assert set(web["event_name"].unique().to_pylist()) == {
        "session_start",
        "page_view",
        "view_search_results",
        "scroll",
        "click",
        "select_content",
        "file_download",
        "form_start",
        "form_submit",
        "login",
    }
    assert set(web["platform"].unique().to_pylist()) == {"WEB"}


def _plain(kind: pa.DataType) -> Any:
    """A type without the names of list items, which differ between writers."""
    if pa.types.is_list(kind):
        return ["list", _plain(kind.value_type)]
    if pa.types.is_struct(kind):
        return [(field.name, _plain(field.type)) for field in kind]
    return str(kind)


def test_every_event_has_its_parameters(web: pa.Table) -> None:
    for key in ("page_location", "page_title"):
        assert len(param(web, key)) == web.num_rows
    assert param(web, "ga_session_id", "int_value").null_count == 0
    views = pc.sum(pc.equal(web["event_name"], "page_view")).as_py()
    searches = pc.sum(pc.equal(web["event_name"], "view_search_results")).as_py()
    assert set(param(web, "page_text").to_pylist()) <= {page.text for page in PAGES}
    assert len(param(web, "page_text")) == views
    assert len(param(web, "search_term")) == searches > 50
    assert set(param(web, "campaign").to_pylist()) & set(CAMPAIGNS)


def test_addresses_need_templates(web: pa.Table) -> None:
    urls = set(param(web, "page_location").to_pylist())
    paths = {re.sub(r"https://[^/]+|\?.*", "", url) for url in urls}
    assert len({p for p in paths if re.fullmatch(r"/branch/\d{5}", p)}) > 50
    assert len({p for p in paths if re.fullmatch(r"/apply/[a-z-]+/[0-9a-f]{8}/step-[123]", p)}) > 50
    for query in ("utm_campaign=", "gclid=", "sid=", "?q=", "&type=help"):
        assert any(query in url for url in urls), query


def test_sessions_are_of_plausible_length(web: pa.Table, sessions: pa.Table) -> None:
    human = sessions.filter(pc.invert(sessions["is_bot"])).num_rows
    bots = _bot_cookies(sessions)
    events = web.filter(pc.invert(pc.is_in(web["user_pseudo_id"], value_set=bots))).num_rows
    assert 6.5 < events / human < 10
    minutes = (sessions["end_us"].to_numpy() - sessions["start_us"].to_numpy()) / 60e6
    assert minutes.min() >= 0
    assert 1 < np.median(minutes) < 10


def _bot_cookies(sessions: pa.Table) -> pa.Array:
    return sessions.filter(sessions["is_bot"])["user_pseudo_id"].combine_chunks()


def test_visits_follow_the_hour_and_the_weekday(sessions: pa.Table) -> None:
    start = sessions.filter(pc.invert(sessions["is_bot"]))["start_us"].to_numpy()
    assert start.min() >= START
    assert start.max() < START + 60 * DAY
    hour = np.bincount(start // 3_600_000_000 % 24, minlength=24)
    assert hour[11:21].min() > 3 * hour[1:5].max()
    day = np.bincount((start - START) // DAY % 7, minlength=7)  # the first day is a Monday
    assert day[:5].mean() > 1.15 * day[5:].mean()


def test_share_of_bots(bank: Bank, sessions: pa.Table) -> None:
    share = pc.mean(sessions["is_bot"].cast(pa.int8())).as_py()
    assert 0.05 < share < 0.10
    assert bank.summary["bots"] == pc.sum(sessions["is_bot"]).as_py()


def test_a_fifth_of_visitors_never_links(web: pa.Table, sessions: pa.Table) -> None:
    people = pc.unique(sessions.filter(pc.invert(sessions["is_bot"]))["user_pseudo_id"])
    linked = pc.unique(web.filter(pc.is_valid(web["user_id"]))["user_pseudo_id"])
    never = 1 - pc.mean(pc.is_in(people, value_set=linked).cast(pa.int8())).as_py()
    assert 0.15 < never < 0.25


def test_cookies_are_cleared_and_shared(sessions: pa.Table) -> None:
    pairs = sessions.filter(pc.invert(sessions["is_bot"])).select(["user_pseudo_id", "account_id"])
    pairs = pairs.group_by(["user_pseudo_id", "account_id"]).aggregate([])
    by_account = pairs.group_by("account_id").aggregate([("user_pseudo_id", "count")])
    by_cookie = pairs.group_by("user_pseudo_id").aggregate([("account_id", "count")])
    several = pc.mean(pc.greater(by_account["user_pseudo_id_count"], 1).cast(pa.int8())).as_py()
    shared = pc.mean(pc.greater(by_cookie["account_id_count"], 1).cast(pa.int8())).as_py()
    assert several > 0.2
    assert 0.01 < shared < 0.15


def test_logins_end_sessions_and_name_the_owner(web: pa.Table, sessions: pa.Table) -> None:
    logins = web.filter(pc.is_valid(web["user_id"]))
    assert set(logins["event_name"].unique().to_pylist()) == {"login"}
    key = param(logins, "ga_session_id", "int_value")
    owner = {
        (row["user_pseudo_id"], row["ga_session_id"]): (row["account_id"], row["end_us"])
        for row in sessions.to_pylist()
    }
    checked = 0
    for cookie, session, user, at in zip(
        logins["user_pseudo_id"].to_pylist(),
        key.to_pylist(),
        logins["user_id"].to_pylist(),
        logins["event_timestamp"].to_pylist(),
        strict=True,
    ):
        if cookie is None or at is None or not START <= at < START + 61 * DAY:
            continue  # a broken row
        account, end = owner[cookie, session]
        assert (user, at) == (account, end)
        checked += 1
    assert checked > 0.2 * sessions.num_rows


def _duplicates(web: pa.Table) -> int:
    """Rows whose bundle number was seen before; they must then be equal in all columns."""
    counts = web.group_by("event_bundle_sequence_id").aggregate([([], "count_all")])
    repeated = counts.filter(pc.greater(counts["count_all"], 1))["event_bundle_sequence_id"]
    rows = web.filter(pc.is_in(web["event_bundle_sequence_id"], value_set=repeated.combine_chunks()))
    rows = rows.sort_by("event_bundle_sequence_id").to_pylist()
    assert all(a == b for a, b in zip(rows[::2], rows[1::2], strict=True))
    return len(rows) // 2


def test_duplicates_are_exact(web: pa.Table) -> None:
    assert 0.003 < _duplicates(web) / web.num_rows < 0.007


def test_some_rows_are_broken(web: pa.Table) -> None:
    at = web["event_timestamp"]
    n_bad = {
        "no time": at.null_count,
        "zero": pc.sum(pc.equal(at, 0)).as_py(),
        "far": pc.sum(pc.greater(at, START + 1000 * DAY)).as_py(),
        "no visitor": web["user_pseudo_id"].null_count,
        "bad page": pc.sum(pc.invert(pc.starts_with(param(web, "page_location"), "https://"))).as_py(),
    }
    assert all(n > 0 for n in n_bad.values()), n_bad
    assert 0.0004 < sum(n_bad.values()) / web.num_rows < 0.002


def test_personal_data_leaks(web: pa.Table) -> None:
    mail, social, card = r"[\w.]+(@|%40)[\w.]+\.(com|org)", r"\b9\d\d-\d\d-\d{4}\b", r"\b4\d{15}\b"
    for key, patterns in (
        ("page_location", (mail, social, card, r"iban=DE\d{20}", r"name=\w+\+\w+")),
        ("page_title", (mail, r"Welcome back, \w+ \w+", card)),
        ("search_term", (mail, social, card, r"DE\d{20}", r"555-01\d\d")),
    ):
        texts = pc.unique(param(web, key)).to_pylist()
        for pattern in patterns:
            assert any(re.search(pattern, text) for text in texts), (key, pattern)


def test_leaked_cards_and_ibans_pass_their_checks(web: pa.Table) -> None:
    text = " ".join(pc.unique(param(web, "page_location")).to_pylist())
    cards, ibans = re.findall(r"\b4\d{15}\b", text), re.findall(r"DE(\d{2})(\d{18})", text)
    assert cards
    assert ibans
    for card in cards:
        digits = [int(d) for d in reversed(card)]
        doubled = [d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)]
        assert sum(doubled) % 10 == 0
    for check, account in ibans:
        assert int(f"{account}1314{check}") % 97 == 1


def test_no_truth_in_the_exports(bank: Bank, web: pa.Table) -> None:
    forbidden = re.compile(r"intent|weight|stage|is_bot|segment|utility|truth|p_click|p_none")
    names = set(web.schema.names) | set(
        pc.unique(web["event_params"].combine_chunks().flatten().field("key")).to_pylist()
    )
    for path in (bank.out / "app").glob("*.parquet"):
        names |= set(pq.read_schema(path).names)
    assert not [name for name in names if forbidden.search(name)]
    # A parameter with few values is constant or describes the page or the campaign, never the intent.
    values = web["event_params"].combine_chunks().flatten().field("value").field("string_value")
    intents = {i.name for i in INTENTS} - {term for i in INTENTS for term in i.terms}
    assert not set(pc.unique(values).to_pylist()) & intents


def test_slates_follow_the_logged_policy(bank: Bank) -> None:
    shown = bank.table("app/tile_impressions.parquet")
    position, propensity = shown["position"].to_numpy(), shown["propensity"].to_numpy()
    tile = np.array([TILES.index(t) for t in shown["tile"].to_pylist()])
    q = policy()
    assert q.sum() == pytest.approx(1)
    # At each position the propensities of all tiles are a distribution.
    for place in range(MAX_TILES):
        by_tile = dict(zip(tile[position == place], propensity[position == place], strict=True))
        assert len(by_tile) == len(TILES)
        assert sum(by_tile.values()) == pytest.approx(1)
        n = (position == place).sum()
        seen = np.bincount(tile[position == place], minlength=len(TILES)) / n
        expected = np.array([by_tile[t] for t in range(len(TILES))])
        error = np.sqrt(expected * (1 - expected) / n)
        assert (np.abs(seen - expected) < 4.5 * error).all()
    # A tile is somewhere in the full order of 14: first, or equally likely in each other place.
    for t in range(len(TILES)):
        first, later = (propensity[(tile == t) & where] for where in (position == 0, position > 0))
        assert np.ptp(first) == np.ptp(later) == 0
        assert first[0] == pytest.approx(q[t])
        assert first[0] + (len(TILES) - 1) * later[0] == pytest.approx(1)
    lengths = shown.group_by("slate_id").aggregate([([], "count_all"), ("position", "max")])
    assert set(lengths["count_all"].unique().to_pylist()) == set(range(MIN_TILES, MAX_TILES + 1))
    assert pc.all(pc.equal(pc.add(lengths["position_max"], 1), lengths["count_all"])).as_py()
    repeated = shown.group_by(["slate_id", "tile"]).aggregate([])
    assert repeated.num_rows == shown.num_rows


def test_clicks_follow_their_truth(bank: Bank) -> None:
    shown, truth = bank.table("app/tile_impressions.parquet"), bank.table("truth/tiles.parquet")
    assert shown.select(["slate_id", "tile"]).equals(truth.select(["slate_id", "tile"]))
    clicked, p = shown["clicked"].to_numpy().astype(float), truth["p_click"].to_numpy()
    both = pa.table(
        {"slate": shown["slate_id"], "clicked": clicked, "p": p, "g": truth["p_click_given_click"]}
    )
    sums = both.group_by("slate").aggregate([("clicked", "sum"), ("p", "sum"), ("g", "sum")])
    assert pc.max(sums["clicked_sum"]).as_py() == 1
    assert pc.max(sums["p_sum"]).as_py() < 1
    assert np.allclose(sums["g_sum"].to_numpy(), 1)
    assert 0.1 < clicked.sum() / sums.num_rows < 0.4
    for low, high in ((0, 0.02), (0.02, 0.1), (0.1, 1)):
        group = (p >= low) & (p < high)
        error = np.sqrt((p * (1 - p))[group].sum())
        assert abs(clicked[group].sum() - p[group].sum()) < 4.5 * error


def test_intents_last(sessions: pa.Table) -> None:
    people = sessions.filter(pc.invert(sessions["is_bot"])).sort_by(
        [("account_id", "ascending"), ("start_us", "ascending")]
    )
    account = people["account_id"].to_numpy()
    intent = np.array([row[0] for row in people["intents"].to_pylist()])
    same = account[1:] == account[:-1]
    kept = (intent[1:] == intent[:-1])[same].mean()
    chance = ((np.unique(intent, return_counts=True)[1] / len(intent)) ** 2).sum()
    assert kept > 5 * chance
    gap = np.diff(people["start_us"].to_numpy())[same]
    late = (intent[1:] == intent[:-1])[same][gap > 21 * DAY].mean()
    assert kept > late + 0.2  # it drifts


def test_truth_of_sessions_is_well_formed(sessions: pa.Table) -> None:
    human, bots = (sessions.filter(pc.equal(sessions["is_bot"], b)) for b in (False, True))
    weights_sum = [sum(w) for w in human["weights"].to_pylist()]
    assert np.allclose(weights_sum, 1)
    assert set(pc.list_value_length(human["intents"]).to_pylist()) == {1, 2}
    assert set(pc.list_value_length(bots["intents"]).to_pylist()) == {0}
    assert bots["account_id"].null_count == bots["p"].null_count == bots.num_rows
    p = np.array(human["p"].to_pylist())
    assert human["products"][0].as_py() == [*PRODUCTS, "none"]
    assert np.allclose(p.sum(1), 1)
    assert p.min() >= 0
    assert np.allclose(p[:, -1], human["p_none"].to_numpy())


def _outcomes(bank: Bank, sessions: pa.Table) -> np.ndarray:
    """The first product within 14 days of each session's end; 10: none."""
    sold = bank.table("app/conversions.parquet").sort_by([("account_id", "ascending"), ("ts", "ascending")])
    account, at = sold["account_id"].to_numpy(), sold["ts"].to_numpy()
    product = [PRODUCTS.index(p) for p in sold["product"].to_pylist()]
    outcome = np.full(sessions.num_rows, len(PRODUCTS))
    first = np.searchsorted(account, sessions["account_id"].to_numpy())
    for i, (who, end) in enumerate(
        zip(sessions["account_id"].to_pylist(), sessions["end_us"].to_pylist(), strict=True)
    ):
        j = first[i]
        while j < len(account) and account[j] == who and at[j] <= end:
            j += 1
        if j < len(account) and account[j] == who and at[j] <= end + 14 * DAY:
            outcome[i] = product[j]
    return outcome


def test_the_oracle_is_calibrated_and_better_than_chance(bank: Bank, sessions: pa.Table) -> None:
    human = sessions.filter(pc.invert(sessions["is_bot"]))
    p, outcome = np.array(human["p"].to_pylist()), _outcomes(bank, human)
    none = len(PRODUCTS)
    assert 0.15 < (outcome != none).mean() < 0.32
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1)):
        group = (1 - p[:, none] >= low) & (1 - p[:, none] < high)
        # Sessions of one person share an outcome, so that the error is larger than a binomial one.
        assert (1 - p[group, none]).mean() == pytest.approx((outcome[group] != none).mean(), abs=0.05)
    base = np.bincount(outcome, minlength=none + 1) / len(outcome)
    loss = -np.log(p[np.arange(len(p)), outcome]).mean()
    assert loss < 0.8 * -(base * np.log(base)).sum()


def test_the_oracle_solves_the_chain() -> None:
    chain = build_latent()
    short, long = chain.within(1e-4), chain.within(14)
    assert np.allclose(short[:, :, :-1], 1e-4 * chain.hazard, rtol=0.01, atol=0)  # the rates themselves
    assert (long[:, :, -1] < short[:, :, -1]).all()
    assert long.min() > 0
    assert chain.start.sum(1) == pytest.approx(1)
    assert chain.entry.sum(2).ravel() == pytest.approx(1)


def test_draw_has_the_right_frequencies() -> None:
    p = np.array([[0.5, 0.5, 0.0], [0.0, 0.1, 0.9]])
    rows = np.repeat([0, 1], 20_000)
    outcome = Draw(p)(np.random.default_rng(1), rows)
    for row in (0, 1):
        seen = np.bincount(outcome[rows == row], minlength=3) / 20_000
        assert np.abs(seen - p[row]).max() < 0.02
        assert seen[p[row] == 0].sum() == 0


def test_app_outcomes_outlast_the_web(bank: Bank) -> None:
    events = bank.table("app/events.parquet")
    assert pc.count_distinct(events["event_id"]).as_py() == events.num_rows
    assert events["account_id"].null_count == 0
    assert 0.15 < events.num_rows / bank.summary["web_events"] < 0.6
    conversions = bank.table("app/conversions.parquet")["ts"].to_numpy()
    assert conversions.max() > START + 70 * DAY
    assert conversions.max() < START + 74 * DAY


def test_summary_counts_the_tables(bank: Bank) -> None:
    found = {
        "web_events": bank.table("web").num_rows,
        "app_events": bank.table("app/events.parquet").num_rows,
        "impressions": bank.table("app/tile_impressions.parquet").num_rows,
        "conversions": bank.table("app/conversions.parquet").num_rows,
        "sessions": bank.table("truth/sessions.parquet").num_rows,
    }
    assert found == {name: bank.summary[name] for name in found}
    assert bank.summary["events"] == found["web_events"] + found["app_events"]
    assert found["sessions"] == pytest.approx(9000, rel=0.1)


def test_configuration_loads(bank: Bank) -> None:
    config = load_config(bank.out / "clickintent.toml")
    assert [source.reader for source in config.sources] == ["ga4", "table"]
    assert config.sources[0].path == str(bank.out / "web" / "*.parquet")
    assert Path(config.sources[1].path).is_file()
    columns = set(pq.read_schema(config.sources[1].path).names)
    assert set(config.sources[1].columns.values()) <= columns
    assert isinstance(config.conversion, AccountConversion)
    assert config.conversion.path.is_file()
    assert config.tiles is not None
    assert config.tiles.path.is_file()
    assert config.evaluate.truth == bank.out / "truth"
    assert config.simbank is None  # running it must not simulate it anew


def after(bank: Path, day: float) -> tuple[pa.Table, pa.Table]:
    """The web events before a day and from then on."""
    web = pq.read_table(bank / "web")
    later = pc.fill_null(pc.greater_equal(web["event_timestamp"], int(START + day * DAY)), False)
    return web.filter(pc.invert(later)), web.filter(later)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank that changes entirely from day 10 of 20 on."""
    out = tmp_path_factory.mktemp("changed") / "bank"
    simulate(SimBankConfig(out=out, sessions=3000, days=20, drift=1.0, drift_from=0.5), seed=1)
    return out


def test_without_drift_the_bank_is_what_it_was(small: dict[str, Path], tmp_path: Path) -> None:
    config = SimBankConfig(out=tmp_path / "a", sessions=300, days=20, drift_from=0.1, drift_in=("pages",))
    simulate(config, seed=1)
    for name in ("web", "app/events.parquet", "truth/sessions.parquet"):
        assert pq.read_table(tmp_path / "a" / name).equals(pq.read_table(small["a"] / name))


def test_a_new_section_opens_when_the_bank_changes(changed: Path) -> None:
    before, now = (set(param(web, "page_title").to_pylist()) for web in after(changed, 10))
    new = {f"{page.title} | Larkfield Bank" for page in NEW_PAGES}
    assert not new & before
    assert new <= now
    urls = param(after(changed, 10)[1], "page_location").to_pylist()
    assert any("/instalments/calculator" in url for url in urls)


def test_people_hurry_and_want_other_things_when_the_bank_changes(changed: Path) -> None:
    truth = pq.read_table(changed / "truth" / "sessions.parquet")
    truth = truth.filter(pc.invert(truth["is_bot"]))
    later = truth["start_us"].to_numpy() >= START + 10 * DAY
    seconds = (truth["end_us"].to_numpy() - truth["start_us"].to_numpy()) / 1e6
    assert seconds[later].mean() < 0.6 * seconds[~later].mean()
    loans = {intent.name for intent in INTENTS if intent.theme in ("home", "vehicle", "borrow", "study")}
    is_loan = np.array([intents[0] in loans for intents in truth["intents"].to_pylist()])
    assert is_loan[later].mean() < 0.5 * is_loan[~later].mean()
    assert later.sum() > 0.5 * (~later).sum()


def test_one_kind_of_change_leaves_the_others(tmp_path: Path) -> None:
    config = SimBankConfig(out=tmp_path / "bank", sessions=500, days=10, drift=1, drift_in=("behaviour",))
    simulate(config, seed=1)
    titles = set(param(pq.read_table(tmp_path / "bank" / "web"), "page_title").to_pylist())
    assert not titles & {f"{page.title} | Larkfield Bank" for page in NEW_PAGES}
