"""How well the embedding tells the next page, on sessions that training did not see, beside simple floors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch

from clickintent.encoder.batches import bucket, draw_cuts
from clickintent.encoder.chunks import Chunk
from clickintent.encoder.features import OOV, FeatureSpace, Floats, Ints, pad
from clickintent.encoder.network import Network

_AT = (1, 5)
_KEYS = [f"{kind}recall_at_{k}" for kind in ("", "floor_") for k in _AT]
_BATCH_EVENTS = 8192


def next_page(
    network: Network, held_out: Chunk | None, seen: pa.ListArray, *, max_events: int, seed: int
) -> dict[str, float | int | None]:
    """Recall@1 and @5 of the next page at one random cut per held-out session of two events or more.

    The floor is the better of two counts over training sessions: the most popular pages, and the pages that
    most often follow the last visible one. A page that is not in the vocabulary is a miss for all.

    Args:
        seen: the pages of each training session, of a sample of them.
    """
    test = np.flatnonzero(held_out.events.lengths > 1) if held_out else np.empty(0, dtype=np.int64)
    if held_out is None or not len(test):
        return {"sessions": 0, **dict.fromkeys(_KEYS)}
    events = held_out.events
    rng = np.random.default_rng(seed)
    cuts = draw_cuts(events.offsets, test, rng, max_events=max_events, may_end=False)
    answer, last = events.page[cuts.cuts], events.page[cuts.cuts - 1]
    pages = len(network.space.pages)
    model = np.zeros(len(_AT))
    with torch.inference_mode():
        for rows in bucket(cuts.lengths, _BATCH_EVENTS, rng):
            batch = pad(events, cuts.starts[rows], cuts.lengths[rows])
            scores = network.heads.next_page(network.hidden(batch, held_out.texts)[1]).cpu().numpy()
            model += _hits(scores, answer[rows])
    popularity, follow = _floors(network.space, seen)
    popular = np.zeros(len(_AT))
    markov = np.zeros(len(_AT))
    for part in np.array_split(np.arange(len(test)), len(test) // 1024 + 1):
        popular += _hits(np.broadcast_to(popularity, (len(part), pages)), answer[part])
        # Ties, and pages never left in training, go by popularity.
        markov += _hits(follow(last[part]) + popularity * (0.5 / (popularity.max() + 1)), answer[part])
    floor = np.maximum(popular, markov)
    values = [float(v) / len(test) for v in (*model, *floor)]
    return {"sessions": len(test), **dict(zip(_KEYS, values, strict=True))}


def embeddings(network: Network, sessions: Chunk, *, max_events: int) -> Floats:
    """(n, dim) of whole sessions, by the network itself."""
    events = sessions.events
    lengths = np.minimum(events.lengths, max_events)
    starts = events.offsets[1:] - lengths
    found = np.empty((len(lengths), network.session.project.out_features), dtype=np.float32)
    with torch.inference_mode():
        for rows in bucket(lengths, _BATCH_EVENTS, np.random.default_rng(0)):
            batch = pad(events, starts[rows], lengths[rows])
            found[rows] = network.hidden(batch, sessions.texts)[1].cpu().numpy()
    return found


def _hits(scores: Floats, answer: Ints) -> Floats:
    """How many answers are among the best k pages, for each k; of equal ones, the first is the best."""
    scores = scores.copy()
    scores[:, : OOV + 2] = -np.inf  # the reserved ids are no pages
    own = scores[np.arange(len(answer)), answer]
    equal = (scores == own[:, None]) & (np.arange(scores.shape[1]) < answer[:, None])
    better = ((scores > own[:, None]) | equal).sum(axis=1)
    return np.array([((better < k) & np.isfinite(own)).sum() for k in _AT], dtype=np.float32)


def _floors(space: FeatureSpace, seen: pa.ListArray) -> tuple[Floats, Callable[[Ints], Floats]]:
    """How often each page comes next at all (pages,), and given the last page: (B,) → (B, pages)."""
    pages = len(space.pages)
    ids = space.pages.encode(seen.flatten())
    session = np.repeat(np.arange(len(seen)), np.diff(seen.offsets.to_numpy()))
    same = session[1:] == session[:-1]
    before, after = ids[:-1][same], ids[1:][same]
    popularity = np.bincount(after, minlength=pages).astype(np.float32)
    order = np.argsort(before, kind="stable")
    before, after = before[order], after[order]
    bounds = np.searchsorted(before, np.arange(pages + 1))

    def follow(last: Ints) -> Floats:
        out = np.zeros((len(last), pages), dtype=np.float32)
        for i, page in enumerate(last.tolist()):
            out[i] = np.bincount(after[bounds[page] : bounds[page + 1]], minlength=pages)
        return out

    return popularity, follow
