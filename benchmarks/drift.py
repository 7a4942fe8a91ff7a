"""Drift: how often there is an alarm without a reason, and how soon with one.

Simulated banks of 60 days: the first 42 train a small encoder and a student (the keyword namer teaches), and
each later day the last seven days are compared with them, as ``clickintent drift`` does. Without drift, every
alarm is a false one. With drift from day 45 on, of three strengths, and of one kind each (see
``simbank/change.py``), the first alarm tells the delay, and the last day, all of whose window has changed,
which measures see it.

Beside our levels: the textbook's (PSI above 0.1 or 0.2), and a test of every input for independent rows, at
1 % for all of them together (the distribution of Yurdakul and Naranjo, 2020).

    python benchmarks/drift.py [--seeds 12] [--drifting 4] [--sessions 20000] [--jobs 2] [--work FOLDER]

The levels were chosen looking at seeds below 100; those here, from 101 on, only check them. With
``CLICKINTENT_DATA`` (as for ``quality.py``), the weeks of a real shop and of a real process are compared,
too; what is right there, nobody knows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from scipy.stats import chi2

from clickintent import pipeline
from clickintent.config import (
    Config,
    DriftConfig,
    EncoderConfig,
    SimBankConfig,
    SplitConfig,
    StudentConfig,
    load_config,
)
from clickintent.monitor import Drift, Intents, find_drift, psi
from clickintent.monitor.drift import TRAFFIC
from clickintent.monitor.features import inputs
from clickintent.pipeline.inputs import stored_embeddings
from clickintent.taxonomy import IntentLabeler
from clickintent.workspace import Workspace
from common import read_results, write_results

DAYS, SPLIT, BEGINS = 60, 42, 45
START = date(2026, 3, 2)
DAY_US = 86_400_000_000
STRENGTHS = {"small": 0.1, "medium": 0.3, "large": 1.0}
KINDS = ("intents", "pages", "behaviour")
ALL = "all"
DEFAULT = DriftConfig()
PROMISED = (0.5, 0.2, 0.05)  # false alarms per run


@dataclass(frozen=True)
class Bank:
    seed: int
    drift: float = 0.0
    kind: str = ALL

    @property
    def name(self) -> str:
        return f"{self.seed}-{self.drift}-{self.kind}"


@dataclass(frozen=True)
class Tables:
    sessions: pa.Table
    traffic: pa.Table
    embeddings: np.ndarray
    probability: np.ndarray
    names: tuple[str, ...]

    def until(self, day: int) -> Tables:
        """What was there at the end of a day."""
        end = us(day)
        seen = self.sessions["start"].to_numpy() < end
        return Tables(
            self.sessions.filter(pa.array(seen)),
            self.traffic.filter(pc.less(self.traffic["start"], end)),
            self.embeddings[seen],
            self.probability[seen],
            self.names,
        )


def us(day: int) -> int:
    """When a day of the bank begins, in µs."""
    begin = datetime(START.year, START.month, START.day, tzinfo=UTC) + timedelta(days=day)
    return int(begin.timestamp()) * 1_000_000


def tables_of(bank: Bank, work: Path, sessions: int) -> Tables:
    """Simulate the bank and train on its first days."""
    folder = work / bank.name
    made = SimBankConfig(
        out=folder / "bank",
        sessions=sessions,
        days=DAYS,
        start=START,
        drift=bank.drift,
        drift_from=BEGINS / DAYS,
        drift_in=KINDS if bank.kind == ALL else (bank.kind,),
    )
    pipeline.simulate(Config(workspace=folder / "unused", seed=bank.seed, simbank=made))
    config = load_config(folder / "bank" / "clickintent.toml").model_copy(
        update={
            "workspace": folder / "ws",
            "seed": bank.seed,
            "split": SplitConfig(at=START + timedelta(days=SPLIT)),
            "encoder": EncoderConfig(dim=32, width=48, epochs=2, text_dim=16),
            "student": StudentConfig(hidden=64, epochs=10, learning_curve=False),
        }
    )
    for stage in ("ingest", "pretrain", "embed", "draft_taxonomy", "label", "distill"):
        getattr(pipeline, stage)(config)
    workspace = Workspace(config.workspace)
    dataset = ds.dataset(workspace.path("sessions"))
    seen = dataset.to_table(filter=(pc.field("channel") == "web") & ~pc.field("is_bot"))
    embeddings = stored_embeddings(workspace, seen["session_id"], "drift")
    student = IntentLabeler.load(workspace.path("student"))
    found = Tables(
        seen,
        dataset.to_table(list(TRAFFIC), filter=~pc.field("is_bot")),
        embeddings,
        student.predict_proba(embeddings),
        student.intent_ids,
    )
    shutil.rmtree(folder)
    return found


def compare(tables: Tables, day: int, seed: int, config: DriftConfig = DEFAULT) -> Drift:
    seen = tables.until(day)
    intents = Intents(seen.probability, seen.names)
    return find_drift(
        seen.sessions,
        us(SPLIT),
        config,
        embeddings=seen.embeddings,
        intents=intents,
        traffic=seen.traffic,
        seed=seed,
    )


def without_floors(tables: Tables, day: int, seed: int) -> dict[str, list[str]]:
    """Alarms if so many false ones were wanted and small changes counted: do levels keep their promise?"""
    floors = dict.fromkeys(("floor_psi", "floor_js", "floor_mmd", "floor_new_pages"), 0.0)
    found = {}
    for rate in PROMISED:
        config = DEFAULT.model_copy(update={"false_alarms": rate, **floors})
        found[str(rate)] = list(compare(tables, day, seed, config).alarms)
    return found


def independent(tables: Tables, day: int) -> list[str]:
    """Inputs that a test for independent rows finds changed, at 1 % for all of them together."""
    seen = tables.until(day).sessions
    is_before = seen["end"].to_numpy() < us(SPLIT)
    is_now = seen["start"].to_numpy() >= max(us(SPLIT), us(day - 7))
    features = inputs(seen, is_before)
    found = []
    for feature in features:
        before, now = (
            np.asarray(feature.x[np.flatnonzero(rows)].sum(axis=0)).ravel() for rows in (is_before, is_now)
        )
        values = int(((before + now) > 0).sum())
        if values > 1:
            by_chance = chi2.isf(0.01 / len(features), values - 1) * (1 / before.sum() + 1 / now.sum())
            if float(psi(before, now)) > by_chance:
                found.append(feature.name)
    return found


def judge(bank: Bank, work: Path, sessions: int) -> dict[str, Any]:
    """Every day of a bank: alarms by rule, and at which share of its level each measure was."""
    os.environ.setdefault("CLICKINTENT_KEY", "a key for the benchmark")
    tables = tables_of(bank, work, sessions)
    first = SPLIT + 7 if not bank.drift else BEGINS + 1
    days: list[dict[str, Any]] = []
    seconds = 0.0
    for day in range(first, DAYS + 1):
        started = time.monotonic()
        drift = compare(tables, day, bank.seed)
        seconds += time.monotonic() - started
        stability = {m.name: m.value for m in drift.measures if m.measure == "psi"}
        days.append(
            {
                "day": day,
                "sessions": drift.current.sessions,
                "ours": list(drift.alarms),
                "psi_0.1": [name for name, value in stability.items() if value > 0.1],
                "psi_0.2": [name for name, value in stability.items() if value > 0.2],
                "independent": independent(tables, day),
                "of_level": {m.name: round(m.value / m.alarm, 3) for m in drift.measures},
                "level": {m.name: round(m.alarm, 5) for m in drift.measures},
            }
        )
        if not bank.drift and is_apart(day):
            days[-1]["without_floors"] = without_floors(tables, day, bank.seed)
    print(
        f"done: {bank.name}, alarms on {sum(bool(d['ours']) for d in days)} of {len(days)} days", flush=True
    )
    return {
        "seed": bank.seed,
        "drift": bank.drift,
        "kind": bank.kind,
        "seconds_per_run": seconds / len(days),
        "days": days,
    }


RULES = ("ours", "independent", "psi_0.1", "psi_0.2")


def is_apart(day: int) -> bool:
    """Whether its window shares no day with those of the others."""
    return (DAYS - day) % 7 == 0


def without_drift(found: list[dict[str, Any]]) -> dict[str, Any]:
    days = [day for bank in found for day in bank["days"]]
    apart = [day for day in days if is_apart(day["day"])]
    return {
        "banks": len(found),
        "runs": len(days),
        "runs_without_common_days": len(apart),
        "runs_with_an_alarm": {rule: sum(bool(day[rule]) for day in days) for rule in RULES},
        "of_runs_without_common_days": {rule: sum(bool(day[rule]) for day in apart) for rule in RULES},
        "banks_with_an_alarm": {
            rule: sum(any(day[rule] for day in bank["days"]) for bank in found) for rule in RULES
        },
        "by_measure": {
            rule: dict(Counter(name for day in days for name in day[rule]).most_common()) for rule in RULES
        },
        "of_runs_without_common_days_and_floors": {
            str(rate): sum(bool(day["without_floors"][str(rate)]) for day in apart) for rate in PROMISED
        },
        "alarms_without_floors": {
            str(rate): dict(Counter(name for day in apart for name in day["without_floors"][str(rate)]))
            for rate in PROMISED
        },
        "highest_share_of_its_level": {
            name: max(day["of_level"][name] for day in days) for name in days[0]["of_level"]
        },
        "mean_level": {
            name: round(float(np.mean([day["level"][name] for day in days])), 4) for name in days[0]["level"]
        },
    }


def with_drift(found: list[dict[str, Any]]) -> dict[str, Any]:
    last = [bank["days"][-1] for bank in found]

    def delays(rule: str) -> list[int | None]:
        """Days from the first changed one to the end of the first that ended with an alarm."""
        firsts = [next((day["day"] for day in bank["days"] if day[rule]), None) for bank in found]
        return [None if first is None else first - BEGINS for first in firsts]

    return {
        "banks": len(found),
        "found": {rule: sum(bool(day[rule]) for day in last) for rule in RULES},
        "delay_days": {rule: delays(rule) for rule in RULES},
        "seen_by": dict(Counter(name for day in last for name in day["ours"]).most_common()),
        "share_of_its_level": {
            name: round(float(np.mean([day["of_level"][name] for day in last])), 2)
            for name in last[0]["of_level"]
        },
    }


def real(work: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Weeks of real sites, each with the (at most) six before it; inputs only."""
    from quality_data import ROOT, SHARED, _sessions, eshop

    if not SHARED.is_dir():
        return
    os.environ.setdefault("CLICKINTENT_KEY", "a key for the benchmark")
    eshop(work, 1)
    shop = ds.dataset(work / "eshop" / "ws" / "sessions").to_table()
    vanguard = _sessions(
        load_config(ROOT / "examples" / "vanguard.toml").model_copy(update={"workspace": work / "vanguard"})
    )
    for name, sessions in (("a clothing shop, 2008", shop), ("an online process, 2017", vanguard)):
        start = sessions["start"].to_numpy()
        begin = start.min() // DAY_US * DAY_US
        weeks = []
        for week in range(4, int((start.max() - begin) // DAY_US // 7)):
            at = int(begin + week * 7 * DAY_US)
            near = (start >= at - 42 * DAY_US) & (start < at + 7 * DAY_US)
            drift = find_drift(sessions.filter(pa.array(near)), at, DEFAULT)
            weeks.append(
                {
                    "week": week,
                    "sessions": drift.current.sessions,
                    "verdict": drift.verdict,
                    "alarms": {
                        m.name: [round(m.value, 3), round(m.alarm, 3)] for m in drift.measures if m.is_alarm
                    },
                    "psi_0.2": [m.name for m in drift.measures if m.measure == "psi" and m.value > 0.2],
                    "page": [
                        [round(m.value, 3), round(m.alarm, 3)] for m in drift.measures if m.name == "page"
                    ],
                }
            )
        yield name, weeks


def banks(arguments: argparse.Namespace) -> list[Bank]:
    first = arguments.first
    found = [Bank(first + i) for i in range(arguments.seeds)]
    for i in range(arguments.drifting):
        found += [Bank(first + 100 + i, strength) for strength in STRENGTHS.values()]
        found += [Bank(first + 100 + i, STRENGTHS["medium"], kind) for kind in KINDS]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12, help="banks without drift")
    parser.add_argument("--drifting", type=int, default=4, help="banks of each strength and kind")
    parser.add_argument("--first", type=int, default=101)
    parser.add_argument("--sessions", type=int, default=20_000, help="of a bank, in 60 days")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="drift-"))
    started = time.monotonic()
    todo = banks(arguments)
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        n = len(todo)
        found = list(pool.map(judge, todo, [work] * n, [arguments.sessions] * n))
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    strengths = {strength: name for name, strength in STRENGTHS.items()}
    for bank in found:
        if bank["drift"]:
            name = strengths[bank["drift"]]
            groups[name if bank["kind"] == ALL else f"{name}, {bank['kind']} alone"].append(bank)
    figures = {
        "sessions": arguments.sessions,
        "sessions_in_a_window": round(float(np.mean([bank["days"][-1]["sessions"] for bank in found]))),
        "without": without_drift([bank for bank in found if not bank["drift"]]),
        "with": {name: with_drift(group) for name, group in groups.items()},
        "seconds_per_run": round(float(np.median([bank["seconds_per_run"] for bank in found])), 2),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    results = read_results("drift")
    results[f"{arguments.sessions} sessions"] = figures
    results["real"] = dict(real(work)) or results.get("real", {})
    write_results("drift", results)
    for name, group in {"without": figures["without"], **figures["with"]}.items():
        print(name, group)


if __name__ == "__main__":
    main()
