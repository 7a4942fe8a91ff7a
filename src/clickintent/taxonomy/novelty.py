"""Intents that the taxonomy lacks: groups of sessions that no intent fits, proposed with evidence.

Sessions without a sure label are clustered by embedding. A cluster is proposed if it is a place of its own,
where most sessions lack a sure label, and not the blurred edge of known intents; if it is large enough, of
enough people and weeks; and if words set it apart. Whether it is new or was always missed is told by its
weeks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from clickintent.config import NoveltyConfig
from clickintent.errors import ArtifactError
from clickintent.taxonomy import marked_yaml
from clickintent.taxonomy.content import fold
from clickintent.taxonomy.keywords import Described, describe_groups
from clickintent.taxonomy.sample import cluster
from clickintent.workspace import write_text

_MOST_CLUSTERS = 40
_WITHIN = 0.9  # of a cluster's sessions that are within what counts as its place
_DAY_US = 86_400_000_000


class Evidence(BaseModel):
    """Why an intent is proposed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sessions: int
    visitors: int
    share: float  # of all sessions
    unsure_share: float  # of all sessions in the same place, how many have no sure label
    weeks: dict[str, int]  # ISO week → sessions
    #: Its share of sessions in the later half of the weeks over that in the earlier half; None: only later.
    growth: float | None


class Proposal(BaseModel):
    """An intent that somebody may accept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    definition: str
    area: str | None
    includes: tuple[str, ...]
    keywords: dict[str, float]
    examples: tuple[str, ...]
    evidence: Evidence

    def fields(self) -> dict[str, Any]:
        """What becomes of it in an intent, beside its name and definition."""
        return {
            "area": self.area,
            "includes": self.includes,
            "keywords": tuple(self.keywords),
            "keyword_weights": tuple(self.keywords.values()),
            "examples": self.examples,
        }


@dataclass(frozen=True)
class Found:
    """``proposals``, and what became of the groups that were looked at: counts by reason, which add up."""

    proposals: tuple[Proposal, ...]
    groups: dict[str, int]
    unsure: int  # sessions


def propose(
    sessions: pa.Table,
    embeddings: np.ndarray,
    surest: np.ndarray,
    known: Collection[str],
    config: NoveltyConfig,
    *,
    seed: int,
) -> Found:
    """Propose intents for sessions that no intent fits.

    Args:
        sessions: table of the sessions schema.
        embeddings: (n, dim)
        surest: (n,) confidence of each session's surest label, 0 without one.
        known: names that need not be proposed: those of the taxonomy, and those that were dismissed.
    """
    unsure = surest < config.unsure
    rows = np.flatnonzero(unsure)
    if len(rows) < config.min_sessions:
        return Found((), {}, len(rows))
    k = min(_MOST_CLUSTERS, max(1, len(rows) // config.min_sessions))
    clusters = _merged(embeddings[rows], cluster(embeddings[rows], k, seed=seed))
    weeks = _weeks(sessions)
    visitors = sessions["visitor_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    group = np.full(len(surest), -1)
    reasons: Counter[str] = Counter()
    purity: list[float] = []
    for c in range(int(clusters.max()) + 1):
        member = rows[clusters == c]
        here = _place(embeddings, member)
        reason = (
            "too_small" if len(member) < config.min_sessions
            else "too_few_people" if len(np.unique(visitors[member])) < config.min_visitors
            else "too_few_weeks" if len(np.unique(weeks[member])) < config.min_weeks
            else "among_known_intents" if unsure[here].mean() < config.unsure_share
            else ""
        )  # fmt: skip
        if reason:
            reasons[reason] += 1
            continue
        group[member] = len(purity)
        purity.append(float(unsure[here].mean()))
    taken = {fold(name) for name in known}
    proposals = []
    for number, words in enumerate(describe_groups(sessions, group)):
        member = np.flatnonzero(group == number)
        reason = "without_telling_words" if not words.keywords else ""
        reason = reason or ("named_like_a_known_one" if fold(words.description.name) in taken else "")
        if reason:
            reasons[reason] += 1
            continue
        taken.add(fold(words.description.name))
        evidence = _evidence(member, visitors, weeks, purity[number])
        proposals.append((evidence.sessions, words, evidence))
    proposals.sort(key=lambda found: -found[0])
    made = tuple(_proposal(f"p{n}", words, e) for n, (_, words, e) in enumerate(proposals, 1))
    return Found(made, {"proposed": len(made), **dict(sorted(reasons.items()))}, len(rows))


def save(proposals: Collection[Proposal], path: Path) -> None:
    """Write the proposals that are open, atomically."""
    data = [proposal.model_dump(mode="json") for proposal in proposals]
    text = "# Intents that may be added: clickintent taxonomy review FILE.toml --by NAME\n"
    write_text(text + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110), path)


def load(path: Path) -> tuple[Proposal, ...]:
    """The open proposals; none without a file.

    Raises:
        ArtifactError: if the file is not what ``save`` writes; gives the line.
    """
    if not path.exists():
        return ()
    document = marked_yaml.parse(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(document.value, list):
        raise ArtifactError(f"{path}: not a list of proposals. Run 'clickintent taxonomy propose' again.")
    found = []
    for n, raw in enumerate(document.value):
        try:
            found.append(Proposal.model_validate(raw))
        except ValidationError as error:
            first = error.errors()[0]
            line, key = document.line((n, *first["loc"])), ".".join(map(str, first["loc"]))
            raise ArtifactError(
                f"{path}, line {line}: {key}: {first['msg']}. Correct it, or run 'clickintent taxonomy "
                "propose' again."
            ) from error
    return tuple(found)


def _merged(embeddings: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Clusters whose centres are closer than their sessions are spread, made one."""
    while (k := int(clusters.max()) + 1) > 1:
        centres = np.stack([embeddings[clusters == c].mean(axis=0) for c in range(k)])
        spread = np.asarray(
            [np.sqrt(((embeddings[clusters == c] - centres[c]) ** 2).sum(axis=1).mean()) for c in range(k)]
        )
        apart = np.linalg.norm(centres[:, None] - centres[None], axis=2) - np.maximum(spread[:, None], spread)
        np.fill_diagonal(apart, np.inf)
        a, b = sorted(int(i) for i in np.unravel_index(int(apart.argmin()), apart.shape))
        if apart[a, b] >= 0:
            break
        clusters = np.where(clusters == b, a, clusters - (clusters > b))
    return clusters


def _place(embeddings: np.ndarray, member: np.ndarray) -> np.ndarray:
    """All sessions, sure ones too, that are as near to the centre of these as most of them are: a mask."""
    distance = np.linalg.norm(embeddings - embeddings[member].mean(axis=0), axis=1)
    here: np.ndarray = distance <= np.quantile(distance[member], _WITHIN) + 1e-9
    return here


def _weeks(sessions: pa.Table) -> np.ndarray:
    """The week of each session, as a number that grows by one a week; weeks begin on Mondays."""
    weeks: np.ndarray = (sessions["start"].to_numpy() // _DAY_US + 3) // 7
    return weeks


def _week_name(week: int) -> str:
    year, number, _ = datetime.fromtimestamp((week * 7 - 3) * 86_400, UTC).isocalendar()
    return f"{year}-W{number:02d}"


def _evidence(member: np.ndarray, visitors: np.ndarray, weeks: np.ndarray, purity: float) -> Evidence:
    counts = Counter(weeks[member].tolist())
    middle = (int(weeks.min()) + int(weeks.max()) + 1) / 2
    early, late = weeks < middle, weeks >= middle
    before = float((weeks[member] < middle).sum() / max(early.sum(), 1))
    after = float((weeks[member] >= middle).sum() / max(late.sum(), 1))
    return Evidence(
        sessions=len(member),
        visitors=len(np.unique(visitors[member])),
        share=round(len(member) / len(weeks), 4),
        unsure_share=round(purity, 3),
        weeks={_week_name(week): n for week, n in sorted(counts.items())},
        growth=round(after / before, 2) if before else None,
    )


def _proposal(id_: str, words: Described, evidence: Evidence) -> Proposal:
    told = words.description
    return Proposal(
        id=id_,
        name=told.name,
        definition=told.definition,
        area=told.area,
        includes=told.includes,
        keywords=words.keywords,
        examples=words.examples,
        evidence=evidence,
    )
