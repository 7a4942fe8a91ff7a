"""Labels by people: a blinded sample as a CSV file for a spreadsheet, and back, with every bad row reported.

The file shows sessions as they are told, redacted, shuffled, and nothing that a model said of them. Which
row is which session stands in a key that stays in the workspace.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clickintent.errors import DataError
from clickintent.taxonomy.content import redact, shorten
from clickintent.taxonomy.sample import stratified
from clickintent.taxonomy.taxonomy import NO_INTENT, Taxonomy

#: Which row of an exported file is which session, and how many sessions it stands for.
KEY = pa.schema(
    [
        pa.field("sample", pa.string()),
        pa.field("row", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("stratum", pa.string()),
        pa.field("weight", pa.float64()),
        pa.field("taxonomy_version", pa.int64()),
    ]
)

#: What a person said of a session; no intent at all is "none of these".
PEOPLE = pa.schema(
    [
        pa.field("sample", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("by", pa.string()),
        pa.field("intents", pa.list_(pa.string())),
        pa.field("taxonomy_version", pa.int64()),
        pa.field("imported_at", pa.string()),
    ]
)

NONE = NO_INTENT  # what a person writes for "none of these"; an empty cell is "not labelled"
_COLUMNS = ("row", "session", "intents", "note")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SPLIT = re.compile(r"[\s,;|]+")


def blind(
    session_ids: Sequence[str],
    strata: Sequence[str],
    weights: np.ndarray,
    size: int,
    *,
    sample: str,
    version: int,
    seed: int,
) -> pa.Table:
    """Draw sessions within strata and shuffle them: a KEY table.

    Args:
        session_ids: (n,)
        strata: (n,) such as each session's surest intent, so that rare intents are labelled too.
        weights: (n,) how many sessions each stands for.
        sample: the name of the sample, the first part of every row's id.
    """
    _, codes = np.unique(np.asarray(strata, dtype=object).astype(str), return_inverse=True)
    drawn = stratified(codes, size, seed=seed)
    # of a stratum, each drawn session stands for its share of all that the stratum stands for
    total, taken = (
        np.bincount(codes, weights),
        np.bincount(codes[drawn.rows], weights[drawn.rows], len(codes)),
    )
    stands_for = weights[drawn.rows] * (total[codes[drawn.rows]] / taken[codes[drawn.rows]])
    order = np.random.default_rng(seed + 1).permutation(len(drawn.rows))
    rows = drawn.rows[order]
    n = len(rows)
    return pa.table(
        [
            [sample] * n,
            [f"{sample}-{k:03d}" for k in range(1, n + 1)],
            [session_ids[row] for row in rows],
            [strata[row] for row in rows],
            stands_for[order],
            [version] * n,
        ],
        schema=KEY,
    )


def to_csv(rows: Sequence[str], narratives: Sequence[str]) -> bytes:
    """The file to be filled in: UTF-8 with the mark that spreadsheets want.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for row, narrative in zip(rows, narratives, strict=True):
        writer.writerow([row, harmless(narrative), "", ""])
    return out.getvalue().encode("utf-8-sig")


def harmless(text: str) -> str:
    """Text that no spreadsheet runs as a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def codebook(taxonomy: Taxonomy) -> str:
    """What the people who label need to know, as text."""
    lines = [
        f"Version {taxonomy.version} of the intents.",
        "Write into the column 'intents' the ids that a session shows, one or several, with spaces between.",
        f"Write {NONE} if none fits. Leave the cell empty if you did not label the session.",
        "",
    ]
    area = None
    for intent in sorted(taxonomy.intents, key=lambda i: i.area or ""):
        if intent.area != area:
            area = intent.area
            lines += [f"[{area}]", ""]
        lines.append(f"{intent.id}  {intent.name}: {intent.definition}")
        if intent.includes:
            lines.append(f"     in: {'; '.join(intent.includes)}")
        if intent.excludes:
            lines.append(f"     out: {'; '.join(intent.excludes)}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Imported:
    """What a file said.

    Attributes:
        intents: row id → the ids that the person gave, none for "none of these".
        problems: every row that was refused: its line and why.
        counts: rows = labelled + not_labelled + repeated + the refused by reason; missing: rows of the sample
            that the file does not have.
    """

    intents: Mapping[str, tuple[str, ...]]
    problems: tuple[tuple[int, str], ...]
    counts: dict[str, int]


def read_rows(data: bytes, where: str) -> list[tuple[int, str, str]]:
    """Line, row id and intents of every row of a file that went through a spreadsheet.

    UTF-8 and UTF-16 are known by their marks, other encodings are read as Windows-1252; commas, semicolons
    and tabs separate cells.

    Raises:
        DataError: if it is no such file.
    """
    text = _decoded(data, where)
    first, _, rest = text.partition("\n")
    skipped = 1 if re.fullmatch(r"sep=.\s*", first) else 0  # written by some spreadsheets
    for delimiter in ",;\t":
        reader = csv.reader(io.StringIO(rest if skipped else text, newline=""), delimiter=delimiter)
        header = _header(reader)
        if "row" in header and "intents" in header:
            break
    else:
        raise DataError(
            f"{where}: the first line has no columns 'row' and 'intents'. Import the file that 'clickintent "
            "labels export' wrote, saved as CSV."
        )
    at, of = header.index("row"), header.index("intents")
    found = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                cells += [""] * (max(at, of) + 1 - len(cells))
                found.append((reader.line_num + skipped, cells[at].strip(" '"), cells[of].strip(" '")))
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num + skipped}: not CSV: {error}.") from error
    return found


def _header(reader: Iterator[list[str]]) -> list[str]:
    """The names of the columns; none if the first line is not CSV, as when a cell of it is far too long."""
    try:
        return [cell.strip(" \ufeff'\"").casefold() for cell in next(reader, [])]
    except csv.Error:
        return []


def understand(
    rows: Sequence[tuple[int, str, str]], known_rows: Collection[str], intent_ids: Collection[str]
) -> Imported:
    """Check what ``read_rows`` found against the sample and the intents."""
    known, ids = set(known_rows), {id_.casefold(): id_ for id_ in intent_ids}
    counts: Counter[str] = Counter()
    problems: list[tuple[int, str]] = []
    said: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    present = set()

    def refuse(reason: str, line: int, words: str) -> None:
        counts[reason] += 1
        problems.append((line, words))

    for line, row, cell in rows:
        words = [word for word in _SPLIT.split(cell.casefold()) if word]
        unknown = [word for word in words if word not in ids and word != NONE]
        if row not in known:
            refuse("unknown_row", line, f"{_quoted(row)} is no row of the sample")
            continue
        present.add(row)
        if not words:
            counts["not_labelled"] += 1
        elif unknown:
            refuse("unknown_intent", line, f"{row}: {_quoted(unknown[0])} is no intent of the taxonomy")
        elif NONE in words and len(set(words)) > 1:
            refuse("none_and_others", line, f"{row}: {NONE!r} beside an intent")
        else:
            given = tuple(sorted({ids[word] for word in words if word != NONE}))
            said.setdefault(row, []).append((line, given))
    intents: dict[str, tuple[str, ...]] = {}
    for row, times in said.items():
        if len({given for _, given in times}) > 1:
            for line, _ in times:
                refuse("contradictory", line, f"{row} is there {len(times)} times and says different things")
            continue
        intents[row] = times[0][1]
        counts["labelled"] += 1
        counts["repeated"] += len(times) - 1
    reasons = ("unknown_row", "unknown_intent", "none_and_others", "contradictory")
    return Imported(
        intents,
        tuple(sorted(problems)),
        {
            "rows": len(rows),
            **{name: counts[name] for name in ("labelled", "not_labelled", "repeated", *reasons)},
            "sample": len(known),
            "missing": len(known - present),
        },
    )


def _decoded(data: bytes, where: str) -> str:
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise DataError(f"{where}: not text. Save it from the spreadsheet as CSV (UTF-8).")


def _quoted(text: str) -> str:
    return repr(shorten(redact(text) or "", 40))
