"""What a change of the taxonomy means for labels: which stay, which are mapped, which sessions to ask again.

- Renamed, moved: nothing is asked. Every label stays.
- Merged: a label of what is gone becomes one of what it is now, with the higher confidence of the two.
- Removed, split, redefined: sessions that carry such a label are asked again.
- Added: sessions without a label, or without a sure one, are asked again, and so are those that are near, by
  embedding, to the examples of the new intent.

The price, which whoever changes a taxonomy should know: an added or redefined intent may also fit sessions
with sure labels of other intents. Those are not asked; ``label --force`` asks everything again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent import schema
from clickintent.config import RelabelConfig
from clickintent.taxonomy.diff import Diff

_EXAMPLES = 20  # sessions that read like the examples of an intent; more would not change what is near


@dataclass(frozen=True)
class Change:
    """A change, as far as labels are concerned."""

    reasked: frozenset[str]  # ids whose sessions are asked again
    mapped: Mapping[str, str]  # id that is gone → id that it is now
    added: tuple[tuple[str, ...], ...]  # the examples of each new intent

    @classmethod
    def of(cls, found: Diff, *, by_keywords: bool = False) -> Change:
        """What a diff means for labels.

        Args:
            by_keywords: the labels come from the keyword namer, so that other keywords are another
                definition.
        """
        widened = {now.id for _, now in found.merged}
        rekeyed = {new.id for _, new in found.rekeyed if new.id not in widened} if by_keywords else set()
        reasked = found.reasked | rekeyed
        mapped = {
            intent.id: now.id for gone, now in found.merged for intent in gone if intent.id not in reasked
        }
        return cls(reasked, mapped, tuple(intent.examples for intent in found.added))


@dataclass(frozen=True)
class Carried:
    """``labels`` that stay or were mapped, the sessions to ask (a mask), and counts that add up:
    sessions = kept + mapped + asked, and asked is the sum of its reasons.
    """

    labels: pa.Table
    ask: np.ndarray  # (n,) bool
    counts: dict[str, int]


def carry(
    labels: pa.Table,
    session_ids: pa.Array,
    answered: pa.Array,
    change: Change,
    *,
    version: int,
    config: RelabelConfig,
    near: np.ndarray,
) -> Carried:
    """Carry labels over a change of the taxonomy.

    Args:
        labels: LABELS table, as they are.
        session_ids: (n,) the sessions that shall have labels.
        answered: those that ``labels`` speaks of, those without any intent included.
        version: of the new taxonomy; labels that are mapped get it, labels that are kept keep theirs.
        near: (n,) bool, near to an example of an added intent; see ``near_examples``.
    """
    n = len(session_ids)
    rows = pc.index_in(labels["session_id"], value_set=session_ids).combine_chunks()
    labels = labels.filter(rows.is_valid())
    row = rows.drop_null().to_numpy()
    ids = labels["intent_id"].combine_chunks()

    known = pc.is_in(session_ids, value_set=answered).to_numpy(zero_copy_only=False)
    touched = np.zeros(n, bool)
    touched[row[_among(ids, change.reasked)]] = True
    surest = np.zeros(n, np.float32)
    np.maximum.at(surest, row, labels["confidence"].to_numpy())
    reasons: dict[str, np.ndarray] = {"new": ~known, "touched": touched}
    if change.added:
        reasons |= {
            "without_label": surest == 0,
            "unsure": surest < config.low_confidence,
            "near_to_added": near,
        }
    ask = np.zeros(n, bool)
    counts = {}
    for reason, mask in reasons.items():
        counts[f"asked_{reason}"] = int((mask & ~ask).sum())
        ask |= mask

    carries_mapped = np.zeros(n, bool)
    carries_mapped[row[_among(ids, change.mapped)]] = True
    stays = labels.filter(pa.array(~ask[row]))
    counts = {
        "sessions": n,
        "kept": int((~ask & ~carries_mapped).sum()),
        "mapped": int((~ask & carries_mapped).sum()),
        "asked": int(ask.sum()),
        **counts,
    }
    return Carried(map_labels(stays, change.mapped, version), ask, counts)


def map_labels(labels: pa.Table, mapped: Mapping[str, str], version: int) -> pa.Table:
    """Labels with intents that were merged under their present id: of a session's labels that become one, the
    surest stays, with its evidence.
    """
    if not mapped or labels.num_rows == 0:
        return labels
    before = labels["intent_id"].to_pylist()
    now = [mapped.get(id_, id_) for id_ in before]
    moved = np.asarray([a != b for a, b in zip(before, now, strict=True)])
    versions = np.where(moved, version, labels["taxonomy_version"].to_numpy())
    columns = {name: labels[name] for name in schema.LABELS.names} | {
        "intent_id": pa.array(now, pa.string()),
        "taxonomy_version": pa.array(versions, pa.int64()),
    }
    table = pa.table(columns, schema=schema.LABELS)
    session = table["session_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    intent = table["intent_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((-table["confidence"].to_numpy(), intent, session))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(session[order]) != 0) | (np.diff(intent[order]) != 0)
    return table.take(np.sort(order[first]))


def near_examples(
    narratives: Sequence[str], embeddings: np.ndarray, added: Sequence[Sequence[str]], share: float
) -> np.ndarray:
    """Which sessions are near to the examples of added intents: a mask (n,).

    Examples are found again by what they read like, apart from where the visitor came from. Of each intent,
    the ``share`` of all sessions whose embeddings are closest (by cosine) to one of its examples are near.

    Args:
        narratives: (n,)
        embeddings: (n, dim)
    """
    n = len(narratives)
    near = np.zeros(n, bool)
    told = np.asarray([_path(text) for text in narratives], dtype=object)
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    for examples in added:
        found = np.flatnonzero(np.isin(told, [_path(text) for text in examples]))[:_EXAMPLES]
        if len(found):
            closest = (unit @ unit[found].T).max(axis=1)
            near[np.argsort(-closest, kind="stable")[: int(np.ceil(share * n))]] = True
    return near


def _path(narrative: str) -> str:
    """A narrative without its origin, which examples may lack."""
    return narrative.split(" · ", 1)[-1] if narrative.startswith(("from ", "campaign ")) else narrative


def _among(ids: pa.Array, wanted: frozenset[str] | Mapping[str, str]) -> np.ndarray:
    found: np.ndarray = pc.is_in(ids, value_set=pa.array(sorted(wanted), pa.string())).to_numpy(
        zero_copy_only=False
    )
    return found


def joined(parts: Sequence[pa.Table], session_ids: pa.Array) -> pa.Table:
    """Labels of several tables as one, in the order of the sessions."""
    table = pa.concat_tables(parts)
    row = pc.index_in(table["session_id"], value_set=session_ids).to_numpy()
    return table.take(np.argsort(row, kind="stable"))
