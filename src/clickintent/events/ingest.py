"""Raw exports in; events, quarantine, pages, sessions, links and identities out; more at every call.

A file that was read is not read again. Its events stay, coded, in the workspace, and every call makes all
tables anew from the events of all files, in ranges of visitors: so what comes out is the same, whether the
files came one a day or all at once, however late an event arrives, and memory does not grow with them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from clickintent import schema
from clickintent._version import __version__
from clickintent.config import Config, SourceConfig
from clickintent.errors import ConfigError, DataError, EmptyInputError
from clickintent.events import coding, files, publish, readers, remote, staging, store, summary, workers
from clickintent.events import engine as engines
from clickintent.events.build import build
from clickintent.events.clean import Cleaner
from clickintent.events.decode import Published
from clickintent.events.staging import RawFile, Staged
from clickintent.events.store import Manifest, ReadFile
from clickintent.events.tables import Tables
from clickintent.progress import Advance, progress, say
from clickintent.workspace import commit, enough_space, fingerprint, recover, write_json

OUTPUTS = (
    *("events", "quarantine", "pages.parquet", "sessions", "links", "identities.parquet"),
    *("files.parquet", "privacy.json", store.FOLDER),
)
MADE = ".made-ingest"  # where everything is made before it takes its place

#: ``stage_files`` of ``staging``, ``workers`` or ``spark``.
StageFiles = Callable[[Cleaner, Sequence[RawFile], Path, Advance], list[Staged]]


@dataclass(frozen=True)
class IngestResult:
    """What an ingest did: ``metrics`` has the sections events, sessions, identity and privacy."""

    metrics: dict[str, Any] = field(default_factory=dict)


def ingest(config: Config, out: Path, *, force: bool = False) -> IngestResult:
    """Read what is new in all sources, and write the tables of all that was ever read into ``out``.

    ``events/``, ``sessions/``, ``links/``, ``quarantine/``, ``pages.parquet``, ``identities.parquet``,
    ``privacy.json``, and ``.ingest/``, which is what the next call goes on from. Equal files give equal
    tables, in whatever portions they come. Nothing in ``out`` changes unless all of it does: a call that
    fails or is killed leaves what was there before. Memory is bounded: what does not fit goes to a temporary
    folder in ``out``.

    A file that has changed since it was read, and other settings than it was read with, make everything be
    read again, which needs all files to be there.

    Args:
        force: forget what was read before, and start over with the files that are there.

    Raises:
        ConfigError: if a source's column mapping cannot be right, or the key for ids is missing.
        DataError: if a file is missing or cannot be read; what could be read is kept, unless nothing could.
        MissingColumnsError: if files lack columns that their reader needs.
        EmptyInputError: if not one usable event is left; says what became of the rows.
        WorkspaceError: if the disk is full.
    """
    _check(config.sources)
    keys = coding.keys(config.privacy)
    out.mkdir(parents=True, exist_ok=True)
    recover(out)
    made = out / MADE
    for leftover in (made, *out.glob(".tmp-ingest-*")):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    manifest, new = _plan(config, keys, out, force)
    if not new and manifest.built == _build_key(config) and all((out / name).exists() for name in OUTPUTS):
        say("  no new file")
        return IngestResult(manifest.metrics)
    try:
        with (
            enough_space(out),
            tempfile.TemporaryDirectory(dir=out, prefix=".tmp-ingest-") as scratch,
            open_engine(config, Path(scratch)) as (engine, stage_files),
        ):
            values, paths = _known(out, manifest)
            cleaner = Cleaner(keys, config.privacy, frozenset(manifest.forgotten), values)
            failed = _stage(stage_files, cleaner, new, Path(scratch), manifest)
            manifest.add_removed(cleaner.removed)
            coded = [
                *_parts(out / store.FOLDER / "coded", manifest, "part-*"),
                Path(scratch) / "coded-*.parquet",
            ]
            quarantine = [*_parts(out / "quarantine", manifest, "*"), Path(scratch) / "quarantine-*.parquet"]
            rewrite(engine, config, keys, manifest, coded, quarantine, cleaner.values, paths, made)
            commit(out, made, OUTPUTS)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    if failed:
        raise DataError(
            f"{len(failed)} of {len(new)} new files could not be read; all else was kept. "
            "Mend or remove them, and ingest again:\n" + "\n".join(f"  {error}" for error in failed)
        )
    return IngestResult(manifest.metrics)


@contextmanager
def open_engine(config: Config, scratch: Path) -> Iterator[tuple[Tables, StageFiles]]:
    """The engine of the configuration, and what stages raw files on it."""
    if config.engine == "spark":
        from clickintent.events import spark

        with spark.open_engine(config, scratch) as distributed:
            yield distributed, partial(spark.stage_files, distributed)
    else:
        with engines.open_engine(scratch, memory_limit=config.memory_limit) as engine:

            def stage_files(
                cleaner: Cleaner, raw: Sequence[RawFile], scratch: Path, advance: Advance
            ) -> list[Staged]:
                n = workers.count(raw)
                if n > 1:
                    return workers.stage_files(n, config.memory_limit, cleaner, raw, scratch, advance)
                return staging.stage_files(engine, cleaner, raw, scratch, advance)

            yield engine, stage_files


def rewrite(
    engine: Tables,
    config: Config,
    keys: coding.Keys,
    manifest: Manifest,
    coded: Sequence[Path],
    quarantine: Sequence[Path],
    values: dict[str, dict[int, str]],
    paths: dict[int, tuple[int, ...]],
    made: Path,
    *,
    empty: bool = False,
    quiet: bool = False,
) -> None:
    """Make all tables of the coded events, and the manifest, in the folder ``made``.

    Args:
        coded: globs of Parquet files, ``clean.CODED``.
        quarantine: globs of Parquet files, ``schema.QUARANTINE``.
        empty: tables without a row are as good as any.

    Raises:
        EmptyInputError: if not one event is left.
    """
    ranked = sorted(manifest.files, key=lambda file: (_rank(config, file.source), file.path))
    events = _union(engine, coded)
    if events is None:
        raise EmptyInputError(summary.why_empty(manifest))
    total = sum(file.read - file.quarantined for file in manifest.files)
    if total == 0 and not empty:
        raise EmptyInputError(summary.why_empty(manifest))
    built = build(engine, events, total, ranked, values, paths, keys, config, made)
    accounts = summary.accounts(ranked, built.events)
    pq.write_table(accounts, made / "files.parquet", compression="zstd")
    metrics = {
        "events": summary.events(accounts, manifest),
        "sessions": summary.sessions(engine, engine.parquet(made / "sessions" / "*.parquet")),
        "identity": built.identities.counts,
        "privacy": summary.privacy(config.privacy, manifest, built.decision.taken),
    }
    refused = _union(engine, quarantine)
    if refused is None:
        (made / "quarantine").mkdir()
        pq.write_table(schema.QUARANTINE.empty_table(), made / "quarantine" / "part-00000.parquet")
    else:
        where, order = made / "quarantine", ("source", "file", "position")
        engine.write(refused, where, "part-00000", schema.QUARANTINE, _as_quarantine, Published({}), order)
    write_json(metrics["privacy"], made / "privacy.json")
    manifest.built, manifest.metrics = _build_key(config), metrics
    manifest.save(made / store.FOLDER / "manifest.json")
    if not quiet:
        say(f"  events: {summary.line(metrics['events'])}")


def _check(sources: Sequence[SourceConfig]) -> None:
    if not sources:
        raise ConfigError("there are no [[sources]]: nothing to read. Add one with a reader and a path.")
    labels = [source.label for source in sources]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                f"two sources are called {label!r}. Give each its own 'name' under [[sources]]."
            )
    for source in sources:
        readers.reader(source.reader)
        if source.reader == "table":
            readers.table.check(source)
        elif source.columns or source.constants:
            raise ConfigError(
                f"source {source.label!r}: reader {source.reader!r} knows its columns. Remove 'columns' and "
                "'constants', or use reader = \"table\"."
            )


def _settings(config: Config, keys: coding.Keys) -> dict[str, str]:
    """What decides how a raw row is read: of all sources together, and of each."""
    privacy = config.privacy.model_dump(mode="json", exclude={"min_people", "key_env"})
    of_sources = {s.label: fingerprint(s.model_dump(mode="json", exclude={"path"})) for s in config.sources}
    return {"": fingerprint(privacy, keys.check), **of_sources}


def _build_key(config: Config) -> str:
    """What decides how events become tables."""
    return fingerprint(
        __version__, config.sessions.model_dump(exclude={"channel"}), config.privacy.min_people
    )


def _plan(config: Config, keys: coding.Keys, out: Path, force: bool) -> tuple[Manifest, list[RawFile]]:
    """What is known, and which files are to be read."""
    found = [(source, path) for source in config.sources for path in files.files(source.path)]
    known = store.load(out)
    settings = _settings(config, keys)
    other = any(known.settings.get(label, key) != key for label, key in settings.items())
    other = other or (bool(known.files) and config.privacy.min_people < known.min_people)
    read = {(file.source, file.path): file for file in known.files}
    changed = []
    new = []
    for source, path in found:
        file = read.get((source.label, remote.shown(path)))
        if file is None:
            new.append((source, path))
        elif (stamp := files.stamp(path)) != file.stamp:
            if files.content_hash(path) != file.hash:
                changed.append(remote.shown(path))
            file.stamp = stamp
    here = {(source.label, remote.shown(path)) for source, path in found}
    gone = sorted(file.path for key, file in read.items() if key not in here)
    if known.forgotten and known.key != keys.check:
        say(
            f"  [yellow]{len(known.forgotten)} ids were forgotten under another key, which does not tell "
            "them any more: forget these people again[/]",
            markup=True,
        )
    if force or changed or other:
        if gone and not force:
            why = f"{changed[0]} has changed" if changed else "the settings have changed"
            raise DataError(
                f"{why} since the last ingest, so everything must be read again, but {len(gone)} files that "
                f"were read are not there any more ({gone[0]}{', …' if len(gone) > 1 else ''}). Bring "
                "them back; or use --force to start over without them."
            )
        if known.files and not force:
            why = f"{changed[0]} has changed" if changed else "the settings have changed"
            say(f"  {why} since the last ingest: reading everything again")
        known, new = Manifest(forgotten=known.forgotten), found
    elif gone:
        say(f"  {len(gone)} files read before are not there any more; what was in them stays")
    known.settings = {**known.settings, **settings}
    known.key, known.min_people = keys.check, config.privacy.min_people
    first = known.next_number
    return known, [RawFile(first + i, path, source) for i, (source, path) in enumerate(new)]


def _known(out: Path, manifest: Manifest) -> tuple[dict[str, dict[int, str]], dict[int, tuple[int, ...]]]:
    if not manifest.files:
        return {}, {}
    return publish.known(pq.read_table(out / store.FOLDER / "values.parquet"))


def _stage(
    stage_files: StageFiles, cleaner: Cleaner, new: Sequence[RawFile], scratch: Path, manifest: Manifest
) -> list[DataError]:
    """Stage every file and add it to the manifest; returns the errors of those that cannot be read.

    Raises:
        DataError: if there is nothing that can be read.
    """
    failed: list[DataError] = []
    with progress("reading", len(new), "files") as advance:
        staged = stage_files(cleaner, new, scratch, advance)
    for one in staged:
        file, account = one.file, one.account
        if account is None:
            assert one.error is not None
            failed.append(one.error)
            continue
        manifest.files.append(read_file(file, account))
    if failed and not manifest.files:
        raise failed[0]
    return failed


def read_file(file: RawFile, account: staging.Account) -> ReadFile:
    """The entry of the manifest for a file that was staged."""
    return ReadFile(
        number=file.number,
        source=file.source.label,
        path=remote.shown(file.path),
        stamp=account.stamp,
        hash=account.hash,
        read=account.read,
        quarantined=account.quarantined,
        reasons=dict(account.reasons),
        newest_first=account.newest_first,
    )


def _parts(folder: Path, manifest: Manifest, pattern: str) -> list[Path]:
    return [folder / f"{pattern}.parquet"] if manifest.built else []


def _union(engine: Tables, globs: Sequence[Path]) -> ir.Table | None:
    found = [engine.parquet(path) for path in globs if any(path.parent.glob(path.name))]
    return ibis.union(*found) if len(found) > 1 else found[0] if found else None


def _rank(config: Config, label: str) -> tuple[int, str]:
    """Sources in the order of the configuration; those that are not in it any more by name."""
    labels = [source.label for source in config.sources]
    return (labels.index(label) if label in labels else len(labels), label)


def _as_quarantine(table: pa.Table, _: object) -> pa.Table:
    return schema.conform(table.select(schema.QUARANTINE.names), schema.QUARANTINE, "quarantine")
