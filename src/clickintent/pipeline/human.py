"""Human labels on a workspace: export, import, and how far people and the model agree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickintent.config import Config
from clickintent.errors import ConfigError, DataError
from clickintent.pipeline import contract
from clickintent.pipeline.inputs import before_outcome, model_sessions, needed, rows_of
from clickintent.taxonomy import Taxonomy, diff, narrate, people, site_of, soft_targets
from clickintent.taxonomy.agreement import compare
from clickintent.taxonomy.people import Imported
from clickintent.taxonomy.relabel import Change
from clickintent.workspace import (
    Metrics,
    Workspace,
    atomically,
    file_fingerprint,
    fingerprint,
    open_workspace,
    write_table,
    write_text,
)

_KEYS, _LABELS = "people/keys", "people/labels.parquet"
MODEL = "the model"


def export_labels(config: Config, out: Path, *, size: int, seed: int | None = None) -> Path:
    """Write a blinded sample of labelled sessions as CSV, and beside it what the intents mean.

    Sessions are drawn within their surest intent, rare ones more often, with weights that undo it. The same
    seed, size and labels give the same sample: several people can fill in copies of one file.

    Returns:
        The path of the description of the intents.

    Raises:
        ConfigError: if ``size`` is not positive, or ``out`` is there already.
        WorkspaceError: if there are no labels of the present taxonomy.
    """
    if size < 1:
        raise ConfigError(f"--sessions must be at least 1, not {size}.")
    if out.exists():
        raise ConfigError(f"{out} is there already, and may hold labels. Give another name.")
    with open_workspace(config.workspace) as workspace:
        taxonomy, labels, annotated = contract.with_labels(workspace, "labels export")
        ids, weights = annotated["session_id"].to_pylist(), annotated["weight"].to_numpy()
        confidence = soft_targets(labels, ids, taxonomy.intent_ids)
        surest = np.asarray([*taxonomy.intent_ids, people.NONE], dtype=object)
        strata = surest[np.where(confidence.max(axis=1) > 0, confidence.argmax(axis=1), -1)].tolist()
        seed = config.seed if seed is None else seed
        sample = f"k{fingerprint(seed, size, taxonomy.digest, workspace.record('label'))[:6]}"
        key = people.blind(ids, strata, weights, size, sample=sample, version=taxonomy.version, seed=seed)
        everything = before_outcome(model_sessions(workspace, config, "labels export"), config)
        index = pc.index_in(key["session_id"], value_set=everything["session_id"].combine_chunks())
        site = site_of(rows_of(everything, annotated["session_id"].combine_chunks()))
        narratives = narrate(everything.take(index), site=site)  # as the model read them
        write_table(key, workspace.path(f"{_KEYS}/{sample}.parquet"))
    with atomically(out) as temporary:
        temporary.write_bytes(people.to_csv(key["row"].to_pylist(), narratives))
    described = out.with_suffix(".intents.txt")
    write_text(people.codebook(taxonomy), described)
    return described


def import_labels(config: Config, file: Path, *, by: str) -> Imported:
    """Read a file that somebody filled in. Rows that cannot be used are reported; the others are kept.

    A person's labels of a sample replace those that the same person gave before.

    Raises:
        ConfigError: if ``by`` is empty.
        DataError: if the file is not one that was exported from this workspace.
    """
    by = " ".join(by.split())
    if not by:
        raise ConfigError("import needs the name of who labelled: --by NAME.")
    try:
        rows = people.read_rows(file.read_bytes(), str(file))
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    with open_workspace(config.workspace) as workspace:
        key = _key_of(workspace, {row for _, row, _ in rows}, file)
        version = key["taxonomy_version"][0].as_py()
        taxonomy = Taxonomy.load(contract.archived(workspace, version))
        found = people.understand(rows, key["row"].to_pylist(), taxonomy.intent_ids)
        if found.intents:
            session = dict(zip(key["row"].to_pylist(), key["session_id"].to_pylist(), strict=True))
            sample = key["sample"][0].as_py()
            at = datetime.now(UTC).isoformat(timespec="seconds")
            new = pa.Table.from_pylist(
                [
                    {
                        "sample": sample,
                        "session_id": session[row],
                        "by": by,
                        "intents": list(intents),
                        "taxonomy_version": version,
                        "imported_at": at,
                    }
                    for row, intents in found.intents.items()
                ],
                schema=people.PEOPLE,
            )
            old = _people(workspace)
            again = pc.and_(pc.equal(old["sample"], sample), pc.equal(old["by"], by))
            kept = old.filter(pc.invert(again))
            write_table(pa.concat_tables([kept, new]), workspace.path(_LABELS))
    return found


def agreement(config: Config, *, force: bool = False) -> Metrics:
    """κ of every person with the model and with every other person, overall and by intent, with intervals.

    Labels of an earlier version of the taxonomy count as far as it is known what they are now: what was
    merged is mapped; sessions with an intent that was removed, split or redefined are left out, and
    counted; an intent that a person could not know is not compared.

    Returns:
        ``pairs``, each with its numbers (see ``taxonomy.agreement``), and by person the sessions left out.

    Raises:
        WorkspaceError: if there are no labels of people, or none of the present taxonomy.
    """
    with open_workspace(config.workspace) as workspace:
        taxonomy, labels, annotated = contract.with_labels(workspace, "labels agreement")
        path = needed(workspace, _LABELS, "labels agreement", "labels import")

        def work() -> Metrics:
            keys = pa.concat_tables(pq.read_table(p) for p in sorted(workspace.path(_KEYS).glob("*.parquet")))
            said = _people(workspace)
            names = sorted(set(said["by"].to_pylist()))
            opinions = [_opinion(workspace, said, name, taxonomy) for name in names]
            ids = annotated["session_id"].to_pylist()
            present = soft_targets(labels, ids, taxonomy.intent_ids) > 0
            model = _Opinion(MODEL, dict(zip(ids, present, strict=True)), set(taxonomy.intent_ids), 0)
            pairs = [
                pair
                for a, b in [*((o, model) for o in opinions), *combinations(opinions, 2)]
                if (pair := _pair(a, b, keys, taxonomy, config)) is not None
            ]
            left_out = {opinion.by: opinion.left_out for opinion in opinions}
            return {"agreement": {"pairs": pairs, "left_out": left_out}}

        made_from = [taxonomy.digest, workspace.record("label"), file_fingerprint(path), config.evaluate]
        metrics = workspace.stage("agreement", work, made_from=made_from, outputs=[], force=force)
        found: Metrics = metrics["agreement"]
        return found


@dataclass(frozen=True)
class _Opinion:
    """What somebody said, in terms of the present intents."""

    by: str
    present: dict[str, np.ndarray]  # session id → (k,) bool
    known: set[str]  # intents that they could give
    left_out: int  # sessions that cannot be compared any more


def _opinion(workspace: Workspace, said: pa.Table, by: str, taxonomy: Taxonomy) -> _Opinion:
    mine = said.filter(pc.equal(said["by"], by))
    column = {id_: j for j, id_ in enumerate(taxonomy.intent_ids)}
    present: dict[str, np.ndarray] = {}
    known = set(column)
    left_out = 0
    for version in sorted(set(mine["taxonomy_version"].to_pylist())):
        old = Taxonomy.load(contract.archived(workspace, version))
        change = Change.of(diff(old, taxonomy))
        known &= {change.mapped.get(id_, id_) for id_ in old.intent_ids} - change.reasked
        for row in mine.filter(pc.equal(mine["taxonomy_version"], version)).to_pylist():
            if change.reasked & set(row["intents"]):
                left_out += 1
                continue
            marks = np.zeros(len(column), bool)
            marks[[column[change.mapped.get(id_, id_)] for id_ in row["intents"]]] = True
            present[row["session_id"]] = marks
    return _Opinion(by, present, known, left_out)


def _pair(
    a: _Opinion, b: _Opinion, keys: pa.Table, taxonomy: Taxonomy, config: Config
) -> dict[str, Any] | None:
    """Agreement of two on the sessions that both labelled; None if there are none."""
    weight: dict[str, float] = {}
    stratum: dict[str, str] = {}
    for sample in keys["sample"].unique().to_pylist():
        part = keys.filter(pc.equal(keys["sample"], sample))
        # the weights of any sample sum to all sessions: small ones must not count as much as large ones
        scale = part.num_rows / pc.sum(part["weight"]).as_py()
        for row in part.select(["session_id", "weight", "stratum"]).to_pylist():
            weight[row["session_id"]] = scale * row["weight"]
            stratum[row["session_id"]] = f"{sample} {row['stratum']}"
    ids = sorted(a.present.keys() & b.present.keys() & weight.keys())
    shared = [j for j, id_ in enumerate(taxonomy.intent_ids) if id_ in a.known & b.known]
    if not ids or not shared:
        return None
    first, second = (np.stack([o.present[id_] for id_ in ids])[:, shared] for o in (a, b))
    found = compare(
        first,
        second,
        [taxonomy.intent_ids[j] for j in shared],
        weights=np.asarray([weight[id_] for id_ in ids]),
        strata=np.unique([stratum[id_] for id_ in ids], return_inverse=True)[1],
        bootstrap=config.evaluate.bootstrap,
        seed=config.seed,
    )
    return {"first": a.by, "second": b.by, **found.as_dict()}


def _key_of(workspace: Workspace, rows: set[str], file: Path) -> pa.Table:
    """The key of the sample that a file's rows are of."""
    samples = {row.rsplit("-", 1)[0] for row in rows}
    found = [p for p in sorted(workspace.path(_KEYS).glob("*.parquet")) if p.stem in samples]
    if not found:
        raise DataError(f"{file}: no row is of a sample that was exported from {workspace.root}.")
    if len(found) > 1:
        listed = ", ".join(p.stem for p in found)
        raise DataError(f"{file}: rows of several samples ({listed}). Import each file by itself.")
    return pq.read_table(found[0])


def _people(workspace: Workspace) -> pa.Table:
    path = workspace.path(_LABELS)
    return pq.read_table(path) if path.exists() else people.PEOPLE.empty_table()
