# %% [markdown]
# # Session embeddings of your own table
#
# Run it cell by cell in an editor that knows `# %%`, or as a whole:
#
#     python examples/embeddings.py                  # on a small simulated bank
#     python examples/embeddings.py clicks.parquet visitor_id=cookie ts=event_time url=page_url
#
# The table is Parquet, CSV or NDJSON, a row for each click. `visitor_id`, `ts`, and `url` or `page` are
# needed; `title`, `event_type` and others help. With 10,000 sessions it takes about a minute on two cores.
# Nothing is sent anywhere.

# %%
import os
import secrets
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import clickintent
from clickintent import Config, EncoderConfig, SessionEncoder

table, *pairs = sys.argv[1:] or [""]
columns = dict(pair.split("=", 1) for pair in pairs)
folder = Path(tempfile.mkdtemp(prefix="clickintent-"))
# Visitor ids are kept as keyed hashes. This key is forgotten with the process; for real use, keep one.
os.environ.setdefault("CLICKINTENT_KEY", secrets.token_hex(32))

if table:
    source = {"reader": "table", "path": table, "columns": columns}
    if "event_type" not in columns:
        source["constants"] = {"event_type": "page_view"}
else:
    bank = Config(workspace=folder / "bank", simbank={"out": folder / "bank", "sessions": 10_000})
    clickintent.simulate(bank)
    source = {"reader": "ga4", "path": folder / "bank/web/*.parquet"}

# %% [markdown]
# ## Clicks → sessions
# Addresses become templates, personal data is dropped, a silence of 30 minutes ends a session. What could not
# be read is counted and kept with its reason.

# %%
config = Config(workspace=folder, sources=[source])
events = clickintent.ingest(config)["events"]
print(f"{events['read']:,} rows = {events['events']:,} events", end="")
print(f" + {events['duplicates']:,} duplicates + {events['quarantined']:,} quarantined")
sessions = pq.read_table(folder / "sessions").sort_by("start")
people = pc.invert(sessions["is_bot"])
print(f"{sessions.num_rows:,} sessions, {pc.sum(people).as_py():,} of them of people, not robots")
sessions = sessions.filter(people)

# %% [markdown]
# ## Sessions → embeddings
# The encoder learns from the past alone: what came after `split` is as new to it as tomorrow's sessions.

# %%
start, end = (sessions[name].to_numpy() for name in ("start", "end"))
split = int(np.quantile(start, 0.7))
past = sessions.filter(pa.array(end < split))
encoder = SessionEncoder(EncoderConfig(epochs=6)).fit(past)
vectors = encoder.embed(sessions)
print(f"{past.num_rows:,} sessions learned from, {len(vectors):,} embedded: {vectors.shape}, {vectors.dtype}")

# %% [markdown]
# ## What is near to what?


# %%
def path_of(row: int) -> str:
    pages = [event["page"] for event in sessions["events"][row].as_py()]
    kept = [page for i, page in enumerate(pages) if i == 0 or page != pages[i - 1]]
    return " → ".join(kept[:5]) + (" → …" if len(kept) > 5 else "")


def nearest(vector: np.ndarray, among: np.ndarray, k: int = 3) -> np.ndarray:
    """The rows of sessions with the most similar vectors (cosine)."""
    unit = vectors[among] / np.linalg.norm(vectors[among], axis=1, keepdims=True).clip(1e-9)
    return among[np.argsort(-(unit @ vector))[:k]]


long_enough = np.flatnonzero(sessions["n_events"].to_numpy() >= 4)
for row in np.random.default_rng(1).choice(long_enough, min(3, len(long_enough)), replace=False):
    print(path_of(row))
    for other in nearest(vectors[row], np.setdiff1d(long_enough, row)):
        print("    like", path_of(other))

# %% [markdown]
# ## Is it worth having?
# A question that every clickstream can answer: does the visitor come back within a week? The same head on
# page counts and on embeddings; trained on sessions whose week is over at the split, tested on later ones.

# %%
WEEK = 7 * 86_400_000_000  # µs
visitor = sessions["visitor_id"].combine_chunks().dictionary_encode().indices.to_numpy()
order = np.lexsort((start, visitor))
same = np.append(visitor[order][1:] == visitor[order][:-1], False)
next_start = np.append(start[order][1:], 0)
comes_back = np.zeros(len(start), bool)
comes_back[order] = same & (next_start - end[order] <= WEEK)

train, test = end + WEEK < split, (start >= split) & (end + WEEK <= end.max())
seen = [[event["page"] for event in session] for session in sessions["events"].to_pylist()]
counts = CountVectorizer(analyzer=lambda pages: pages).fit([seen[i] for i in np.flatnonzero(train)])


def auc(features: object) -> float:
    head = make_pipeline(StandardScaler(with_mean=False), LogisticRegression(C=0.1, max_iter=1000))
    head.fit(features[train], comes_back[train])
    return roc_auc_score(comes_back[test], head.predict_proba(features[test])[:, 1])


if len(set(comes_back[train])) == len(set(comes_back[test])) == 2:
    print(f"comes back within a week ({comes_back[test].mean():.0%} of {test.sum():,} test sessions), AUC:")
    print(f"  page counts  {auc(counts.transform(seen)):.3f}")
    print(f"  embedding    {auc(vectors):.3f}")
    print(f"  its first 32 {auc(vectors[:, :32]):.3f}")

# %% [markdown]
# ## A page that training never saw, and a single event
# `embed_one` takes plain Python objects: what a service has at hand. Suppose that a relaunch moves a page:
# nobody has clicked its new address yet, but its words and its title say what it is.

# %%
clicked = pc.list_flatten(past["events"]).combine_chunks()
page = (
    pc.value_counts(clicked.field("page")).sort(order="descending", by="counts").field("values")[10].as_py()
)
title = clicked.filter(pc.equal(clicked.field("page"), page)).field("title")[0].as_py()
moved = {"ts": int(start[-1]), "event_type": "page_view", "page": f"/2027{page}", "title": title}
print(f"{moved['page']} ({title}), which training did not see, is nearest to")
for row in nearest(encoder.embed_one([moved]), np.flatnonzero(end < split)):
    print("   ", path_of(row))

# %% [markdown]
# ## One vector per visitor, and an encoder to keep

# %%
visitors = clickintent.visitor_embeddings(sessions, vectors)
print(visitors.num_rows, "visitors:", ", ".join(visitors.column_names))

encoder.save(folder / "encoder")
again = SessionEncoder.load(folder / "encoder")  # needs no torch
assert np.array_equal(again.embed(sessions), vectors)
print(f"saved, with a model card: {folder / 'encoder'}")
