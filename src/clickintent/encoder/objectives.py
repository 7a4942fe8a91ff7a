"""What the encoder is trained to tell, and how it is kept from reading the answer.

A session of n events is cut after event t. The model sees events up to the cut and nothing of the rest; all
attention among them is bidirectional. From the session embedding alone it predicts

- *next*: the page, event type and waiting time of the next event, or that there is none;
- *future*: the pages of the rest of the session, as a bag;
- *after*: the pages of the visitor's next session, as a bag, where there is one: what somebody comes back for
  is the nearest thing to their intent that needs no label;
- *visible*: the pages of the visible part, as a bag, its last page, and its numbers (dwell, gap, calendar,
  length), so that the embedding keeps what page counts and hand-made features would know;

and from the vector of a masked event what was masked (*masked*). Masking is at several grains (single fields
15 %, whole events 10 %, a field of all events 10 %: PRAGMA), in a quarter of the sessions, because nothing
is masked when embedding. Fields which tell each other are masked together: page, type and text of an event;
its dwell and the next one's gap, which are the same time.

The page of every tenth event is called unknown, its text left in place and the page itself still asked for:
so a page that training never saw is read by its text. Without texts there would be nothing to read.

Weights and shares were chosen on seed 1 of the tasks in benchmarks/quality.py; docs/benchmarks.md says what
else was tried and what it did.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clickintent.config import EncoderConfig
from clickintent.encoder.batches import Cuts
from clickintent.encoder.features import (
    CALENDAR,
    CALENDAR_TABLE,
    DWELL,
    GAP,
    MASK,
    NO_DWELL,
    NO_GAP,
    OOV,
    PAD,
    Batch,
    Encoded,
    FeatureSpace,
    Ints,
    ranges,
)
from clickintent.encoder.model import SessionModel

WEIGHTS = {
    "next_page": 1.5,
    "next_type": 0.5,
    "next_wait": 0.5,
    "future": 1.0,
    "after": 4.0,
    "visible": 2.0,
    "last_page": 0.25,
    "numbers": 2.0,
    "masked_page": 0.5,
    "masked_type": 0.25,
    "masked_gap": 0.25,
}

_MASKED_SESSIONS = 0.25
_FIELD, _EVENT, _COLUMN = 0.15, 0.10, 0.10
UNKNOWN_PAGE = 0.10
_IGNORE = -100
_FUTURE_EVENTS = 64

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Masks:
    """What was hidden from a batch, each (B, L)."""

    content: Bools  # page, event type and text
    page: Bools  # the page alone: it is called unknown
    dwell: Bools
    gap: Bools
    calendar: Bools


def draw_masks(
    lengths: Ints, longest: int, rng: np.random.Generator, *, unknown_page: float = UNKNOWN_PAGE
) -> Masks:
    """Draw what to hide; nothing outside the windows."""
    shape = (len(lengths), longest)
    inside = (np.arange(longest) < lengths[:, None]) & (rng.random((len(lengths), 1)) < _MASKED_SESSIONS)
    whole = rng.random(shape) < _EVENT
    content, dwell, gap, calendar = (
        (whole | (rng.random(shape) < _FIELD) | (rng.random((len(lengths), 1)) < _COLUMN)) & inside
        for _ in range(4)
    )
    # An event's dwell is the gap of the next one.
    dwell[:, :-1] |= gap[:, 1:]
    gap[:, 1:] |= dwell[:, :-1]
    page = (np.arange(longest) < lengths[:, None]) & (rng.random(shape) < unknown_page)
    return Masks(content, page, dwell & inside, gap & inside, calendar)


def apply_masks(batch: Batch, masks: Masks) -> Batch:
    """The batch without what is masked; a masked number looks like a missing one."""
    numeric = batch.numeric.copy()
    numeric[masks.dwell, DWELL] = 0.0
    numeric[masks.dwell, NO_DWELL] = 1.0
    numeric[masks.gap, GAP] = 0.0
    numeric[masks.gap, NO_GAP] = 1.0
    numeric[masks.calendar, CALENDAR] = 0.0
    return Batch(
        page=np.where(masks.content, MASK, np.where(masks.page, OOV, batch.page)),
        event_type=np.where(masks.content, MASK, batch.event_type),
        numeric=numeric,
        text=np.where(masks.content, 0, batch.text),
        lengths=batch.lengths,
    )


@dataclass(frozen=True)
class Targets:
    """The answers for one batch of B windows."""

    next_page: Ints  # (B,); PAD where the session ends
    next_type: Ints
    next_wait: Ints  # bin of the last visible event's dwell; ignored where not known
    future: tuple[Ints, Ints]  # (row, page) per event after the cut
    after: tuple[Ints, Ints]  # (row, page) per event of the visitor's next session
    visible: tuple[Ints, Ints]  # (row, page) per visible event
    last_page: Ints  # (B,), the last visible one
    numbers: Batch  # before masking
    masks: Masks


def targets(
    events: Encoded, following: Ints, cuts: Cuts, batch: Batch, masks: Masks, space: FeatureSpace
) -> Targets:
    """Look up the answers.

    Args:
        following: (n,) for each session of ``events`` the row of the same visitor's next one, −1 for none.
        batch: unmasked.
    """
    more = cuts.cuts < cuts.ends
    next_event = np.where(more, cuts.cuts, 0)
    wait = events.log_dwell[cuts.cuts - 1]
    wait_bin = np.searchsorted(np.array(space.dwell_edges[1:-1]), np.nan_to_num(wait))
    row = np.arange(len(more))
    ahead = np.minimum(cuts.ends - cuts.cuts, _FUTURE_EVENTS)
    later = following[np.searchsorted(events.offsets, cuts.starts, side="right") - 1]
    returning = np.flatnonzero(later >= 0)
    later = later[returning]
    seen = np.minimum(events.lengths[later], _FUTURE_EVENTS)
    return Targets(
        next_page=np.where(more, events.page[next_event], PAD),
        next_type=np.where(more, events.event_type[next_event], PAD),
        next_wait=np.where(more & ~np.isnan(wait), wait_bin, _IGNORE),
        future=(np.repeat(row, ahead), events.page[ranges(cuts.cuts, ahead)]),
        after=(np.repeat(returning, seen), events.page[ranges(events.offsets[later], seen)]),
        visible=(np.repeat(row, cuts.lengths), events.page[ranges(cuts.starts, cuts.lengths)]),
        last_page=events.page[cuts.cuts - 1],
        numbers=batch,
        masks=masks,
    )


class Heads(nn.Module):
    """The output layers, used in training only."""

    def __init__(self, config: EncoderConfig, space: FeatureSpace) -> None:
        super().__init__()
        pages, types = len(space.pages), len(space.event_types)
        self.next_page = nn.Linear(config.dim, pages)
        self.next_type = nn.Linear(config.dim, types)
        self.next_wait = nn.Linear(config.dim, len(space.dwell_edges))
        self.future = nn.Linear(config.dim, pages)
        self.after = nn.Linear(config.dim, pages)
        self.visible = nn.Linear(config.dim, pages)
        self.last_page = nn.Linear(config.dim, pages)
        self.numbers = nn.Linear(config.dim, len(space.gap_edges) * 2 + len(space.dwell_edges) + 9)
        self.masked = nn.Sequential(
            nn.Linear(config.width, config.width), nn.GELU(), nn.LayerNorm(config.width)
        )
        self.masked_page = nn.Linear(config.width, pages)
        self.masked_type = nn.Linear(config.width, types)
        self.masked_gap = nn.Linear(config.width, len(space.gap_edges))

    def losses(
        self, model: SessionModel, x: Tensor, embedding: Tensor, answers: Targets, space: FeatureSpace
    ) -> dict[str, tuple[Tensor, int]]:
        """Each loss as a sum over the sessions or masked events that have an answer, and how many they are.

        All are there always, so that several processes have the same gradients to exchange.

        Args:
            x: (B, L, width), one vector per event. embedding: (B, dim).
        """
        masks, batch = answers.masks, answers.numbers
        known_gap = masks.gap & (batch.numeric[..., NO_GAP] == 0)
        gap = np.searchsorted(np.array(space.gap_edges[1:-1]), batch.numeric[known_gap, GAP])
        at = embedding.device
        content = self.masked(x[_tensor(masks.content, at)])
        numbers = F.mse_loss(self.numbers(embedding), _summary(model, answers.numbers))
        return {
            "next_page": _choice(self.next_page(embedding), answers.next_page),
            "next_type": _choice(self.next_type(embedding), answers.next_type),
            "next_wait": _choice(self.next_wait(embedding), answers.next_wait),
            "future": _bag(self.future(embedding), *answers.future),
            "after": _bag(self.after(embedding), *answers.after),
            "visible": _bag(self.visible(embedding), *answers.visible),
            "last_page": _choice(self.last_page(embedding), answers.last_page),
            "numbers": (numbers * len(embedding), len(embedding)),
            "masked_page": _choice(self.masked_page(content), batch.page[masks.content]),
            "masked_type": _choice(self.masked_type(content), batch.event_type[masks.content]),
            "masked_gap": _choice(self.masked_gap(self.masked(x[_tensor(known_gap, at)])), gap),
        }


def total(losses: dict[str, tuple[Tensor, int]]) -> Tensor:
    """The weighted sum of the mean losses."""
    return torch.stack([WEIGHTS[name] * loss / max(n, 1) for name, (loss, n) in losses.items()]).sum()


def _tensor(values: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


def _choice(logits: Tensor, answer: Ints) -> tuple[Tensor, int]:
    """Sum of the cross entropy where there is an answer, and how often there is."""
    loss = F.cross_entropy(logits, _tensor(answer, logits.device), ignore_index=_IGNORE, reduction="sum")
    return loss, int((answer != _IGNORE).sum())


def _bag(logits: Tensor, row: Ints, page: Ints) -> tuple[Tensor, int]:
    """Cross entropy between the softmax over pages and each session's distribution of pages."""
    counts = np.bincount(row, minlength=len(logits))
    at = logits.device
    weight = _tensor((1.0 / counts[row]).astype(np.float32), at)
    picked = F.log_softmax(logits, dim=-1)[_tensor(row, at), _tensor(page, at)]
    return -(picked * weight).sum(), int((counts > 0).sum())


def _summary(model: SessionModel, batch: Batch) -> Tensor:
    """(B, …): mean spread of dwell and gap, the last event's gap, its calendar, and the log length."""
    at = model.project.weight.device
    numeric, lengths = _tensor(batch.numeric, at), _tensor(batch.lengths, at)
    inside = (torch.arange(numeric.shape[1], device=at) < lengths[:, None]).unsqueeze(-1).float()
    events = model.events
    dwell = events.dwell.spread(numeric[..., DWELL], numeric[..., NO_DWELL])
    gap = events.gap.spread(numeric[..., GAP], numeric[..., NO_GAP])
    last = (lengths - 1)[:, None, None]
    means = [(part * inside).sum(1) / lengths[:, None] for part in (dwell, gap)]
    last_gap = gap.gather(1, last.expand(-1, 1, gap.shape[-1])).squeeze(1)
    clock = numeric[..., CALENDAR].gather(1, last.expand(-1, 1, CALENDAR_TABLE.shape[1])).squeeze(1)
    return torch.cat([*means, last_gap, clock, lengths[:, None].float().log()], dim=1)
