"""After a relaunch: what is left of a representation when pages move to addresses that training never saw?

The pages of the test sessions get a new address: none, half or all of them; or all of them and other titles,
too (``reworded``: one word before the first ``|`` goes, ``New`` comes in front). Types and times stay. The
encoder and the heads are the same throughout: nothing is trained anew, as on the morning after. Tasks, splits
and heads are those of ``quality.py``: GA360 (add to cart from the first events) and SimBank (intent).

Beside the default encoder: the same without its training on pages called unknown; page counts, which must
fall to ``prior`` (no features) when all addresses are new; and what reads titles: counts of whole titles,
which must not change while titles stay and must fall when they do, and TF-IDF + SVD over their words.

    python benchmarks/unseen.py [--data ga360,simbank] [--seeds 3] [--work FOLDER]

Sessions come from ``CLICKINTENT_DATA`` as in ``quality.py``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

import clickintent.encoder.train as training
from clickintent.downstream import PageCounts
from clickintent.encoder import SessionEncoder
from common import write_results
from quality import config_of
from quality_data import DATA, Data, Task
from quality_judge import HEADS, judge, measure
from quality_methods import Method, page_counts

#: Share of the pages that move, and whether titles are reworded.
RELAUNCHES = {"none": (0.0, False), "half": (0.5, False), "all": (1.0, False), "reworded": (1.0, True)}
TASKS = ("GA360: add_to_cart", "SimBank: intent")


def events_of(sessions: pa.Table) -> pa.StructArray:
    """The events of all sessions, one after the other."""
    return pc.list_flatten(sessions["events"]).combine_chunks()


def with_events(sessions: pa.Table, **columns: pa.Array) -> pa.Table:
    """The sessions with other values in some fields of their events."""
    events = events_of(sessions)
    fields = [events.type.field(i) for i in range(events.type.num_fields)]
    arrays = [columns.get(field.name, events.field(field.name)) for field in fields]
    offsets = np.concatenate([[0], np.cumsum(sessions["n_events"].to_numpy())]).astype(np.int32)
    lists = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(arrays, fields=fields))
    return sessions.set_column(sessions.column_names.index("events"), "events", lists)


def relaunched(task: Task, share: float, reworded: bool, seed: int) -> Task:
    """The task with ``share`` of its pages at new addresses in the test sessions, and other titles."""
    rng = np.random.default_rng(seed)
    events = events_of(task.seen)
    tested = np.zeros(task.seen.num_rows, bool)
    tested[task.row[task.test]] = True
    of_test = np.repeat(tested, task.seen["n_events"].to_numpy())

    def changed(name: str, new: list[str | None]) -> pa.Array:
        old = events.field(name).dictionary_encode()
        values = np.array([new, old.dictionary.to_pylist()], dtype=object)
        index = pc.fill_null(old.indices, 0).to_numpy()
        found = pa.array(values[np.where(of_test, 0, 1), index], pa.string())
        return pc.if_else(old.is_valid(), found, None)

    pages = events.field("page").dictionary_encode().dictionary.to_pylist()
    chosen = rng.permutation(len(pages)) < round(share * len(pages))
    new = [f"/2027{page}" if moves else page for page, moves in zip(pages, chosen, strict=True)]
    columns = {"page": changed("page", new)}
    if reworded:
        titles = events.field("title").dictionary_encode().dictionary.to_pylist()
        columns["title"] = changed("title", [_reworded(title, rng) for title in titles])
    return replace(task, seen=with_events(task.seen, **columns))


def _reworded(title: str, rng: np.random.Generator) -> str:
    name, bar, site = title.partition("|")
    words = name.split()
    if len(words) > 1:
        del words[rng.integers(len(words))]
    return f"New {' '.join(words)} {bar}{site}".strip()


def title_counts(data: Data, _seed: int) -> Method:
    """How often each title was seen; the address where there is none."""

    def titled(sessions: pa.Table) -> pa.Table:
        events = events_of(sessions)
        return with_events(sessions, page=pc.coalesce(events.field("title"), events.field("page")))

    counts = PageCounts.fit(titled(data.past))
    return lambda seen: counts.transform(titled(seen))


def title_words(data: Data, seed: int) -> Method:
    """TF-IDF over the words of a session's titles, SVD to 64 numbers."""

    def told(sessions: pa.Table) -> list[str]:
        titles = pc.fill_null(events_of(sessions).field("title"), "").to_pylist()
        ends = np.cumsum(sessions["n_events"].to_numpy())
        return [
            " ".join(titles[end - n : end])
            for end, n in zip(ends, sessions["n_events"].to_numpy(), strict=True)
        ]

    words = TfidfVectorizer(sublinear_tf=True, min_df=2)
    reduce = make_pipeline(words, TruncatedSVD(64, random_state=seed)).fit(told(data.past))
    return lambda seen: reduce.transform(told(seen)).astype(np.float32)


def methods(data: Data, seed: int) -> Iterator[tuple[str, Method]]:
    """Name and representation, one at a time: each is trained when its turn comes."""
    for method in (page_counts, title_counts, title_words):
        yield method.__name__, method(data, seed)
    yield "embedding", SessionEncoder(config_of(data), seed=seed).fit(data.past).embed
    with patch.object(training, "UNKNOWN_PAGE", 0.0):
        plain = SessionEncoder(config_of(data), seed=seed).fit(data.past)
    yield "embedding_without_unknown", plain.embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="ga360,simbank")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="unseen-"))
    names = arguments.data.split(",")
    found: dict[tuple[str, str, str, str, str], list[float]] = defaultdict(list)
    for name in names:
        for seed in range(1, arguments.seeds + 1):
            data = DATA[name](work, seed)
            tasks = [task for task in data.tasks if task.name.startswith(TASKS)]
            for task in tasks:
                start = np.exp(task.offset[task.test])
                for metric, estimate in measure(task, start / start.sum(axis=1, keepdims=True)).items():
                    found[task.name, "prior", "none", metric, "none"].append(estimate.value)
            for method, features in methods(data, seed):
                for task in tasks:
                    for relaunch, (share, reworded) in RELAUNCHES.items():
                        after = relaunched(task, share, reworded, seed)
                        matrix = features(after.seen)
                        for head in HEADS:
                            for metric, estimate in judge(after, matrix, head, seed).items():
                                found[task.name, method, head, metric, relaunch].append(estimate.value)
                            print(f"done: {task.name}, {seed}, {method}, {relaunch}, {head}", flush=True)
    rows = [
        dict(zip(("task", "method", "head", "metric", "relaunch"), key, strict=True))
        | {"value": float(np.mean(values)), "seed_min": min(values), "seed_max": max(values)}
        for key, values in sorted(found.items())
    ]
    for row in rows:
        print(
            f"{row['task']:32s} {row['method']:26s} {row['head']:9s} {row['metric']:9s} {row['relaunch']:9s}"
            f" {row['value']:.3f} ({row['seed_min']:.3f} … {row['seed_max']:.3f})"
        )
    write_results("unseen", {"seeds": arguments.seeds, "data": names, "rows": rows})


if __name__ == "__main__":
    main()
