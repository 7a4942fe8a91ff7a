"""Tell which reader a raw file needs by its first rows, and what its columns are likely to be."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clickintent.errors import DataError
from clickintent.events.files import packing
from clickintent.events.readers import access_log, segment, snowplow
from clickintent.events.readers.adobe_lookups import beside, lookups

_LOOK_AT = 1 << 18  # bytes of unpacked text; a row of an Adobe feed takes some 10,000
_GA4 = {"event_params", "event_name", "event_timestamp"}
_GA360 = {"fullVisitorId", "hits"}
_SNOWPLOW = {"collector_tstamp", "event_id", "domain_userid"}

#: Canonical column → what exports call it, best first, without case and signs.
_CALLED = {
    "event_id": "eventid messageid hitid insertid eventuuid uuid",
    "visitor_id": """visitorid cookieid cookie clientid anonymousid deviceid userpseudoid fullvisitorid
        domainuserid distinctid visitor uid userid customerid""",
    "account_id": """accountid customerid customerno customernumber clientid client contractid partyid loginid
        userid account""",
    "ts": """timestamp ts eventtimestamp eventtime datetime eventdatetime hittime time createdat occurredat
        receivedat eventdate date""",
    "event_type": "eventtype eventname event action eventaction activity activitytype type",
    "url": "url pageurl pagelocation location fullurl uri requesturl href",
    "page": """page pagepath path screen screenname pagename processstep step view route template category
        pagetitle""",
    "title": "title pagetitle documenttitle",
    "text": "searchterm searchquery searchkeyword query keyword keywords text label eventlabel",
    "referrer": "referrer referer pagereferrer httpreferer refurl",
    "campaign": "campaign campaignname utmcampaign mktcampaign",
    "device": "device devicetype devicecategory platform",
    "country": "country geocountry countrycode",
    "value": "value amount revenue price",
    "session_key": "sessionid visitid session visit gasessionid sessionkey sid",
    "user_agent": "useragent browseruseragent httpuseragent ua",
    "consent": "consent consentstatus consentgiven analyticsstorage consentanalytics",
}


def recognise(path: str) -> str | None:
    """The name of the reader that fits the local file at ``path``; None if nothing is recognised.

    ``table`` means: rows with named columns, to be mapped; see ``guess_columns``.

    Raises:
        DataError: if there is no such file.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file.")
    try:
        with Path(path).open("rb") as file:
            if file.read(4) in (b"PAR1", b"PARE"):
                return _by_names(pq.read_schema(path).names)
        text = _start(path)
    except (OSError, EOFError, pa.ArrowException):
        return None
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or "\x00" in text:
        return None
    if lines[0].lstrip().startswith("{"):
        return _of_objects(lines)
    if re.search(access_log.LINE, lines[0]) or any(line.startswith("#Fields:") for line in lines[:20]):
        return "access_log"
    fields = lines[0].split("\t")
    if len(fields) == len(snowplow.COLUMNS) and fields[5] in snowplow.EVENTS:
        return "snowplow"
    if _is_adobe(path, len(fields)):
        return "adobe"
    header = names(path)
    # a header names, it holds no numbers and nothing twice
    if len(header) > 1 and all(name and not re.fullmatch(r"[-\d.:\sTZ]+", name) for name in header):
        return _by_names(header) if len(set(header)) == len(header) else None
    return None


def names(path: str) -> list[str]:
    """The columns of a table: of Parquet, of the first line of text, or of the first JSON objects."""
    with Path(path).open("rb") as file:
        if file.read(4) in (b"PAR1", b"PARE"):
            return list(pq.read_schema(path).names)
    lines = [line for line in _start(path).splitlines() if line.strip()]
    if not lines:
        return []
    if lines[0].lstrip().startswith("{"):
        return list(dict.fromkeys(key for found in _objects(lines) for key in found))
    delimiter = max(",\t;|", key=lines[0].count)
    return [name.strip() for name in next(csv.reader([lines[0]], delimiter=delimiter))]


def guess_columns(names: Sequence[str]) -> dict[str, str]:
    """Canonical column → the column that is likely to hold it, each used once; for reader ``table``."""
    plain = {re.sub(r"[\W_]+", "", name).lower(): name for name in reversed(names)}
    guessed: dict[str, str] = {}
    for column, called in _CALLED.items():
        if column == "page" and "url" in guessed:
            continue  # the URL says which page, and a page would come before it
        for word in called.split():
            if word in plain and plain[word] not in guessed.values():
                guessed[column] = plain[word]
                break
    return guessed


def _by_names(names: Sequence[str]) -> str:
    found = set(names)
    for reader, needed in (("ga4", _GA4), ("ga360", _GA360), ("snowplow", _SNOWPLOW)):
        if needed <= found:
            return reader
    return "table"


def _of_objects(lines: Sequence[str]) -> str | None:
    found = _objects(lines)
    if not found:
        return None
    calls = {*segment.ACTIONS, *segment.IDENTITY, "group"}
    if all(
        str(o.get("type")).lower() in calls and {"anonymousId", "userId", "messageId"} & set(o) for o in found
    ):
        return "segment"
    by_name = _by_names([key for o in found for key in o])
    # the exports of Google Analytics are read as Parquet alone
    return by_name if by_name == "snowplow" else "table"


def _objects(lines: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for line in lines[:20]:
        try:
            value = json.loads(line)
        except ValueError:  # a broken line, or the last one, cut
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _is_adobe(path: str, n: int) -> bool:
    if n < 2 or beside(path) is None:
        return False
    try:
        return len(lookups(path).columns) - n in (0, 1)
    except DataError:
        return False


def _start(path: str) -> str:
    """The first part of a text file, unpacked."""
    kind = packing(path)
    if kind == "gzip":
        with gzip.open(path, "rb") as unzipped:
            content = unzipped.read(_LOOK_AT)
    elif kind == "zstd":
        with pa.CompressedInputStream(pa.OSFile(path), "zstd") as packed:
            content = bytes(packed.read(_LOOK_AT))
    else:
        with Path(path).open("rb") as stream:
            content = stream.read(_LOOK_AT)
    return content.decode("utf-8-sig", errors="replace")
