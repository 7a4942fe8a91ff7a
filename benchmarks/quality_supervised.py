"""The ceiling of ``quality.py``: our Transformer, trained on the labels of one task instead of none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clickintent.config import EncoderConfig
from clickintent.encoder.batches import bucket
from clickintent.encoder.features import Encoded, FeatureSpace, Ints, flatten, pad
from clickintent.encoder.model import SessionModel
from clickintent.encoder.text_modules import text_module
from quality_data import Task

EPOCHS, PATIENCE = 12, 3


class _Classifier(nn.Module):
    def __init__(
        self, config: EncoderConfig, space: FeatureSpace, texts: Sequence[str], classes: int
    ) -> None:
        super().__init__()
        self.text = text_module(config, ())
        self.texts = self.text.prepare(texts)
        self.session = SessionModel(config, space)
        self.head = nn.Linear(config.dim, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, events: Encoded, rows: Ints, offset: Tensor) -> Tensor:
        batch = pad(events, events.offsets[rows], events.lengths[rows])
        distinct, index = np.unique(batch.text, return_inverse=True)
        words = self.text(self.texts, torch.from_numpy(distinct))
        vector = self.session(
            torch.from_numpy(batch.page),
            torch.from_numpy(batch.event_type),
            torch.from_numpy(batch.numeric),
            F.embedding(torch.from_numpy(index.reshape(batch.text.shape)), words),
            torch.from_numpy(batch.lengths),
        )
        return offset + self.head(vector)


def probabilities(task: Task, config: EncoderConfig, seed: int) -> np.ndarray:
    """Of the task's test rows, (rows, classes): early stopping on the last fifth of the training rows."""
    torch.manual_seed(seed)
    flat = flatten(task.seen, last=config.max_events)
    space = FeatureSpace.fit(flat, task.floor, min_page_count=config.min_page_count)
    events = space.encode(flat)
    offset = torch.from_numpy(task.offset.astype(np.float32))
    target = torch.from_numpy(task.target.astype(np.int64))
    held = len(task.train) // 5
    fitted, watched = task.train[: len(task.train) - held], task.train[len(task.train) - held :]
    model = _Classifier(config, space, flat.texts, task.offset.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    rng = np.random.default_rng(seed)
    best, best_state, waited = np.inf, model.state_dict(), 0
    for _ in range(EPOCHS):
        model.train()
        for part in bucket(events.lengths[task.row[fitted]], 4096, rng):
            rows = fitted[part]
            loss = F.cross_entropy(model(events, task.row[rows], offset[rows]), target[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        found = _predict(model, events, task, watched, offset)
        value = -float(np.log(np.clip(found[np.arange(len(watched)), task.target[watched]], 1e-9, 1)).mean())
        if value < best:
            best, waited = value, 0
            best_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        elif (waited := waited + 1) >= PATIENCE:
            break
    model.load_state_dict(best_state)
    return _predict(model, events, task, task.test, offset)


def _predict(model: _Classifier, events: Encoded, task: Task, rows: Ints, offset: Tensor) -> np.ndarray:
    model.eval()
    out = np.zeros((len(rows), task.offset.shape[1]))
    with torch.inference_mode():
        for part in bucket(events.lengths[task.row[rows]], 16_384, np.random.default_rng(0)):
            taken = rows[part]
            out[part] = model(events, task.row[taken], offset[taken]).softmax(dim=1).numpy()
    return out
