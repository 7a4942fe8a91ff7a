"""What reaches the model: features, cuts, masks, and equality of torch and onnxruntime."""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import factories
from clickintent.config import EncoderConfig
from clickintent.encoder.batches import Cuts, bucket, draw_cuts
from clickintent.encoder.export import export_onnx
from clickintent.encoder.features import (
    CALENDAR,
    DWELL,
    GAP,
    MASK,
    NO_DWELL,
    NO_GAP,
    OOV,
    PAD,
    Batch,
    FeatureSpace,
    Vocabulary,
    flatten,
    pad,
    ranges,
)
from clickintent.encoder.model import SessionModel
from clickintent.encoder.objectives import Targets, apply_masks, draw_masks, targets
from clickintent.encoder.runtime import OnnxEncoder
from clickintent.encoder.text import HashedText, ngrams, text_key

PAGES = [*factories.TITLES, "/rare"]


@st.composite
def session_rows(draw: st.DrawFn) -> dict[str, object]:
    pages = draw(st.lists(st.sampled_from(PAGES), min_size=1, max_size=12))
    return factories.session(0, pages, seconds=draw(st.floats(0, 5000)), titles=draw(st.booleans()))


def space_of(table: pa.Table) -> FeatureSpace:
    flat = flatten(table)
    return FeatureSpace.fit(flat, np.arange(len(flat.lengths)), min_page_count=1)


SPACE = space_of(factories.themed_sessions(80))


def equal(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_after_the_cut_reaches_the_input(data: st.DataObject) -> None:
    """Two sessions that share the first t events and nothing else give the same training input at t."""
    row = data.draw(session_rows())
    events = row["events"]
    t = data.draw(st.integers(1, len(events)))
    other = factories.session(0, data.draw(st.lists(st.sampled_from(PAGES), max_size=12)))["events"]
    for event in other:
        event.update(text="another text", event_type="click", dwell_s=7.0, gap_s=99.0)
    changed = [dict(event) for event in events[:t]] + other
    changed[t - 1]["dwell_s"] = data.draw(st.none() | st.floats(0, 1e6))  # lasts until the first hidden event

    def window(rows: list[dict[str, object]]) -> tuple[Batch, tuple[str, ...]]:
        flat = flatten(factories.sessions([{**row, "events": rows}]))
        batch = pad(SPACE.encode(flat), np.array([0]), np.array([t]))
        return batch, tuple(flat.texts[i] for i in batch.text[0])

    before, texts = window(events)
    after, other_texts = window(changed)
    assert texts == other_texts
    for name in ("page", "event_type", "numeric", "lengths"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_masked_answers_are_nowhere_in_the_input(data: st.DataObject) -> None:
    """Changing what is masked changes no input at all."""
    length = data.draw(st.integers(1, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    rows = [factories.session(i, list(rng.choice(PAGES[:-1], length)), seconds=30.0) for i in range(6)]
    flat = flatten(factories.sessions(rows))
    events = SPACE.encode(flat)
    starts, lengths = events.offsets[:-1], events.lengths
    masks = draw_masks(lengths, length, rng)
    hidden = apply_masks(pad(events, starts, lengths), masks)

    # Say something else in every masked place, as the data itself would: a dwell is the next event's gap.
    gap = masks.gap.copy()
    gap[:, 1:] |= masks.dwell[:, :-1]
    dwell = masks.dwell.copy()
    dwell[:, :-1] |= masks.gap[:, 1:]
    unseen = masks.content | masks.page
    events.page[unseen.ravel()] = rng.integers(3, 12, unseen.sum())
    events.event_type[masks.content.ravel()] = OOV
    events.text[masks.content.ravel()] = len(flat.texts) - 1
    events.log_gap[gap.ravel()] = 9.0
    events.log_dwell[dwell.ravel()] = 9.0
    events.hour_of_week[masks.calendar.ravel()] = 77
    assert equal(hidden, apply_masks(pad(events, starts, lengths), masks))


def test_masks_hide_something_of_each_kind_in_a_quarter_of_the_sessions() -> None:
    lengths = np.full(2000, 6)
    masks = draw_masks(lengths, 8, np.random.default_rng(0))
    for mask in vars(masks).values():
        assert 0.05 < mask[:, :6].mean() < 0.18
        assert not mask[:, 6:].any()
    fields = [masks.content, masks.dwell, masks.gap, masks.calendar]
    some = np.any([mask.any(axis=1) for mask in fields], axis=0)
    assert 0.2 < some.mean() < 0.3
    assert not draw_masks(lengths, 8, np.random.default_rng(0), unknown_page=0.0).page.any()
    batch = Batch(
        np.ones((2000, 8), np.int64),
        np.ones((2000, 8), np.int64),
        np.ones((2000, 8, 12), np.float32),
        np.ones((2000, 8), np.int64),
        lengths,
    )
    hidden = apply_masks(batch, masks)
    assert (hidden.page[masks.content] == MASK).all()
    unknown = masks.page & ~masks.content
    assert (hidden.page[unknown] == OOV).all()
    assert hidden.text[unknown].all()
    assert (hidden.event_type[masks.content] == MASK).all()
    assert not hidden.text[masks.content].any()
    assert not hidden.numeric[masks.dwell, DWELL].any()
    assert (hidden.numeric[masks.dwell, NO_DWELL] == 1).all()
    assert not hidden.numeric[masks.gap, GAP].any()
    assert not hidden.numeric[masks.calendar, CALENDAR].any()
    assert (batch.numeric == 1).all(), "the input was changed in place"


def test_targets_are_what_follows_the_cut() -> None:
    table = factories.sessions(
        [factories.session(0, ["/", "/cards", "/help", "/cards"]), factories.session(1, ["/help"])]
    )
    events = SPACE.encode(flatten(table))
    home, cards, help_ = (SPACE.pages.encode(pa.array([p]))[0] for p in ("/", "/cards", "/help"))

    def at(cut: int, following: int = -1) -> Targets:
        cuts = Cuts(np.array([0]), np.array([cut]), np.array([4]))
        batch = pad(events, cuts.starts, cuts.lengths)
        masks = draw_masks(cuts.lengths, cut, np.random.default_rng(0))
        return targets(events, np.array([following, -1]), cuts, batch, masks, SPACE)

    assert at(1).next_page.tolist() == [cards]
    assert at(1).future[1].tolist() == [cards, help_, cards]
    assert at(1).visible[1].tolist() == [home]
    assert at(3).visible[1].tolist() == [home, cards, help_]
    assert at(4).next_page.tolist() == [PAD]
    assert not len(at(4).future[1])
    assert not len(at(2).after[1])
    assert at(2, following=1).after[1].tolist() == [help_]


@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(0, 99), st.booleans())
def test_cuts_are_inside_their_session(lengths: list[int], seed: int, may_end: bool) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.flatnonzero(np.array(lengths) > (0 if may_end else 1))
    cuts = draw_cuts(offsets, rows, np.random.default_rng(seed), max_events=64, may_end=may_end)
    assert (cuts.starts >= offsets[rows]).all()
    assert (cuts.ends == offsets[rows + 1]).all()
    assert (cuts.cuts > offsets[rows]).all()
    assert (cuts.cuts <= cuts.ends - (not may_end)).all()
    assert (cuts.lengths <= 64).all()


@given(st.lists(st.integers(1, 64), min_size=1, max_size=500), st.integers(64, 4096))
def test_every_session_is_in_one_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths)
    batches = bucket(sizes, budget, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(len(sizes)))
    assert all(len(rows) * sizes[rows].max() <= budget for rows in batches)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=20))
def test_ranges(pairs: list[tuple[int, int]]) -> None:
    starts, lengths = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    assert ranges(starts, lengths).tolist() == [i for s, n in pairs for i in range(s, s + n)]


def test_flatten_reads_slices_chunks_and_null_lists() -> None:
    rows = [factories.session(i, ["/", "/cards", "/help"][: i + 1]) for i in range(3)]
    rows.insert(1, {**factories.session(9, ["/"]), "events": []})
    table = factories.sessions(rows)
    parts = pa.concat_tables([table.slice(0, 1), table.slice(1, 3)])
    assert flatten(parts).offsets.tolist() == [0, 1, 1, 3, 6]
    assert flatten(table.slice(2)).page.to_pylist() == ["/", "/cards", "/", "/cards", "/help"]
    assert flatten(table, last=2).page.to_pylist() == ["/", "/", "/cards", "/cards", "/help"]
    assert flatten(table, last=2).offsets.tolist() == [0, 1, 1, 3, 5]
    with_null = pa.table({"events": pa.array([None, rows[2]["events"]], type=table["events"].type)})
    assert flatten(with_null).offsets.tolist() == [0, 0, 2]


def test_numbers_and_calendar() -> None:
    # 1 January 2026, 00:00 UTC, was a Thursday.
    flat = flatten(
        factories.sessions([factories.session(0, ["/", "/cards"], seconds=3600.0, start=factories.START)])
    )
    assert flat.hour_of_week.tolist() == [72, 73]
    batch = pad(SPACE.encode(flat), np.array([0]), np.array([2]))
    first, second = batch.numeric[0]
    assert first[DWELL] == pytest.approx(np.log1p(3600))
    assert (first[NO_DWELL], first[NO_GAP], second[NO_DWELL], second[NO_GAP]) == (0, 1, 1, 0)
    assert second[GAP] == first[DWELL]
    midnight = factories.session(1, ["/"], start=factories.START + 7 * factories.DAY)
    again = pad(SPACE.encode(flatten(factories.sessions([midnight]))), np.array([0]), np.array([1]))
    np.testing.assert_allclose(again.numeric[0, 0, CALENDAR], first[CALENDAR])
    assert np.abs(first[CALENDAR] - second[CALENDAR]).max() > 0.1


def test_vocabulary() -> None:
    column = pa.array(["a", "b", "b", None, "c", "c", "c"])
    vocabulary = Vocabulary.build(column, min_count=2)
    assert vocabulary.values == ("c", "b")
    assert vocabulary.encode(pa.array(["b", "a", None, "c", "z"])).tolist() == [4, OOV, OOV, 3, OOV]
    assert Vocabulary.build(column, max_size=1).values == ("c",)


def test_texts_are_title_and_text_or_the_path() -> None:
    row = factories.session(0, ["/", "/cards/travel", "/", "/"])
    row["events"][1]["title"] = None
    row["events"][2]["text"] = "travel card"
    flat = flatten(factories.sessions([row]))
    home = "Home | Example Bank"
    assert [flat.texts[i] for i in flat.text] == [home, "/cards/travel", f"{home} | travel card", home]
    assert len(set(flat.texts)) == len(flat.texts)


@given(st.lists(st.text(max_size=30), max_size=8))
def test_hashed_text_is_the_mean_of_its_ngrams(texts: list[str]) -> None:
    table = np.random.default_rng(0).normal(size=(97, 5)).astype(np.float32)
    vectors = HashedText(table)(texts)
    assert vectors.shape == (len(texts), 5)
    for text, vector in zip(texts, vectors, strict=True):
        ids = ngrams(text, 97)
        expected = table[ids].mean(axis=0) if ids else np.zeros(5)
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_hashes_are_the_same_everywhere() -> None:
    grams = ["<cd>", "<cd", "cd>", "<rates>", "<ra", "rat", "ate", "tes", "es>"]
    assert ngrams("CD rates!", 8192) == [zlib.crc32(gram.encode()) % 8192 for gram in grams]
    assert text_key("CD rates") == 8500504403297207848


@pytest.fixture(scope="module")
def pair() -> tuple[SessionModel, OnnxEncoder, HashedText]:
    """An untrained model at full size, in torch and in onnxruntime."""
    config = EncoderConfig()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SessionModel(config, SPACE).eval()
    text = HashedText(np.random.default_rng(0).normal(size=(512, config.text_dim)).astype(np.float32))
    return model, OnnxEncoder(export_onnx(model, config.text_dim), SPACE, text, config.dim, "test"), text


def in_torch(model: SessionModel, text: HashedText, table: pa.Table, padding: int = 0) -> np.ndarray:
    flat = flatten(table, last=64)
    batch = pad(SPACE.encode(flat), flat.offsets[:-1], flat.lengths)
    arrays = [batch.page, batch.event_type, batch.numeric, text(flat.texts)[batch.text]]
    widths = [[(0, 0), (0, padding)] + [(0, 0)] * (a.ndim - 2) for a in arrays]
    padded = [torch.from_numpy(np.pad(a, w, constant_values=1)) for a, w in zip(arrays, widths, strict=True)]
    with torch.inference_mode():
        return model(*padded, torch.from_numpy(batch.lengths)).numpy()


def test_torch_equals_onnxruntime_at_every_length(
    pair: tuple[SessionModel, OnnxEncoder, HashedText],
) -> None:
    model, runtime, text = pair
    rng = np.random.default_rng(0)
    rows = [
        factories.session(i, list(rng.choice(PAGES, length)), seconds=float(rng.exponential(60)))
        for i, length in enumerate([*range(1, 65), 65, 100])
    ]
    table = factories.sessions(rows)
    together = runtime.embed(flatten(table, last=64))
    for i in range(len(rows)):
        one = table.slice(i, 1)
        alone = in_torch(model, text, one)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-4)
        np.testing.assert_allclose(runtime.embed(flatten(one, last=64)), alone, atol=1e-4)
    np.testing.assert_allclose(in_torch(model, text, table), together, atol=1e-4)


def test_padding_changes_nothing(pair: tuple[SessionModel, OnnxEncoder, HashedText]) -> None:
    model, _, text = pair
    table = factories.themed_sessions(16)
    np.testing.assert_allclose(in_torch(model, text, table), in_torch(model, text, table, 9), atol=1e-5)
