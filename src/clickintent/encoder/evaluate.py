"""How well the embedding tells the next page, on sessions that training did not see, beside simple floors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from clickintent.encoder.batches import bucket, draw_cuts
from clickintent.encoder.features import OOV, Encoded, Floats, Ints, pad, ranges
from clickintent.encoder.train import Network

_AT = (1, 5)


def next_page(
    network: Network, events: Encoded, train_rows: Ints, test_rows: Ints, *, max_events: int, seed: int
) -> dict[str, float | int | None]:
    """Recall@1 and @5 of the next page at one random cut per held-out session of two events or more.

    The floor is the better of two counts over the training sessions: the most popular pages, and the pages
    that most often follow the last visible one. A page that is not in the vocabulary is a miss for all.
    """
    test = test_rows[events.lengths[test_rows] > 1]
    keys = [f"{kind}recall_at_{k}" for kind in ("", "floor_") for k in _AT]
    if not len(test):
        return {"sessions": 0, **dict.fromkeys(keys)}
    rng = np.random.default_rng(seed)
    cuts = draw_cuts(events.offsets, test, rng, max_events=max_events, may_end=False)
    answer, last = events.page[cuts.cuts], events.page[cuts.cuts - 1]
    pages = network.session.events.page.num_embeddings
    model = np.zeros(len(_AT))
    with torch.inference_mode():
        for rows in bucket(cuts.lengths, 8192, rng):
            batch = pad(events, cuts.starts[rows], cuts.lengths[rows])
            scores = network.heads.next_page(network.hidden(batch)[1]).numpy()
            model += _hits(scores, answer[rows])
    popularity, follow = _floors(events, train_rows, pages)
    popular = np.zeros(len(_AT))
    markov = np.zeros(len(_AT))
    for part in np.array_split(np.arange(len(test)), len(test) // 1024 + 1):
        popular += _hits(np.broadcast_to(popularity, (len(part), pages)), answer[part])
        # Ties, and pages never left in training, go by popularity.
        markov += _hits(follow(last[part]) + popularity * (0.5 / (popularity.max() + 1)), answer[part])
    floor = np.maximum(popular, markov)
    values = [float(v) / len(test) for v in (*model, *floor)]
    return {"sessions": len(test), **dict(zip(keys, values, strict=True))}


def _hits(scores: Floats, answer: Ints) -> Floats:
    """How many answers are among the best k pages, for each k."""
    scores = scores.copy()
    scores[:, : OOV + 2] = -np.inf  # the reserved ids are no pages
    own = scores[np.arange(len(answer)), answer]
    better = (scores > own[:, None]).sum(axis=1)
    return np.array([((better < k) & np.isfinite(own)).sum() for k in _AT], dtype=np.float32)


def _floors(events: Encoded, rows: Ints, pages: int) -> tuple[Floats, Callable[[Ints], Floats]]:
    """How often each page comes next at all (pages,), and given the last page: (B,) → (B, pages)."""
    starts, lengths = events.offsets[rows], events.lengths[rows]
    target = ranges(starts + 1, np.maximum(lengths - 1, 0))
    before, after = events.page[target - 1], events.page[target]
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
