"""After a relaunch: what is left of a representation when pages move to addresses that training never saw?

A share of the pages (0, 10 %, 50 %, all) gets a new address in the test sessions alone; title, type and times
stay. The encoder and the heads are the same for every share: nothing is trained anew, as on the morning
after. Tasks, splits and heads are those of ``quality.py``: GA360 (purchase and cart from the first events)
and SimBank (intent). Beside the default encoder: the same without its training on pages called unknown, page
counts, TF-IDF + SVD. Share 0 is the floor of what a relaunch costs, ``prior`` that of having no features.

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

import clickintent.encoder.train as training
from clickintent.encoder import SessionEncoder
from common import write_results
from quality import config_of
from quality_data import DATA, Data, Task
from quality_judge import HEADS, judge, measure
from quality_methods import Method, page_counts, tfidf_svd

SHARES = (0.0, 0.1, 0.5, 1.0)
TASKS = ("GA360: purchase", "GA360: add_to_cart", "SimBank: intent")


def moved(task: Task, share: float, seed: int) -> Task:
    """The task with ``share`` of its pages at new addresses in the test sessions."""
    events = pc.list_flatten(task.seen["events"]).combine_chunks()
    pages = events.field("page").dictionary_encode()
    known = np.array(pages.dictionary.to_pylist(), dtype=object)
    chosen = np.random.default_rng(seed).permutation(len(known)) < round(share * len(known))
    new = np.where(chosen, "/2027" + known, known)
    tested = np.zeros(task.seen.num_rows, bool)
    tested[task.row[task.test]] = True
    of_test = np.repeat(tested, task.seen["n_events"].to_numpy())
    index = pages.indices.to_numpy()
    page = pa.array(np.where(of_test, new[index], known[index]), pa.string())
    fields = [events.type.field(i) for i in range(events.type.num_fields)]
    columns = [page if field.name == "page" else events.field(field.name) for field in fields]
    lists = pa.ListArray.from_arrays(
        np.concatenate([[0], np.cumsum(task.seen["n_events"].to_numpy())]).astype(np.int32),
        pa.StructArray.from_arrays(columns, fields=fields),
    )
    at = task.seen.column_names.index("events")
    return replace(task, seen=task.seen.set_column(at, "events", lists))


def methods(data: Data, seed: int) -> Iterator[tuple[str, Method]]:
    """Name and representation, one at a time: each is trained when its turn comes."""
    yield "page_counts", page_counts(data, seed)
    yield "tfidf_svd", tfidf_svd(data, seed)
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
    found: dict[tuple[str, str, str, str, float], list[float]] = defaultdict(list)
    for name in names:
        for seed in range(1, arguments.seeds + 1):
            data = DATA[name](work, seed)
            tasks = [task for task in data.tasks if task.name.startswith(TASKS)]
            for task in tasks:
                start = np.exp(task.offset[task.test])
                for metric, estimate in measure(task, start / start.sum(axis=1, keepdims=True)).items():
                    found[task.name, "prior", "none", metric, 0.0].append(estimate.value)
            for method, features in methods(data, seed):
                for task in tasks:
                    for share in SHARES:
                        after = moved(task, share, seed)
                        matrix = features(after.seen)
                        for head in HEADS:
                            for metric, estimate in judge(after, matrix, head, seed).items():
                                found[task.name, method, head, metric, share].append(estimate.value)
                            print(f"done: {task.name}, {seed}, {method}, {share:.0%}, {head}", flush=True)
    rows = [
        dict(zip(("task", "method", "head", "metric", "share"), key, strict=True))
        | {"value": float(np.mean(values)), "seed_min": min(values), "seed_max": max(values)}
        for key, values in sorted(found.items())
    ]
    for row in rows:
        print(
            f"{row['task']:32s} {row['method']:26s} {row['head']:9s} {row['metric']:9s} {row['share']:4.0%}"
            f"  {row['value']:.3f} ({row['seed_min']:.3f} … {row['seed_max']:.3f})"
        )
    write_results("unseen", {"seeds": arguments.seeds, "data": names, "rows": rows})


if __name__ == "__main__":
    main()
