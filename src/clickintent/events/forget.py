"""The right to erasure: remove a person from every table of a workspace, and keep them out.

What is removed are the events, in all tables that are made of them; the codes of the person's ids stay in a
list, so that the same raw files, read again, do not bring them back. What may quote a session goes, whoever's
it was. What was *learned* from many people, an encoder or the intents of a taxonomy, is not changed; the
result says so.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from clickintent import schema
from clickintent.config import Config
from clickintent.errors import WorkspaceError
from clickintent.events import coding, publish, store
from clickintent.events.clean import FORGOTTEN
from clickintent.events.ingest import MADE, OUTPUTS, open_engine, rewrite
from clickintent.events.store import Manifest
from clickintent.events.tables import Tables
from clickintent.workspace import Metrics, commit, recover

#: Tables that other stages make, by session.
_BY_SESSION = ("embeddings", "labels", "people")
#: What may quote a session and cannot be searched: made again when needed.
_REMADE = ("report.html", "explorer", "drift.json", "proposals.yaml", ".llm", "llm", ".checkpoints")
#: Where single sessions are told as examples of an intent, the versions as they were included.
_TAXONOMIES = ("taxonomy.yaml", "taxonomies/v*.yaml")
#: What was learned from all sessions together.
_LEARNED = ("encoder", "student", "taxonomy.yaml")


@dataclass(frozen=True)
class Forgotten:
    """What ``forget`` did: rows removed by table, and examples of intents; files deleted; and what was
    learned with them in it.
    """

    rows: dict[str, int]
    deleted: list[str]
    learned: list[str]
    metrics: Metrics = field(repr=False, default_factory=dict)


def forget(config: Config, *, visitor: str | None = None, account: str | None = None) -> Forgotten:
    """Remove a visitor, or all that is tied to an account, from the workspace.

    An account takes with it the cookies that are tied to no other account. Of a shared cookie, it takes the
    events that carry the account and the sessions that are linked to it. Either all of it happens or nothing.

    Args:
        visitor: the visitor id as in the raw export, or as in the tables.
        account: the account id, likewise. Give exactly one of the two.

    Raises:
        ValueError: if not exactly one of the two is given.
        WorkspaceError: if the workspace has no events or was made with another key, or a taxonomy file is not
            plain YAML.
    """
    if (visitor is None) == (account is None):
        raise ValueError("give exactly one of visitor and account")
    keys = coding.keys(config.privacy)
    out = config.workspace
    recover(out)
    manifest = store.ready(out, keys.check, config.privacy.key_env)
    given = (visitor if visitor is not None else str(account)).strip()
    codes = keys.given(given)
    shown = [given, *coding.hexadecimal(np.array(codes)).to_pylist()]
    made = out / MADE
    shutil.rmtree(made, ignore_errors=True)
    try:
        with (
            tempfile.TemporaryDirectory(dir=out, prefix=".tmp-forget-") as scratch,
            open_engine(config, Path(scratch)) as (engine, _),
        ):
            return _forget(
                engine, config, keys, manifest, codes, shown, visitor is not None, Path(scratch), made
            )
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _forget(
    engine: Tables,
    config: Config,
    keys: coding.Keys,
    manifest: Manifest,
    codes: list[int],
    shown: list[str],
    is_visitor: bool,
    scratch: Path,
    made: Path,
) -> Forgotten:
    out = config.workspace
    events = engine.parquet(out / store.FOLDER / "coded" / "part-*.parquet")
    gone, visitors = _theirs(engine, out, events, codes, shown, is_visitor)
    lost = engine.arrow(gone.select("file", "position", "visitor", "event").order_by("file", "position"))
    doomed = engine.small(lost.rename_columns(["_file", "_position", "_visitor", "_event"]), "gone")
    same = [events["visitor"] == doomed["_visitor"], events["event"] == doomed["_event"]]
    engine.keep(events.anti_join(doomed, same), scratch, "coded-kept")
    quarantined = _refuse(manifest, lost)
    if quarantined.num_rows:
        pq.write_table(quarantined, scratch / "quarantine-forgotten.parquet")
    manifest.forgotten = sorted({*manifest.forgotten, *codes, *visitors})

    before = _counts(out)
    values, paths = publish.known(pq.read_table(out / store.FOLDER / "values.parquet"))
    quarantine = [out / "quarantine" / "*.parquet", scratch / "quarantine-*.parquet"]
    rewrite(
        engine,
        config,
        keys,
        manifest,
        [scratch / "coded-*.parquet"],
        quarantine,
        values,
        paths,
        made,
        empty=True,
    )
    examples = _without_examples(out, made)
    names = [*OUTPUTS, *_filter_by_session(out, made), *examples]
    after = {**before, **_counts(made)}
    commit(out, made, names)
    deleted = [name for name in _REMADE if (out / name).exists()]
    for name in deleted:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    rows = {name: n - after[name] for name, n in before.items()}
    return Forgotten(
        {**rows, "examples in taxonomies": sum(examples.values())} if examples else rows,
        deleted,
        [name for name in _LEARNED if (out / name).exists()],
        manifest.metrics,
    )


def _theirs(
    engine: Tables, out: Path, events: ir.Table, codes: list[int], shown: list[str], is_visitor: bool
) -> tuple[ir.Table, list[int]]:
    """The events of the person, and the codes of the visitors that are wholly theirs."""
    if is_visitor:
        return events.filter(events["visitor"].isin(codes)), codes
    seen = events.filter(events["account"].notnull())
    tied = seen.group_by("visitor").agg(
        accounts=seen["account"].nunique(), theirs=seen["account"].isin(codes).any()
    )
    tied = engine.arrow(tied.filter(tied["theirs"]))
    own = tied.filter(pc.equal(tied["accounts"], 1))["visitor"].to_pylist()
    shared = tied.filter(pc.greater(tied["accounts"], 1))["visitor"].to_pylist()
    theirs = events["account"].isin(codes).coalesce(False) | events["visitor"].isin(own)
    if not shared:
        return events.filter(theirs), own
    spans = engine.small(_linked(out, shown), "spans")
    inside = [
        events["visitor"] == spans["_visitor"],
        events["ts"] >= spans["_start"],
        events["ts"] <= spans["_end"],
    ]
    linked = events.semi_join(spans, inside)
    return ibis.union(events.filter(theirs), linked, distinct=True), own


def _linked(out: Path, shown: list[str]) -> pa.Table:
    """The sessions that are linked to an account: ``_visitor`` (code), ``_start``, ``_end``."""
    columns = ["session_id", "account_id", "start", "end"]
    sessions = pq.read_table(out / "sessions", columns=columns)
    sessions = sessions.filter(pc.is_in(sessions["account_id"], value_set=pa.array(shown, pa.string())))
    # a session is called after its visitor and its first event
    visitors = [bytes.fromhex(name[:16]) for name in sessions["session_id"].to_pylist()]
    codes = pa.array([int.from_bytes(raw, "big", signed=True) for raw in visitors], pa.int64())
    return pa.table({"_visitor": codes, "_start": sessions["start"], "_end": sessions["end"]})


def _refuse(manifest: Manifest, lost: pa.Table) -> pa.Table:
    """Book the lost rows as quarantined: the accounts of every file stay balanced."""
    by_number = {file.number: file for file in manifest.files}
    numbers, counts = np.unique(lost["file"].to_numpy(), return_counts=True)
    for number, n in zip(numbers.tolist(), counts.tolist(), strict=True):
        file = by_number[number]
        file.quarantined += n
        file.reasons[FORGOTTEN] = file.reasons.get(FORGOTTEN, 0) + n
    files = [by_number[number] for number in lost["file"].to_pylist()]
    return pa.table(
        [
            pa.array([file.source for file in files], pa.string()),
            pa.array([file.path for file in files], pa.string()),
            lost["position"],
            pa.array([FORGOTTEN] * len(files), pa.string()),
        ],
        schema=schema.QUARANTINE,
    )


def _filter_by_session(out: Path, made: Path) -> list[str]:
    """Copies of the tables of other stages without the sessions that are gone; returns their names."""
    sessions = pq.read_table(made / "sessions", columns=["session_id"])["session_id"].combine_chunks()
    names = [name for name in _BY_SESSION if (out / name).exists()]
    for name in names:
        for path in sorted((out / name).rglob("*.parquet")):
            table = pq.read_table(path)
            target = made / path.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                table.filter(pc.is_in(table["session_id"], value_set=sessions)), target, compression="zstd"
            )
    return names


def _without_examples(out: Path, made: Path) -> dict[str, int]:
    """Copies of the files of the taxonomy without examples; by name, how many it had."""
    found = {}
    for path in sorted(path for pattern in _TAXONOMIES for path in out.glob(pattern)):
        try:
            text, n = _emptied(path.read_bytes().decode())
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise WorkspaceError(
                f"{path} is not plain YAML, and what it quotes of sessions cannot be taken out. Nobody was "
                "forgotten; correct the file and give the same command again."
            ) from error
        target = made / path.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode())
        found[str(path.relative_to(out))] = n
    return found


def _emptied(text: str) -> tuple[str, int]:
    """A taxonomy's YAML without examples, and how many it had. All else stays as people wrote it.

    Raises:
        yaml.YAMLError: if it is not YAML, or has aliases, which no taxonomy may have.
    """
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
        raise yaml.YAMLError("aliases are not allowed")
    found = [
        (key.end_mark.index, value)
        for _, intents in _under(yaml.compose(text, Loader=yaml.SafeLoader), "intents")
        for intent in (intents.value if isinstance(intents, yaml.SequenceNode) else ())
        for key, value in _under(intent, "examples")
        if value.value
    ]
    for start, value in reversed(found):
        # a list in lines ends for YAML where the next key begins, after comments that are not about it
        last = value if isinstance(value, yaml.ScalarNode) or value.flow_style else value.value[-1]
        old = text[start : last.end_mark.index]
        text = f"{text[:start]}: []{old[len(old.rstrip()) :]}{text[start + len(old) :]}"
    return text, sum(1 if isinstance(value, yaml.ScalarNode) else len(value.value) for _, value in found)


def _under(node: yaml.Node | None, name: str) -> list[tuple[yaml.Node, yaml.Node]]:
    """Key and value of that name in a mapping."""
    return [(k, v) for k, v in node.value if k.value == name] if isinstance(node, yaml.MappingNode) else []


def _counts(folder: Path) -> dict[str, int]:
    """Rows by table."""
    tables = [*("events", "sessions", "links", "pages.parquet", "identities.parquet"), *_BY_SESSION]
    found: dict[str, int] = {}
    for name in tables:
        paths: Sequence[Path] = sorted((folder / name).rglob("*.parquet")) if (folder / name).is_dir() else []
        for path in paths or ([folder / name] if (folder / name).is_file() else []):
            key = name if name != "labels" else f"labels/{path.name}"
            found[key] = found.get(key, 0) + pq.ParquetFile(path).metadata.num_rows
    return found
