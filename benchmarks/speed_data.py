"""Sessions for ``speed.py``, drawn without a simulator, so that a million take seconds.

A bank's web site as the encoder sees it: pages in topics with titles, some pages far more popular than
others, visitors who come back, free text on one event in ten. Lengths are geometric with mean 8, cut at 64:
many short sessions and a long tail, as in web logs. Nothing can be learned from it beyond topics; it is for
speed alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from clickintent import schema

MEAN_EVENTS, MAX_EVENTS = 8, 64
TOPICS, PAGES_PER_TOPIC, TEXTS = 16, 30, 5000
START_US, DAYS = 1_767_225_600_000_000, 60  # from 1 January 2026
SLICE, ROW_GROUP = 100_000, 20_000

_WORDS = (
    "account", "balance", "branch", "broker", "budget", "card", "cash", "claim", "credit", "cover", "debit",
    "deposit", "equity", "exchange", "family", "fee", "fixed", "fund", "gold", "home", "income",
    "insurance", "interest", "invest", "joint", "junior", "life", "limit", "loan", "mobile", "mortgage",
    "offer", "online", "overdraft", "payment", "pension", "plan", "portfolio", "premium", "rate", "refund",
    "renew", "rent", "report", "retirement", "review", "reward", "risk", "saving", "score", "secure",
    "share", "standing", "statement", "stock", "student", "switch", "term", "transfer", "travel", "trust",
    "value", "variable", "wallet", "wealth", "young",
)  # fmt: skip
_EVENT_TYPES = {
    "page_view": 0.62, "scroll": 0.12, "click": 0.1, "search": 0.05, "form_start": 0.03, "form_submit": 0.02,
    "file_download": 0.02, "video_start": 0.01, "login": 0.02, "error": 0.01,
}  # fmt: skip

Ints = npt.NDArray[np.int64]


def lengths_of(sessions: int, rng: np.random.Generator) -> Ints:
    """(sessions,): how many events each has."""
    return np.minimum(rng.geometric(1 / MEAN_EVENTS, sessions), MAX_EVENTS)


def write_sessions(path: Path, sessions: int, seed: int) -> None:
    """Write one Parquet file of ``schema.SESSIONS``; the first slices of a larger file are the same."""
    if path.exists():
        return
    temporary = path.with_suffix(".tmp")
    with pq.ParquetWriter(temporary, schema.SESSIONS, compression="zstd") as writer:
        for number, first in enumerate(range(0, sessions, SLICE)):
            rng = np.random.default_rng([seed, number])
            lengths = lengths_of(SLICE, rng)
            table = _table(first, lengths, rng).slice(0, min(SLICE, sessions - first))
            writer.write_table(table, row_group_size=ROW_GROUP)
    temporary.rename(path)


def session_events(lengths: Ints, seed: int) -> list[list[dict[str, Any]]]:
    """The events of sessions as Python values."""
    found: list[list[dict[str, Any]]] = _table(0, lengths, np.random.default_rng(seed))["events"].to_pylist()
    return found


def _zipf(n: int) -> npt.NDArray[np.float64]:
    weights: npt.NDArray[np.float64] = 1 / np.arange(1, n + 1)
    weights /= weights.sum()
    return weights


def _site() -> tuple[list[str], list[str], list[str]]:
    """Pages, the titles of each, and texts, the same ones always."""
    rng = np.random.default_rng(0)
    pages, titles = [], []
    for topic in range(TOPICS):
        for number in range(PAGES_PER_TOPIC):
            words = rng.choice(_WORDS, 3)
            pages.append(f"/{_WORDS[topic]}/{'-'.join(words)}-{number}")
            titles.append(f"{' '.join(words).capitalize()} | {_WORDS[topic].capitalize()} | Example Bank")
    texts = [" ".join(rng.choice(_WORDS, n)) for n in rng.integers(1, 5, TEXTS)]
    return pages, titles, texts


def _table(first: int, lengths: Ints, rng: np.random.Generator) -> pa.Table:
    """Sessions ``first``, ``first + 1``, … of these lengths."""
    n, m = len(lengths), int(lengths.sum())
    ends = np.cumsum(lengths)
    is_last = np.zeros(m, dtype=bool)
    is_last[ends - 1] = True
    is_first = np.roll(is_last, 1)
    visitor = first + np.cumsum(rng.random(n) < 0.4)  # two and a half sessions each
    start = START_US + rng.integers(0, DAYS * 86_400, n) * 1_000_000
    start = start[np.lexsort((start, visitor))]
    dwell = np.where(is_last, 0.0, np.exp(rng.normal(2.7, 1.2, m)).clip(0.2, 1700).round(3))
    passed = np.cumsum(np.round(dwell * 1e6).astype(np.int64))
    before = np.concatenate([[0], passed[:-1]])
    since = before - np.repeat(before[ends - lengths], lengths)
    page = _pages_seen(lengths, rng)
    pages, titles, texts = _site()
    types = rng.choice(len(_EVENT_TYPES), m, p=list(_EVENT_TYPES.values()))
    text = rng.choice(TEXTS, m, p=_zipf(TEXTS))
    events = pa.StructArray.from_arrays(
        [
            pa.array(np.repeat(start, lengths) + since),
            pa.array(list(_EVENT_TYPES)).take(pa.array(types)),
            pa.array(pages).take(pa.array(page)),
            pa.array(titles).take(pa.array(page)),
            pa.array(texts).take(pa.array(text, mask=rng.random(m) > 0.1)),
            pa.array(dwell, mask=is_last),
            pa.array(np.concatenate([[0.0], dwell[:-1]]), mask=is_first),
            pa.nulls(m, pa.float64()),
        ],
        fields=list(schema.SESSION_EVENT),
    )
    columns = {
        "session_id": [f"s{i:09d}" for i in range(first, first + n)],
        "visitor_id": [f"v{i:09d}" for i in visitor],
        "account_link": pa.repeat("none", n),
        "channel": pa.repeat("web", n),
        "start": start,
        "end": start + since[ends - 1],
        "n_events": lengths,
        "is_bot": pa.repeat(False, n),
        "events": pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), events),
    }
    return schema.conform(pa.table(columns), schema.SESSIONS, "sessions")


def _pages_seen(lengths: Ints, rng: np.random.Generator) -> Ints:
    """Per event, the number of a page: of the session's topic four times in five."""
    m = int(lengths.sum())
    topic = np.repeat(rng.choice(TOPICS, len(lengths), p=_zipf(TOPICS)), lengths)
    other = rng.choice(TOPICS, m, p=_zipf(TOPICS))
    return np.where(rng.random(m) < 0.8, topic, other) * PAGES_PER_TOPIC + rng.choice(
        PAGES_PER_TOPIC, m, p=_zipf(PAGES_PER_TOPIC)
    )
