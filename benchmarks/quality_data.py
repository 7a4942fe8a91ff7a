"""The tasks of ``quality.py``: what a model may see of a session, what came of it, and who is tested.

Every task cuts sessions first and looks at the answer afterwards: no feature sees more than ``Task.seen``.
Splits are temporal, or, where the data is a day long, by visitor: each seed tests another fifth of them. What
is learned without labels is learned from ``Data.past`` alone: sessions that ended before the split, or
sessions of the training visitors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from clickintent import ingest, simulate
from clickintent.config import Config, load_config
from clickintent.downstream import account_outcomes, latest_session, read_slates, temporal_split
from clickintent.downstream.head import log_frequencies
from clickintent.downstream.tiles import NOT_SHOWN, position_and_popularity
from clickintent.downstream.truth import conversion_oracle, main_intents, tile_oracle
from clickintent.events.prefix import first_events

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("CLICKINTENT_DATA", ROOT.parent / "shared" / "data"))
FOLDS = 5
SAME = 0  # the seed of what is the same under every seed
MAX_TRAIN, MAX_TEST = 20_000, 20_000  # rows of one task: enough for narrow intervals
FIRST_DAY_US = 1_207_008_000_000_000  # 2008-04-01, the first day of the e-shop's clicks


@dataclass(frozen=True)
class Task:
    """n rows to predict one of c classes."""

    name: str
    metrics: tuple[str, ...]  # the first one decides
    seen: pa.Table  # sessions, cut
    row: np.ndarray  # (n,) of ``seen``
    target: np.ndarray  # (n,) int
    offset: np.ndarray  # (n, c) log-odds that every method starts from
    train: np.ndarray  # rows, in the order of time
    test: np.ndarray
    cluster: np.ndarray  # (n,) drawn together in the bootstrap
    floor: np.ndarray  # sessions of ``seen`` that vocabularies may be made from
    #: Of the bootstrap: equal where seeds test the same rows, so that their mean is as uncertain as the rows.
    draw: int
    oracle: np.ndarray | None = None  # (n, c) the simulator's probabilities


@dataclass(frozen=True)
class Data:
    """A data set under one seed."""

    name: str
    past: pa.Table  # to learn from without labels
    tasks: list[Task] = field(default_factory=list)
    min_page_count: int = 1
    text: str = "hashed"


def _sessions(config: Config, *, robots: bool = False) -> pa.Table:
    """Web sessions, of people alone unless ``robots``; ingested once per workspace."""
    ingest(config)
    table = ds.dataset(config.workspace / "sessions").to_table()
    return (
        table
        if robots
        else table.filter(
            pc.and_(pc.equal(table["channel"], config.sessions.channel), pc.invert(table["is_bot"]))
        )
    )


def _task(
    name: str,
    metrics: tuple[str, ...],
    seen: pa.Table,
    target: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
    *,
    row: np.ndarray | None = None,
    offset: np.ndarray | None = None,
    cluster: np.ndarray | None = None,
    order: np.ndarray | None = None,
    oracle: np.ndarray | None = None,
) -> Task:
    """Masks → rows, bounded, training rows in the order of time."""
    row = np.arange(seen.num_rows) if row is None else row
    rng = np.random.default_rng(seed)
    train, test = (
        np.sort(rng.permutation(np.flatnonzero(mask))[:most])
        for mask, most in ((train, MAX_TRAIN), (test, MAX_TEST))
    )
    when = seen["start"].to_numpy()[row] if order is None else order
    train = train[np.argsort(when[train], kind="stable")]
    if offset is None:
        classes = int(target.max()) + 1
        offset = np.tile(log_frequencies(target, classes, train), (len(target), 1))
    if cluster is None:
        cluster = _codes(seen["visitor_id"])[row]
    return Task(
        name, metrics, seen, row, target, offset, train, test, cluster, np.unique(row[train]), seed, oracle
    )


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Small integers for distinct values, −1 for null."""
    indices = column.combine_chunks().dictionary_encode().indices
    found: np.ndarray = pc.fill_null(indices, -1).to_numpy(zero_copy_only=False)
    return found


def _first(sessions: pa.Table, name: str, wanted: str) -> np.ndarray:
    """Position of the first event whose field is ``wanted``; very large if there is none."""
    lengths = sessions["n_events"].to_numpy()
    hit = pc.fill_null(pc.equal(_field(sessions, name), wanted), False).to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    first = np.full(len(lengths), np.iinfo(np.int64).max)
    np.minimum.at(first, row[hit], place[hit])
    return first


def _field(sessions: pa.Table, name: str) -> pa.Array:
    return pc.struct_field(pc.list_flatten(sessions["events"]), name).combine_chunks()


def _reaches(
    data: str,
    sessions: pa.Table,
    name: str,
    wanted: str,
    k: int,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> Task:
    """From the first k events: will there be ``wanted`` afterwards? Too short and already there: left out."""
    first, lengths = _first(sessions, name, wanted), sessions["n_events"].to_numpy()
    kept = (lengths >= k) & (first >= k)
    seen = first_events(sessions.filter(pa.array(kept)), np.full(int(kept.sum()), k))
    target = (first < lengths)[kept].astype(np.int64)
    label = f"{data}: {wanted} from {k} events"
    return _task(label, ("auc", "log_loss"), seen, target, train[kept], test[kept], seed)


def _next(
    name: str,
    sessions: pa.Table,
    answers: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> Task:
    """At one random cut per session of two events or more: ``answers`` (per event) of the next event."""
    kept = sessions["n_events"].to_numpy() > 1
    lengths = sessions["n_events"].to_numpy()
    counts = 1 + np.floor(np.random.default_rng(seed).random(len(lengths)) * (lengths - 1)).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    target = answers[(starts + counts)[kept]]
    seen = first_events(sessions.filter(pa.array(kept)), counts[kept])
    values, known = np.unique(target[train[kept]], return_inverse=True)[0], None
    known = np.isin(target, values)  # a page first seen in the test is nobody's to predict
    code = np.searchsorted(values, target)
    return _task(
        name,
        ("accuracy", "log_loss"),
        seen,
        np.where(known, code, 0),
        train[kept] & known,
        test[kept] & known,
        seed,
    )


def _in_time(sessions: pa.Table, at: int) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The past, and who trains and who is tested."""
    before, after = pc.less(sessions["end"], at), pc.greater_equal(sessions["start"], at)
    return sessions.filter(before), before.to_numpy(), after.to_numpy()


def _by_visitor(sessions: pa.Table, seed: int) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """One of five parts of the visitors is tested."""
    code = _codes(sessions["visitor_id"])
    part = np.random.default_rng(0).integers(0, FOLDS, int(code.max()) + 1)
    tested = (part == seed % FOLDS)[code]
    return sessions.filter(pa.array(~tested)), ~tested, tested


def vanguard(work: Path, _seed: int) -> Data:
    """An investment firm's process: reach ``confirm`` from the first events; the next step."""
    config = load_config(ROOT / "examples" / "vanguard.toml")
    config = config.model_copy(update={"workspace": work / "vanguard"})
    sessions = _sessions(config)
    at = config.split.at_us
    assert at is not None
    past, train, test = _in_time(sessions, at)
    tasks = [_reaches("Vanguard", sessions, "page", "confirm", k, train, test, SAME) for k in (1, 2, 3, 4)]
    tasks.append(
        _next("Vanguard: next step", sessions, _codes(_chunked(sessions, "page")), train, test, SAME)
    )
    return Data("vanguard", past, tasks, text="none")


def ga360(work: Path, seed: int) -> Data:
    """A web shop's day: purchase and cart from the first events; the next page. Split by visitor."""
    config = load_config(ROOT / "examples" / "ga360.toml").model_copy(update={"workspace": work / "ga360"})
    sessions = _sessions(config)
    past, train, test = _by_visitor(sessions, seed)
    tasks = [
        _reaches("GA360", sessions, "event_type", outcome, k, train, test, seed)
        for outcome in ("purchase", "add_to_cart")
        for k in (3, 6)
    ]
    tasks.append(_next("GA360: next page", sessions, _codes(_chunked(sessions, "page")), train, test, seed))
    return Data("ga360", past, tasks, min_page_count=3)


def eshop(work: Path, _seed: int) -> Data:
    """A clothing shop's clicks: the next category and the next photo location. Split in time."""
    raw = pq.read_table(SHARED / "eshop_clothing_2008" / "eshop_2008.parquet")
    days = pc.days_between(
        pa.scalar("2008-04-01").cast(pa.date32()),
        pc.strptime(
            pc.binary_join_element_wise(*(raw[c].cast(pa.string()) for c in ("year", "month", "day")), "-"),
            "%Y-%m-%d",
            "s",
        ).cast(pa.date32()),
    ).to_numpy()
    session, order = raw["session ID"].to_numpy(), raw["order"].to_numpy()
    category, model = (
        raw["page 1 (main category)"].to_numpy(),
        raw["page 2 (clothing model)"].cast(pa.string()),
    )
    page = pc.binary_join_element_wise("/" + "c", raw["page 1 (main category)"].cast(pa.string()), model, "/")
    title = pc.binary_join_element_wise(
        "category", raw["page 1 (main category)"].cast(pa.string()),
        "model", model, "colour", raw["colour"].cast(pa.string()),
        "location", raw["location"].cast(pa.string()), "price", raw["price"].cast(pa.string()), " ",
    )  # fmt: skip
    # There is no clock: events follow each other, one a second, from noon.
    ts = FIRST_DAY_US + days * 86_400_000_000 + 43_200_000_000 + order * 1_000_000
    events = pa.table(
        {
            "visitor_id": raw["session ID"].cast(pa.string()),
            "session_key": raw["session ID"].cast(pa.string()),
            "ts": ts,
            "event_type": pa.array(["click"] * raw.num_rows),
            "page": page,
            "title": title,
        }
    )
    folder = work / "eshop"
    folder.mkdir(parents=True, exist_ok=True)
    sessions = _mapped(events, folder)
    at = int(np.quantile(sessions["start"].to_numpy(), 0.7))
    past, train, test = _in_time(sessions, at)
    # The answers, in the order of the sessions' events.
    key = {s: i for i, s in enumerate(sessions["visitor_id"].to_pylist())}
    place = np.array([key[str(s)] for s in session])
    by = np.lexsort((order, place))
    location = raw["location"].to_numpy()
    assert len(by) == int(sessions["n_events"].to_numpy().sum())
    tasks = [
        _next("e-shop: next category", sessions, category[by], train, test, SAME),
        _next("e-shop: next photo location", sessions, location[by], train, test, SAME),
    ]
    return Data("eshop", past, tasks, min_page_count=3)


def onboarding(work: Path, seed: int) -> Data:
    """A mobile app's first day: who passes? Its own ``passed`` and ``lost`` never enter. Split by visitor."""
    raw = pyarrow.csv.read_csv(SHARED / "app_onboarding_firebase" / "train.csv")
    name = raw["event_name"]
    outcome = pc.is_in(name, value_set=pa.array(["passed", "lost"]))
    passed = set(raw.filter(pc.equal(name, "passed"))["user_pseudo_id"].to_pylist())
    left = raw.filter(pc.invert(outcome))
    events = pa.table(
        {
            "visitor_id": left["user_pseudo_id"],
            "session_key": left["user_pseudo_id"],
            "ts": pc.divide(left["event_timestamp"], 1000),
            "event_type": pa.array(["screen_view"] * left.num_rows),
            "page": pc.binary_join_element_wise("/", left["event_name"], ""),
            "title": left["event_name"],
        }
    )
    folder = work / "onboarding"
    folder.mkdir(parents=True, exist_ok=True)
    sessions = _mapped(events, folder)
    past, train, test = _by_visitor(sessions, seed)
    target = np.array([v in passed for v in sessions["visitor_id"].to_pylist()]).astype(np.int64)
    lengths = sessions["n_events"].to_numpy()
    tasks = []
    for k in (2, 4):
        kept = lengths >= k
        seen = first_events(sessions.filter(pa.array(kept)), np.full(int(kept.sum()), k))
        tasks.append(
            _task(
                f"app onboarding: passed from {k} events",
                ("auc", "log_loss"),
                seen,
                target[kept],
                train[kept],
                test[kept],
                seed,
            )
        )
    return Data("onboarding", past, tasks, min_page_count=1)


def simbank(work: Path, seed: int, sessions_made: int = 60_000) -> Data:
    """A simulated bank, anew for each seed: intent, conversion, homepage tile. Split in time."""
    folder = work / f"simbank-{sessions_made}-{seed}"
    if not (folder / "bank" / "clickintent.toml").exists():
        (folder).mkdir(parents=True, exist_ok=True)
        text = f'workspace = "ws"\nseed = {seed}\n[simbank]\nout = "bank"\nsessions = {sessions_made}\n'
        (folder / "simulate.toml").write_text(text)
        simulate(load_config(folder / "simulate.toml"))
    config = load_config(folder / "bank" / "clickintent.toml")
    sessions = _sessions(config)
    at = int(np.quantile(sessions["start"].to_numpy(), 0.7))
    past, train, test = _in_time(sessions, at)
    truth = config.evaluate.truth
    assert truth is not None

    main = main_intents(truth, sessions)
    known = main.is_valid().to_numpy(zero_copy_only=False)
    code = main.dictionary_encode().indices.fill_null(0).to_numpy(zero_copy_only=False)
    tasks = [
        _task("SimBank: intent", ("accuracy", "log_loss"), sessions, code, train & known, test & known, seed)
    ]

    outcomes = account_outcomes(sessions, pq.read_table(folder / "bank/app/conversions.parquet"), 14)
    split = temporal_split(outcomes.predicted_at, at, embargo_us=outcomes.horizon_us)
    odds = conversion_oracle(truth, sessions)
    product = np.array([odds.classes.index(label) for label in outcomes.labels])
    tasks.append(
        _task(
            "SimBank: conversion",
            ("auc", "log_loss"),
            sessions,
            product,
            split.train,
            split.test,
            seed,
            row=outcomes.rows,
            cluster=np.unique(outcomes.account, return_inverse=True)[1],
            order=outcomes.predicted_at,
            oracle=odds.probabilities[outcomes.rows],
        )
    )

    slates = read_slates(pq.read_table(folder / "bank/app/tile_impressions.parquet"))
    latest = latest_session(slates, sessions, 30)
    split = temporal_split(slates.ts, at)
    usable = np.flatnonzero((latest >= 0) & (slates.clicked >= 0))
    effect, popularity = position_and_popularity(slates, split.train)
    offset = np.where(slates.shown, effect[slates.position] + popularity, NOT_SHOWN)
    tasks.append(
        _task(
            "SimBank: tile",
            ("macro_recall", "log_loss"),
            sessions,
            slates.clicked[usable],
            split.train[usable],
            split.test[usable],
            seed,
            row=latest[usable],
            offset=offset[usable],
            cluster=np.unique(slates.account[usable], return_inverse=True)[1],
            order=slates.ts[usable],
            oracle=tile_oracle(truth, slates)[usable],
        )
    )
    return Data("simbank", past, tasks, min_page_count=5)


def _mapped(events: pa.Table, folder: Path) -> pa.Table:
    """Sessions of a table in our own column names."""
    pq.write_table(events, folder / "events.parquet")
    lines = [f'{name} = "{name}"' for name in events.column_names]
    (folder / "clickintent.toml").write_text(
        'workspace = "ws"\n[[sources]]\nreader = "table"\npath = "events.parquet"\nts_unit = "us"\n'
        "[sources.columns]\n" + "\n".join(lines) + '\n[privacy]\nids = "plain"\nmin_people = 1\n'
        '[sessions]\nboundary = "source"\n'
    )
    # Without a clock all events are equally far apart, which is how robots are told.
    return _sessions(load_config(folder / "clickintent.toml"), robots=True)


def _chunked(sessions: pa.Table, name: str) -> pa.ChunkedArray:
    return pa.chunked_array([_field(sessions, name)])


DATA: dict[str, Callable[[Path, int], Data]] = {
    "vanguard": vanguard,
    "ga360": ga360,
    "eshop": eshop,
    "onboarding": onboarding,
    "simbank": simbank,
}
