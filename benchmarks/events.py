"""Raw export → private, flagged, stitched sessions, against a bare hand-written query over the same file.

The bare query is what one writes in an evening: a DuckDB statement that takes the fields out of the GA4
export, cuts sessions after 30 minutes and writes lists of events to Parquet; nothing is checked, redacted,
deduplicated, linked or flagged, and it may take all the memory there is. Each run is a process of its own,
the two in turn, so that the ratio holds when the machine's speed drifts.

    python benchmarks/events.py [--small] [--skip-80m] [--work FOLDER]

``--small`` checks the script in a minute. The simulated banks take some 6 GB in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import write_results

SEED, DAYS = 7, 7
EVENTS_PER_SESSION = 9.4
SIZES = {"5m": 5_000_000, "20m": 20_000_000, "80m": 80_000_000}
SMALL = {"5m": 100_000, "20m": 400_000, "80m": 1_600_000}
REPEATS = {"5m": 2, "20m": 1}
MEMORY = "1500MB"
KEY = "benchmarks only, no secret"


def bare(source: str, out: Path, buckets: int) -> None:
    """The hand-written query: one statement, or in buckets of visitors where its lists exceed the memory.

    With 20 million events the one statement ends in "Out of Memory" on 24 GiB, so there the fields are first
    written to a DuckDB file, once, and then sessionised bucket by bucket.
    """
    import duckdb

    def param(key: str) -> str:
        return f"v[list_position(k, '{key}')].string_value"

    flat = f"""
        SELECT user_pseudo_id AS visitor_id, user_id, ts, event_name AS event_type, device, country,
               {param("page_location")} AS page, {param("page_title")} AS title,
               coalesce({param("search_term")}, {param("page_text")}) AS text,
               {param("page_referrer")} AS referrer, {param("campaign")} AS campaign
        FROM (
          SELECT user_pseudo_id, user_id, event_timestamp AS ts, event_name, device.category AS device,
                 geo.country AS country,
                 [p.key FOR p IN event_params] AS k, [p.value FOR p IN event_params] AS v
          FROM read_parquet('{source}') WHERE user_pseudo_id IS NOT NULL AND event_timestamp IS NOT NULL)
    """
    out.mkdir()
    con = duckdb.connect(str(out / "flat.duckdb") if buckets > 1 else ":memory:")
    con.execute(f"SET temp_directory = '{out.parent / 'spill'}'; SET preserve_insertion_order = false")
    if buckets > 1:
        con.execute(f"CREATE TABLE flat AS {flat}")
    for bucket in range(buckets):
        events = f"({flat})" if buckets == 1 else f"flat WHERE hash(visitor_id) % {buckets} = {bucket}"
        con.execute(
            f"""
            COPY (
              WITH gaps AS (
                SELECT *, ts - lag(ts) OVER w AS gap, lead(ts) OVER w - ts AS dwell
                FROM {events} WINDOW w AS (PARTITION BY visitor_id ORDER BY ts)),
              cut AS (
                SELECT *, count_if(gap IS NULL OR gap > 1800000000)
                          OVER (PARTITION BY visitor_id ORDER BY ts) AS number
                FROM gaps)
              SELECT visitor_id, number, max(user_id) AS account_id, min(ts) AS start, max(ts) AS "end",
                     count(*) AS n_events,
                     arg_min(referrer, ts) AS referrer, arg_min(campaign, ts) AS campaign,
                     any_value(device) AS device, any_value(country) AS country,
                     list({{'ts': ts, 'event_type': event_type, 'page': page, 'title': title, 'text': text,
                            'dwell_s': CASE WHEN dwell <= 1800000000 THEN dwell / 1e6 END,
                            'gap_s': CASE WHEN gap <= 1800000000 THEN gap / 1e6 END}} ORDER BY ts) AS events
              FROM cut GROUP BY visitor_id, number
            ) TO '{out}/part-{bucket}.parquet' (FORMAT parquet, COMPRESSION zstd)
            """
        )


def ours(source: str, out: Path, engine: str, memory: str) -> dict[str, Any]:
    """The whole ingest."""
    from clickintent.config import Config, PrivacyConfig, SourceConfig
    from clickintent.events import ingest

    config = Config(
        workspace=out,
        engine=engine,
        spark="local[2]",
        memory_limit=memory,
        sources=(SourceConfig(reader="ga4", path=source),),
        privacy=PrivacyConfig(allow_query=("type",), search_query=("q",)),
    )
    return ingest(config, out).metrics


def child(kind: str, source: str, out: Path, memory: str) -> dict[str, Any]:
    """One timed run in this process, imports done before."""
    os.environ["CLICKINTENT_KEY"] = KEY
    import duckdb  # noqa: F401

    import clickintent.events  # noqa: F401

    started = time.monotonic()
    metrics: dict[str, Any] = {}
    if kind.startswith("bare"):
        bare(source, out, int(kind.removeprefix("bare") or 1))
    else:
        metrics = ours(source, out, "spark" if kind == "spark" else "duckdb", memory)
    seconds = time.monotonic() - started
    spent = os.times()  # of this process and of those that it waited for
    cpu = spent.user + spent.system + spent.children_user + spent.children_system
    rows = {
        name: metrics.get("events", {}).get(name) for name in ("read", "events", "duplicates", "quarantined")
    }
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "sessions": metrics.get("sessions", {}).get("sessions"),
        **rows,
    }


def run(kind: str, source: str, work: Path, memory: str = MEMORY) -> dict[str, Any]:
    out = work / f"out-{kind}"
    command = [sys.executable, __file__, "--child", kind, source, str(out), memory]
    peak = 0
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                peak = max(peak, memory_of(process.pid))
                time.sleep(0.2)
            assert process.stdout is not None
            printed = process.stdout.read()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
    finally:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(work / "spill", ignore_errors=True)
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    result["peak_gib"] = peak / 2**30
    rate = (result["read"] or 0) / result["seconds"]
    print(
        f"  {kind:<6} {result['seconds']:7.1f} s  peak {result['peak_gib']:.2f} GiB  {rate:,.0f} rows/s",
        flush=True,
    )
    return result


def memory_of(pid: int) -> int:
    """Bytes that a process and all its descendants hold, pages that they share counted once."""
    total = 0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            for below in (task / "children").read_text().split():
                total += memory_of(int(below))
    except (OSError, StopIteration):
        pass  # it ended meanwhile
    return total


def make_bank(work: Path, name: str, events: int) -> tuple[str, int]:
    """Simulate a bank once; returns the glob of its web export, and how many rows that is."""
    import pyarrow.dataset as ds

    from clickintent.config import SimBankConfig
    from clickintent.simbank import simulate

    folder = work / f"bank-{name}"
    if not folder.exists():
        sessions = round(events / EVENTS_PER_SESSION)
        simulate(SimBankConfig(out=folder, sessions=sessions, days=DAYS), seed=SEED)
        for unused in ("app", "truth"):
            shutil.rmtree(folder / unused)
    return str(folder / "web" / "*.parquet"), ds.dataset(folder / "web").count_rows()


def bots() -> dict[str, float]:
    """Precision and recall of the robot flag on SimBank, by the simulator's truth."""
    import numpy as np
    import pyarrow.parquet as pq

    from clickintent.config import Config, PrivacyConfig, SimBankConfig, SourceConfig
    from clickintent.events import ingest
    from clickintent.simbank import simulate

    with tempfile.TemporaryDirectory() as folder:
        bank, out = Path(folder) / "bank", Path(folder) / "out"
        simulate(SimBankConfig(out=bank, sessions=60_000), seed=SEED)
        source = SourceConfig(reader="ga4", path=bank / "web" / "*.parquet")
        ingest(Config(workspace=out, sources=(source,), privacy=PrivacyConfig(ids="plain")), out)
        truth = pq.read_table(bank / "truth" / "sessions.parquet", columns=["user_pseudo_id", "is_bot"])
        sessions = pq.read_table(out / "sessions", columns=["visitor_id", "is_bot"])
    # a cookie of the simulator is a robot's or a person's for good
    robots = set(truth.filter(truth["is_bot"])["user_pseudo_id"].to_pylist())
    real = np.array([visitor in robots for visitor in sessions["visitor_id"].to_pylist()])
    said = sessions["is_bot"].to_numpy()
    return {
        "sessions": len(real),
        "robots": int(real.sum()),
        "precision": float((real & said).sum() / max(said.sum(), 1)),
        "recall": float((real & said).sum() / max(real.sum(), 1)),
    }


def real_samples() -> list[dict[str, Any]]:
    """Every row of the real samples, counted here without the readers, must be in exactly one account."""
    import pyarrow.parquet as pq

    from clickintent.config import Config, PrivacyConfig, SourceConfig
    from clickintent.events import ingest

    data = Path(os.environ.get("CLICKINTENT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not data.is_dir():
        print(f"no real data at {data}; set CLICKINTENT_DATA")
        return []

    def lines(path: Path, header: int = 0) -> int:
        import gzip

        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return sum(1 for line in file if line.strip()) - header

    def table(**columns: str) -> dict[str, Any]:
        return {"reader": "table", "columns": columns, "constants": {"event_type": "view"}}

    vanguard = data / "vanguard_cx_ab" / "web_data_pt1.parquet"
    ga360 = data / "ga360_google_store_20170801" / "ga_sample.parquet"
    ga4 = data / "ga4_google_store_sampled" / "ga4_events_sampled.snappy.parquet"
    onboarding = data / "app_onboarding_firebase" / "train.csv"
    apache = data / "apache_access_log_elastic" / "apache_logs"
    adobe = data / "adobe_datafeed_sample" / "01-suiteid_2015-12-29.tsv.gz"
    hits = sum(len(row["hits"]) for row in pq.read_table(ga360, columns=["hits"]).to_pylist())
    samples = [
        (vanguard, table(visitor_id="visitor_id", ts="date_time", page="process_step"),
         pq.ParquetFile(vanguard).metadata.num_rows),
        (ga360, {"reader": "ga360"}, hits),
        (ga4, {"reader": "ga4"}, pq.ParquetFile(ga4).metadata.num_rows),
        (onboarding, table(visitor_id="user_pseudo_id", ts="event_timestamp", page="event_name"),
         lines(onboarding, 1)),
        (apache, {"reader": "access_log"}, lines(apache)),
        (adobe, {"reader": "adobe"}, lines(adobe)),
    ]  # fmt: skip
    rows = []
    for path, how, counted in samples:
        with tempfile.TemporaryDirectory() as out:
            made = Config(
                workspace=out, sources=(SourceConfig(path=path, **how),), privacy=PrivacyConfig(ids="plain")
            )
            n = ingest(made, Path(out)).metrics["events"]
        accounts = {name: n[name] for name in ("read", "events", "duplicates", "quarantined")}
        lost = abs(counted - n["events"] - n["duplicates"] - n["quarantined"])
        rows.append({"sample": path.parent.name, "rows_in_file": counted, **accounts, "unaccounted": lost})
        print(f"  {path.parent.name:<30} {counted:>8,} rows: {accounts}, unaccounted {lost}")
    return rows


def ratio(pairs: list[tuple[dict[str, Any], dict[str, Any]]], of: str = "seconds") -> dict[str, float]:
    found = sorted(mine[of] / other[of] for mine, other in pairs)
    return {"min": found[0], "median": statistics.median(found), "max": found[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--skip-80m", action="store_true")
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    sizes = SMALL if options.small else SIZES
    work = options.work or Path(tempfile.mkdtemp(prefix="clickintent-events-"))
    work.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"memory_limit": MEMORY}
    results: dict[str, Any] = {}
    for name in ("5m", "20m"):
        source, rows = make_bank(work, name, sizes[name])
        print(f"{name}: {rows:,} rows")
        other = "bare4"
        pairs = [(run("ingest", source, work), run(other, source, work)) for _ in range(REPEATS[name])]
        results[name] = {
            "rows": rows,
            "ratio": ratio(pairs),
            "cpu_ratio": ratio(pairs, "cpu_seconds"),
            "ingest": [pair[0] for pair in pairs],
            "bare": [pair[1] for pair in pairs],
        }
    source, _ = make_bank(work, "20m", sizes["20m"])
    print("20m with memory_limit = 2GiB")
    results["20m_2gib"] = run("ingest", source, work, "2GiB")
    rates = {
        name: statistics.median(r["seconds"] for r in results[name]["ingest"]) / results[name]["rows"]
        for name in ("5m", "20m")
    }
    if not options.skip_80m:
        source, rows = make_bank(work, "80m", sizes["80m"])
        print(f"80m: {rows:,} rows")
        results["80m"] = {"rows": rows, "ingest": [run("ingest", source, work)]}
        rates["80m"] = results["80m"]["ingest"][0]["seconds"] / rows
        again = run("ingest", make_bank(work, "5m", sizes["5m"])[0], work)  # the machine's speed, right after
        results["5m_after_80m"] = again
        small = statistics.mean([again["seconds"] / again["read"], rates["5m"]])
        figures |= {
            "seconds_80m": results["80m"]["ingest"][0]["seconds"],
            "peak_gib_80m": results["80m"]["ingest"][0]["peak_gib"],
            "growth_5_to_80": rates["80m"] / small,
        }
    samples = real_samples()
    figures = {
        "ratio_to_bare_sql": results["20m"]["ratio"]["median"],
        "ratio_to_bare_sql_range": [results["20m"]["ratio"]["min"], results["20m"]["ratio"]["max"]],
        "cpu_ratio_to_bare_sql": results["20m"]["cpu_ratio"]["median"],
        "peak_gib": max(r["peak_gib"] for r in results["20m"]["ingest"]),
        "peak_gib_at_2gib_limit": results["20m_2gib"]["peak_gib"],
        "unaccounted_rows": sum(row["unaccounted"] for row in samples) if samples else None,
        "bots_on_simbank": bots(),
        **figures,
    }
    for name, value in figures.items():
        print(f"{name}: {value}")
    if not options.work:
        shutil.rmtree(work)
    if not options.small:
        write_results("events", {**figures, "runs": results, "real_samples": samples})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kind, source, out, memory = sys.argv[2:6]
        print(json.dumps(child(kind, source, Path(out), memory)))
    else:
        main()
