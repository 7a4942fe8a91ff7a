"""Drift: what is there is found, what is not there is not, and the counts add up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

import factories
from clickintent import pipeline
from clickintent.cli import main
from clickintent.config import Config, DriftConfig, EvaluateConfig, SplitConfig, StudentConfig
from clickintent.errors import WorkspaceError
from clickintent.monitor import Drift, Fourier, Intents, find_drift, jensen_shannon, mmd2, psi
from clickintent.monitor.hours import HOUR_US, Hours, like_with_like
from clickintent.monitor.levels import level
from clickintent.monitor.measures import contributions
from workspaces import workspace

WEEK = 7 * factories.DAY
MONDAY = factories.START + 4 * factories.DAY  # 2026-01-05
WEEKS, TRAINING = 8, 6
AT = MONDAY + TRAINING * WEEK
QUICK = DriftConfig(min_sessions=100, draws=100)
SHAPE = Path(__file__).parents[1] / "explorer" / "src" / "data.ts"

counts = st.lists(st.integers(0, 1000), min_size=3, max_size=12).filter(lambda values: sum(values) > 0)
pairs = counts.flatmap(
    lambda a: st.tuples(st.just(a), st.lists(st.integers(0, 1000), min_size=len(a), max_size=len(a)))
).filter(lambda pair: sum(pair[1]) > 0)


@given(pairs, st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_measures_of_counts(pair: tuple[list[int], list[int]], times: int) -> None:
    before, now = (np.array(x, dtype=float) for x in pair)
    for measure in (psi, jensen_shannon):
        value = float(measure(before, now))
        assert 0 <= value < np.inf
        assert value == pytest.approx(float(measure(now, before)))
        assert float(measure(before, before * times)) == pytest.approx(0, abs=1e-12)
        name = "psi" if measure is psi else "js"
        assert contributions(name, before, now).sum() == pytest.approx(value, abs=1e-9)
    assert float(jensen_shannon(before, now)) <= 1 + 1e-9


def test_measures_know_some_values() -> None:
    assert float(jensen_shannon([10, 0], [0, 7])) == pytest.approx(1)
    assert jensen_shannon([[10, 0], [0, 0]], [[0, 7], [1, 2]]).tolist() == pytest.approx([1, 0])
    big = 1_000_000
    assert float(psi([big, big], [1.1 * big, 0.9 * big])) == pytest.approx(
        0.1 * np.log(1.1 / 0.9) / 2, rel=1e-3
    )
    many = psi([2, 2], np.array([[1, 3], [2, 2], [0, 0]]))
    assert many.shape == (3,)
    assert many[1] == pytest.approx(0)
    assert np.isfinite(many).all()


def exact_mmd2(x: npt.NDArray[Any], y: npt.NDArray[Any], width: float) -> float:
    def kernel(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.exp(-cdist(a, b, "sqeuclidean") / (2 * width**2))

    n, m = len(x), len(y)
    same = (kernel(x, x).sum() - n) / (n * (n - 1)) + (kernel(y, y).sum() - m) / (m * (m - 1))
    return float(same - 2 * kernel(x, y).mean())


def test_mmd_of_fourier_features_is_that_of_the_kernel() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (400, 8)).astype(np.float32), rng.normal(0.4, 1, (150, 8)).astype(np.float32)
    fourier = Fourier.fit(x, 2048, seed=1)
    sums = fourier(x).sum(axis=0, dtype=np.float64), fourier(y).sum(axis=0, dtype=np.float64)
    expected = exact_mmd2(x, y, float(np.median(pdist(x))))
    assert float(mmd2(*sums)) == pytest.approx(expected, rel=0.1)
    assert float(mmd2(*sums, unbiased=False)) > float(mmd2(*sums))
    assert float(mmd2(sums[0], sums[0], unbiased=False)) == pytest.approx(0)
    drawn = [fourier(rng.normal(0, 1, (2, 60, 8)).astype(np.float32).reshape(-1, 8)) for _ in range(80)]
    null = np.array([float(mmd2(d[:60].sum(0), d[60:].sum(0))) for d in drawn])
    assert abs(null.mean()) < 3 * null.std() / np.sqrt(len(null))
    assert null.min() < 0


def test_like_is_compared_with_like() -> None:
    before = Hours.of(MONDAY, MONDAY + 3 * WEEK)
    tuesday = Hours.of(MONDAY + 3 * WEEK + factories.DAY, MONDAY + 3 * WEEK + 2 * factories.DAY)
    weights, there = like_with_like(before, tuesday)
    days = weights.reshape(21, 24)
    assert days[[1, 8, 15]] == pytest.approx(1 / 3)
    assert days.sum() == pytest.approx(24)
    assert there.tolist() == [1.0] * 24
    weights, there = like_with_like(tuesday, before)
    assert there.sum() == 3 * 24  # nothing is known of the other days
    half = Hours.of(MONDAY + HOUR_US // 2, MONDAY + 2 * HOUR_US)
    assert half.exposure.tolist() == [0.5, 1.0]


def test_levels_keep_their_promise_and_know_weeks_that_differ() -> None:
    rng = np.random.default_rng(1)
    passed = 0
    for _ in range(400):
        chance, weeks = rng.chisquare(5, 300), rng.chisquare(5, 6)
        passed += bool(rng.chisquare(5) > level(chance, weeks, 6, 0.05))
    assert passed <= 0.05 * 400 + 10
    chance = rng.chisquare(5, 300)
    calm, wild = (level(chance, chance[:6] * factor, 6, 0.01) for factor in (1, 3))
    assert wild > 2 * calm
    assert level(np.zeros(10), np.zeros(3), 3, 0.01) == 0


Draw = Callable[[np.random.Generator, int], tuple[Sequence[str], float]]


def usual(rng: np.random.Generator, day: int) -> tuple[Sequence[str], float]:
    """Pages and seconds per page of a session; at weekends people want something else."""
    theme = factories.THEMES[rng.choice(4, p=(0.1, 0.1, 0.4, 0.4) if day % 7 >= 5 else (0.4, 0.3, 0.2, 0.1))]
    return [theme[rng.integers(len(theme))] for _ in range(1 + rng.integers(6))], float(rng.lognormal(3, 0.7))


def table(later: Draw = usual, *, hours: tuple[int, int] = (8, 20), visitors: int = 400) -> pa.Table:
    """Eight weeks; six train, in the last one people do what ``later`` says, in its ``hours``."""
    rng = np.random.default_rng(5)
    rows: list[dict[str, object]] = []
    for day in range(WEEKS * 7):
        changed = day >= (WEEKS - 1) * 7
        for _ in range(rng.poisson(45 if day % 7 >= 5 else 40)):
            pages, seconds = (later if changed else usual)(rng, day)
            hour = rng.uniform(*(hours if changed else (8, 20)))
            start = int(MONDAY + day * factories.DAY + hour * HOUR_US)
            visitor = f"v{rng.integers(visitors)}"
            rows.append(
                factories.session(len(rows), pages, start=start, seconds=round(seconds, 1), visitor=visitor)
            )
    return factories.sessions(rows)


@pytest.fixture(scope="module")
def same() -> pa.Table:
    return table()


@pytest.fixture(scope="module")
def nothing(same: pa.Table) -> Drift:
    return find_drift(same, AT, QUICK)


def test_no_drift_no_alarm_and_the_counts_add_up(same: pa.Table, nothing: Drift) -> None:
    start, end = same["start"].to_numpy(), same["end"].to_numpy()
    assert nothing.verdict == "none"
    assert nothing.alarms == ()
    assert nothing.reference.sessions == (end < AT).sum()
    assert nothing.current.sessions == (start >= AT + WEEK).sum()
    assert len({measure.name for measure in nothing.measures}) == len(nothing.measures) == 10
    assert len(nothing.weeks) == WEEKS
    assert sum(week.window.sessions for week in nothing.weeks) == same.num_rows
    assert all(set(week.values) == {m.name for m in nothing.measures} for week in nothing.weeks)
    last = nothing.weeks[-1].values
    for measure in nothing.measures:
        assert measure.value == pytest.approx(last[measure.name])  # the current window is the last week
        assert all(0 <= share <= 1 for detail in measure.detail for share in (detail.before, detail.now))
    assert nothing.new_pages == ()
    assert nothing.new_page_share == 0


def test_the_same_seed_gives_the_same(same: pa.Table, nothing: Drift) -> None:
    assert find_drift(same, AT, QUICK) == nothing


def test_a_weekend_is_compared_with_weekends(same: pa.Table) -> None:
    config = QUICK.model_copy(update={"days": 2.0, "min_sessions": 50, "draws": 50})
    found = find_drift(same, AT, config)
    page = next(m for m in found.measures if m.name == "page")
    assert found.verdict == "none"
    start, end = same["start"].to_numpy(), same["end"].to_numpy()
    names = sorted(factories.TITLES)
    naive = [
        [sum(e["page"] == name for s in events for e in s) for name in names]
        for events in (
            same.filter(pa.array(rows))["events"].to_pylist()
            for rows in (end < AT, start >= MONDAY + WEEKS * WEEK - 2 * factories.DAY)
        )
    ]
    assert float(psi(*naive)) > 5 * page.value


def other_pages(rng: np.random.Generator, day: int) -> tuple[Sequence[str], float]:
    pages, seconds = usual(rng, day)
    return ["/mortgage" if page == "/cards" else page for page in pages], seconds


def slower(rng: np.random.Generator, day: int) -> tuple[Sequence[str], float]:
    pages, seconds = usual(rng, day)
    return pages, 2 * seconds


def longer(rng: np.random.Generator, day: int) -> tuple[Sequence[str], float]:
    pages, seconds = usual(rng, day)
    return [*pages, *usual(rng, day)[0]], seconds


@pytest.mark.parametrize(("later", "name"), [(other_pages, "page"), (slower, "dwell"), (longer, "events")])
def test_drift_is_found_where_it_is(later: Draw, name: str) -> None:
    found = find_drift(table(later), AT, QUICK)
    assert found.verdict == "drift"
    assert name in found.alarms
    assert not {"weekday", "device", "country", "referrer", "event_type", "hour"} & set(found.alarms)
    worst = next(m for m in found.measures if m.name == name)
    assert worst.value > worst.alarm > 0
    if name == "page":
        assert {detail.value for detail in worst.detail[:2]} == {"/cards", "/mortgage"}


def test_visits_at_other_hours_are_found() -> None:
    found = find_drift(table(hours=(12, 23)), AT, QUICK)
    assert found.alarms == ("hour",)


def test_sessions_of_few_visitors_tell_less(same: pa.Table, nothing: Drift) -> None:
    rng = np.random.default_rng(2)
    # the same sessions, but people keep to one theme: those of one theme share visitors
    themes = np.array(
        [
            next(i for i, t in enumerate(factories.THEMES) if set(p) <= set(t) or i == 3)
            for p in ([e["page"] for e in s] for s in same["events"].to_pylist())
        ]
    )
    visitor = pa.array([f"v{theme}-{rng.integers(4)}" for theme in themes])
    clumped = same.set_column(same.column_names.index("visitor_id"), "visitor_id", visitor)
    alarm = {m.name: m.alarm for m in find_drift(clumped, AT, QUICK).measures}
    assert alarm["page"] > 1.5 * next(m.alarm for m in nothing.measures if m.name == "page")


def with_new_section(rng: np.random.Generator, day: int) -> tuple[Sequence[str], float]:
    pages, seconds = usual(rng, day)
    return [*pages, *(["/crypto", "/crypto/wallet"] if rng.random() < 0.2 else [])], seconds


def test_new_pages_are_counted_and_dated() -> None:
    sessions = table(with_new_section)
    found = find_drift(sessions, AT, QUICK)
    assert "new_pages" in found.alarms
    rows = [(s["start"], s["events"]) for s in sessions.to_pylist()]
    new = [e for _, events in rows for e in events if e["page"].startswith("/crypto")]
    now = [e for start, events in rows if start >= AT + WEEK for e in events]
    assert found.new_page_share == pytest.approx(len(new) / len(now))
    assert {page.page: page.title for page in found.new_pages} == {
        "/crypto": "crypto",
        "/crypto/wallet": "crypto wallet",
    }
    for page in found.new_pages:
        assert page.first_seen == min(e["ts"] for e in new if e["page"] == page.page)
        assert page.share == pytest.approx(page.sessions / found.current.sessions)
    assert all(week.values["new_pages"] == 0 for week in found.weeks[:-1])


def test_intents_and_embeddings() -> None:
    sessions = table(other_pages)
    rng = np.random.default_rng(0)
    is_late = sessions["start"].to_numpy() >= AT + WEEK
    base = rng.normal(0, 1, (sessions.num_rows, 8)).astype(np.float32)
    probability = rng.dirichlet([1, 1, 1], sessions.num_rows).astype(np.float32)
    calm = find_drift(sessions, AT, QUICK, embeddings=base, intents=Intents(probability, ("a", "b", "c")))
    assert not {"embedding", "intent", "confidence"} & set(calm.alarms)
    base[is_late] += 0.5
    probability[is_late & (rng.random(len(base)) < 0.5)] = (0.4, 0.3, 0.3)
    intents = Intents(probability, ("a", "b", "c"), cutoff=0.5)
    found = find_drift(sessions, AT, QUICK, embeddings=base, intents=intents)
    assert {"embedding", "intent", "confidence", "unlabelled"} <= set(found.alarms)
    assert {m.group for m in found.measures} == {"input", "embedding", "label"}
    unlabelled = next(m for m in found.measures if m.name == "unlabelled").detail[0]
    assert unlabelled.before == pytest.approx(
        float((probability[~is_late].max(axis=1) < 0.5).mean()), abs=0.03
    )


def test_a_student_is_surer_of_what_it_learned_from_and_that_is_no_drift(same: pa.Table) -> None:
    rng = np.random.default_rng(0)
    probability = rng.dirichlet([1, 1, 1], same.num_rows).astype(np.float32)
    is_before = same["end"].to_numpy() < AT
    learned = is_before & (rng.random(same.num_rows) < 0.7)
    probability[learned] **= 3
    probability /= probability.sum(axis=1, keepdims=True)
    names = ("a", "b", "c")
    assert "confidence" in find_drift(same, AT, QUICK, intents=Intents(probability, names)).alarms
    told = find_drift(same, AT, QUICK, intents=Intents(probability, names, learned=learned))
    assert "confidence" not in told.alarms
    assert "confidence" in {m.name for m in told.measures}
    all_learned = find_drift(same, AT, QUICK, intents=Intents(probability, names, learned=is_before))
    assert "confidence" not in {m.name for m in all_learned.measures}


def test_tiny_but_certain_is_no_alarm_below_the_floor() -> None:
    high = QUICK.model_copy(update={"floor_psi": 9.0, "floor_new_pages": 0.9})
    assert find_drift(table(other_pages), AT, high).verdict == "none"


def test_the_channel_is_of_all_sessions(same: pa.Table) -> None:
    rng = np.random.default_rng(3)
    app = rng.random(same.num_rows) < np.where(same["start"].to_numpy() >= AT + WEEK, 0.2, 0.6)
    traffic = same.set_column(5, "channel", pa.array(np.where(app, "app", "web")))
    found = find_drift(same, AT, QUICK, traffic=traffic)
    assert found.alarms == ("channel",)
    assert find_drift(same, AT, QUICK, traffic=same).alarms == ()  # one channel is nothing to compare


def test_too_few_sessions_are_no_verdict(same: pa.Table) -> None:
    for config in (QUICK.model_copy(update={"min_sessions": 5000}), QUICK.model_copy(update={"days": 0.05})):
        found = find_drift(same, AT, config)
        assert (found.verdict, found.measures, found.alarms) == ("too_few", (), ())
    assert find_drift(same, MONDAY + 20 * WEEK, QUICK).verdict == "too_few"  # nothing after the split
    assert find_drift(same, MONDAY, QUICK).verdict == "too_few"  # nothing before


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A workspace with a student, whose last week is about something else."""
    folder = tmp_path_factory.mktemp("drift") / "w"
    config = workspace(
        folder,
        table(with_new_section),
        split=SplitConfig(at="2026-02-16"),
        student=StudentConfig(epochs=1, learning_curve=False),
        drift=QUICK,
        evaluate=EvaluateConfig(truth=folder / "nobody opens this"),
    )
    for stage in (pipeline.draft_taxonomy, pipeline.label, pipeline.distill):
        stage(config)
    folder.with_suffix(".toml").write_text(
        f'workspace = "{folder}"\n[split]\nat = 2026-02-16\n[drift]\nmin_sessions = 100\ndraws = 100\n'
    )
    return config


def test_the_stage_writes_what_the_explorer_reads(ready: Config) -> None:
    found = pipeline.drift(ready)["drift"]
    written = json.loads((ready.workspace / "drift.json").read_text())
    assert found["verdict"] == written["verdict"] == "drift"
    assert found["alarms"] == [m["name"] for m in written["measures"] if m["is_alarm"]]
    assert {"embedding", "intent", "new_pages"} <= set(found["measures"])
    assert json.loads((ready.workspace / "metrics.json").read_text())["drift"] == found
    when = (ready.workspace / "drift.json").stat().st_mtime_ns
    assert pipeline.drift(ready)["drift"] == found
    assert (ready.workspace / "drift.json").stat().st_mtime_ns == when  # it was up to date
    if not SHAPE.exists():
        pytest.skip("the explorer's sources are not here")
    shape = SHAPE.read_text()
    parts = {
        "Drift": written,
        "Window": written["reference"],
        "DriftMeasure": written["measures"][0],
    }
    for name, part in parts.items():
        body = re.search(rf"export interface {name} {{\n(.*?)\n}}", shape, re.S)
        assert body is not None
        assert set(part) == set(re.findall(r"^  (\w+):", body[1], re.M)), name
    inner = re.search(r"new_pages: {(.*?)}", shape)
    assert inner is not None
    assert set(written["new_pages"][0]) == set(re.findall(r"(\w+):", inner[1]))


def test_the_split_is_the_encoders(ready: Config) -> None:
    """More sessions move a split that follows from their share, but not what the encoder has seen."""
    record = ready.workspace / ".stages" / "pretrain.json"
    record.write_text(json.dumps({"metrics": {"encoder": {"split_at": "2026-02-09T00:00:00+00:00"}}}))
    try:
        config = ready.model_copy(update={"split": SplitConfig(test_share=0.01)})
        assert pipeline.drift(config)["drift"]["trained_until"] == "2026-02-09T00:00:00+00:00"
    finally:
        record.unlink()


def test_the_command_says_what_it_found(ready: Config, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(ready.workspace.with_suffix(".toml"))
    with pytest.raises(SystemExit) as stopped:
        main(["drift", file, "--fail-on-drift"])
    assert stopped.value.code == 4
    said = capsys.readouterr().out
    assert "new pages" in said
    assert re.search(r"^drift: .*new_pages", said, re.M)
    assert "2 pages were not seen in training" in said
    path = ready.workspace.parent / "few.toml"
    path.write_text(Path(file).read_text().replace("min_sessions = 100", "min_sessions = 100000"))
    with pytest.raises(SystemExit) as stopped:
        main(["drift", str(path), "--fail-on-drift"])
    assert stopped.value.code == 0
    assert "too few sessions to tell" in capsys.readouterr().out


def test_what_is_missing_is_named(tmp_path: Path, same: pa.Table) -> None:
    config = workspace(tmp_path / "w", same)
    with pytest.raises(WorkspaceError, match="clickintent distill"):
        pipeline.drift(config)
