"""Transformer blocks without padding compute what padded ones do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import factories
from clickintent.config import EncoderConfig
from clickintent.encoder import packed as packed_module
from clickintent.encoder.batches import Cuts
from clickintent.encoder.chunks import chunk_of
from clickintent.encoder.features import NUMERIC_WIDTH, FeatureSpace, flatten, pad
from clickintent.encoder.model import SessionModel
from clickintent.encoder.network import Network
from clickintent.encoder.objectives import apply_masks, draw_masks, targets
from clickintent.encoder.packed import can_pack, packing_of

CONFIG = EncoderConfig(
    cell="transformer", layers=2, width=32, heads=4, text_dim=16, text_buckets=512, dropout=0.0
)
MOST = CONFIG.max_events
TABLE = factories.themed_sessions(60)
FLAT = flatten(TABLE)
SPACE = FeatureSpace.fit(FLAT, np.arange(len(FLAT.lengths)), min_page_count=1)

a_batch = st.lists(st.integers(1, MOST), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def model() -> SessionModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SessionModel(CONFIG, SPACE)


def inputs(lengths: list[int], seed: int = 0) -> tuple[Tensor, ...]:
    """Random events; what is behind a session's end is as random."""
    shape = (len(lengths), max(lengths))
    at = torch.Generator().manual_seed(seed)
    return (
        torch.randint(len(SPACE.pages), shape, generator=at),
        torch.randint(len(SPACE.event_types), shape, generator=at),
        torch.rand(*shape, NUMERIC_WIDTH, generator=at),
        torch.randn(*shape, CONFIG.text_dim, generator=at),
        torch.tensor(lengths),
    )


def outputs(model: SessionModel, lengths: list[int], packed: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The vectors of the events that are there, the embeddings, and the gradients of a function of both."""
    packing = packing_of(np.array(lengths), max(lengths), torch.device("cpu")) if packed else None
    x, embedding = model.hidden(*inputs(lengths), packing)
    x = torch.cat([row[:length] for row, length in zip(x, lengths, strict=True)])
    loss = (x * torch.linspace(-1, 1, x.shape[1])).sum() + embedding.square().sum()
    return x, embedding, list(torch.autograd.grad(loss / len(x), list(model.parameters())))


@settings(max_examples=25, deadline=None)
@given(lengths=a_batch)
def test_packed_equals_padded(model: SessionModel, lengths: list[int]) -> None:
    both = [outputs(model, lengths, packed) for packed in (True, False)]
    for of_packed, of_padded in zip(*(both[i][:2] for i in (0, 1)), strict=True):
        torch.testing.assert_close(of_packed, of_padded, atol=1e-5, rtol=0)
    for of_packed, of_padded in zip(both[0][2], both[1][2], strict=True):
        torch.testing.assert_close(of_packed, of_padded, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lengths", [[1], [1] * 5, [MOST], [1, MOST, 1], [MOST] * 3])
def test_the_shortest_and_the_longest(model: SessionModel, lengths: list[int]) -> None:
    for of_packed, of_padded in zip(
        *(outputs(model, lengths, packed)[:2] for packed in (True, False)), strict=True
    ):
        torch.testing.assert_close(of_packed, of_padded, atol=1e-5, rtol=0)


def test_a_session_sees_nothing_of_another(model: SessionModel) -> None:
    lengths = [3, MOST, 1, 7]
    packing = packing_of(np.array(lengths), MOST, torch.device("cpu"))
    page, *others = inputs(lengths)
    changed = page.clone()
    changed[1] = (changed[1] + 1) % len(SPACE.pages)
    with torch.inference_mode():
        before, after = (model.hidden(p, *others, packing)[1] for p in (page, changed))
    same = (before - after).abs().amax(dim=1) < 1e-6
    assert same.tolist() == [True, False, True, True]


@given(lengths=a_batch)
def test_padding_undoes_packing(lengths: list[int]) -> None:
    packing = packing_of(np.array(lengths), max(lengths), torch.device("cpu"))
    padded = torch.rand(len(lengths), max(lengths), 3)
    again = packing.pad(packing.pack(padded))
    inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    assert torch.equal(again, padded * inside.unsqueeze(-1))


def losses(device: str, packed: bool) -> dict[str, Tensor]:
    """Of one training batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(CONFIG, SPACE).to(device)
    network.packed = packed
    chunk = chunk_of([TABLE], SPACE, network.text.prepare)
    events = chunk.events
    cuts = Cuts(events.offsets[:-1], events.offsets[1:], events.offsets[1:])
    batch = pad(events, cuts.starts, cuts.lengths)
    masks = draw_masks(batch.lengths, batch.page.shape[1], np.random.default_rng(0))
    answers = targets(events, chunk.following, cuts, batch, masks, SPACE)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        found: dict[str, Tensor] = network(apply_masks(batch, masks), chunk.texts, answers)
    return found


def test_all_losses_are_the_same() -> None:
    both = [losses("cpu", packed) for packed in (True, False)]
    torch.testing.assert_close(*both, atol=1e-5, rtol=1e-5)


def attend(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, grad: Tensor) -> list[Tensor]:
    """What the kernels are for, session by session: the result, and the gradients of what goes in.

    Written out, because there is no autograd inside an operation.
    """
    found = []
    for start, end in itertools.pairwise(offsets.tolist()):
        q, k, v, g = (part[start:end].transpose(0, 1).float() for part in (query, key, value, grad))
        scale = q.shape[-1] ** -0.5
        share = F.softmax(q @ k.mT * scale, dim=-1)
        of_share = g @ v.mT
        of_score = share * (of_share - (of_share * share).sum(-1, keepdim=True)) * scale
        found.append((share @ v, of_score @ k, of_score.mT @ q, share.mT @ g))
    return [torch.cat(parts, dim=1).transpose(0, 1).to(query.dtype) for parts in zip(*found, strict=True)]


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As on CUDA, but the kernel's arithmetic is done here; filled with what is called."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    calls: list[str] = []

    def check(query: Tensor, start_q: Tensor, start_k: Tensor, most_q: int, most_k: int) -> None:
        assert query.dtype == torch.bfloat16
        assert query.stride(-1) == 1
        assert start_q.dtype == torch.int32
        assert torch.equal(start_q, start_k)
        assert (start_q[0], start_q[-1]) == (0, len(query))
        assert start_q.diff().max() <= most_q == most_k

    def forward(query: Tensor, key: Tensor, value: Tensor, *how: Any) -> tuple[Tensor, Tensor, Tensor]:
        check(query, *how[:4])
        calls.append("forward")
        sums = torch.zeros(query.shape[1], len(query))
        return attend(query, key, value, how[0], value)[0], sums, torch.zeros(2, dtype=torch.uint64)

    def backward(
        grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, sums: Tensor, *how: Any
    ) -> tuple[Tensor, ...]:
        check(query, *how[:4])
        calls.append("backward")
        return tuple(attend(query, key, value, how[0], grad)[1:])

    varlen._varlen_attn.register_kernel("cpu", forward)
    varlen._varlen_attn_backward.register_kernel("cpu", backward)
    monkeypatch.setattr(packed_module, "_has_kernel", lambda query: query.dtype == torch.bfloat16)
    return calls


def test_the_kernel_is_called_as_it_asks_to_be(model: SessionModel, kernel_calls: list[str]) -> None:
    """Forward and backward in half precision; the results are those of padded sessions, roughly."""
    lengths = [1, 9, MOST, 1, 3]
    with torch.autocast("cpu", torch.bfloat16):
        packed, padded = (outputs(model, lengths, packed) for packed in (True, False))
    assert kernel_calls == ["forward"] * CONFIG.layers + ["backward"] * CONFIG.layers
    for of_packed, of_padded in zip([*packed[:2], *packed[2]], [*padded[:2], *padded[2]], strict=True):
        assert (of_packed - of_padded).norm() <= 0.02 * of_padded.norm() + 1e-6


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_compiled_once_for_batches_of_all_shapes(
    model: SessionModel, packed: bool, half: bool, kernel_calls: list[str]
) -> None:
    """No graph break, no compilation for each new shape, and the same numbers."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model.hidden, dynamic=True, fullgraph=True, backend=backend)
    rng = np.random.default_rng(0)
    for sessions, most in [(7, 5), (3, 64), (30, 9), (12, 33), (5, 20)]:
        lengths = rng.integers(1, most, sessions, endpoint=True).tolist()
        packing = packing_of(np.array(lengths), max(lengths), torch.device("cpu")) if packed else None
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found, expected = (of(*inputs(lengths), packing)[1] for of in (compiled, model.hidden))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert len(graphs) == 1
    assert bool(kernel_calls) == (packed and half)


def test_a_cpu_and_a_gru_train_padded() -> None:
    assert not can_pack(CONFIG)
    assert not can_pack(CONFIG.model_copy(update={"device": "cuda", "cell": "gru"}))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_packed_equals_padded() -> None:
    if not can_pack(CONFIG.model_copy(update={"device": "cuda"})):
        pytest.skip("this GPU or this torch has no kernel for it")
    packed, padded = (losses("cuda", packed) for packed in (True, False))
    for name, loss in packed.items():
        torch.testing.assert_close(loss.float(), padded[name].float(), atol=0.02, rtol=0.02, msg=name)
