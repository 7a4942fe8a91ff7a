"""What the student is compared with in ``labels.py``: each learns soft targets and gives probabilities."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import torch
from scipy import sparse
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional as F

from clickintent.downstream import PageCounts
from clickintent.downstream.features import Matrix
from clickintent.encoder import storage
from clickintent.encoder.batches import bucket
from clickintent.encoder.features import flatten, pad
from clickintent.encoder.network import Network
from clickintent.taxonomy.distill import split
from labels_data import LabelData

_L2 = 1e-5
_ROUNDS, _PATIENCE = 150, 10
_EPOCHS, _LEARNING_RATE = 8, 1e-3
#: Confidences of the past's and the test's rows → (probabilities of the held-out past, of the test rows).
Rival = Callable[[LabelData, np.ndarray], tuple[np.ndarray, np.ndarray]]


def logistic(data: LabelData, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression on the embedding."""
    rows = split(len(data.past), data.seed)
    x = data.embeddings
    scale = x[data.past[rows.train]].std(axis=0)
    return _logistic(x / np.where(scale > 1e-6, scale, 1.0), data, targets)


def page_counts(data: LabelData, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression on log page counts: what a team has without an embedding."""
    rows = split(len(data.past), data.seed)
    counts = PageCounts.fit(data.sessions.take(data.past[rows.train])).transform(data.sessions)
    return _logistic(counts.log1p().tocsr(), data, targets)


def _logistic(matrix: Matrix, data: LabelData, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = split(len(data.past), data.seed)
    ones = np.ones((len(data.embeddings), 1), np.float32)
    x = sparse.hstack([matrix, ones], format="csr") if sparse.issparse(matrix) else np.hstack([matrix, ones])
    fitted, wanted = x[data.past[rows.train]], targets[data.past[rows.train]].astype(np.float64)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(x.shape[1], -1)
        z = fitted @ weights
        value = (np.logaddexp(0, z) - wanted * z).sum() / len(wanted) + _L2 / 2 * (weights**2).sum()
        slope = fitted.T @ (1 / (1 + np.exp(-z)) - wanted) / len(wanted) + _L2 * weights
        return float(value), np.asarray(slope).ravel()

    start = np.zeros(x.shape[1] * targets.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 150}).x
    weights = found.reshape(x.shape[1], -1)
    held, test = (x[rows_] @ weights for rows_ in (data.past[rows.choose], data.test))
    return 1 / (1 + np.exp(-held)), 1 / (1 + np.exp(-test))


def boosted(data: LabelData, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """LightGBM on the embedding, one for each intent, stopped on the held-out past."""
    rows = split(len(data.past), data.seed)
    train, choose = data.past[rows.train], data.past[rows.choose]
    given = {
        "objective": "cross_entropy", "learning_rate": 0.1, "num_leaves": 15, "min_data_in_leaf": 40,
        "feature_fraction": 0.5, "lambda_l2": 5.0, "max_bin": 63, "num_threads": 1, "seed": data.seed,
        "verbosity": -1, "deterministic": True, "force_col_wise": True,
    }  # fmt: skip
    held, test = [], []
    whole = lightgbm.Dataset(data.embeddings[train], params=given, free_raw_data=False).construct()
    for intent in range(targets.shape[1]):
        whole.set_label(targets[train, intent])
        watched = lightgbm.Dataset(data.embeddings[choose], targets[choose, intent], reference=whole)
        stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = lightgbm.train(given, whole, _ROUNDS, valid_sets=[watched], callbacks=[stop])
        held.append(model.predict(data.embeddings[choose]))
        test.append(model.predict(data.embeddings[data.test]))
    return np.column_stack(held), np.column_stack(test)


class _FineTuned(nn.Module):
    def __init__(self, network: Network, intents: int) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Sequential(nn.Linear(network.session.project.out_features, 256), nn.ReLU())
        self.out = nn.Linear(256, intents)

    def forward(self, vector: Tensor) -> Tensor:
        found: Tensor = self.out(self.head(vector))
        return found


def fine_tuned(data: LabelData, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pretrained encoder and a head, trained together on the labels, all weights free."""
    torch.manual_seed(data.seed)
    torch.set_num_threads(1)
    rows = split(len(data.past), data.seed)
    train, choose = data.past[rows.train], data.past[rows.choose]
    folder = data.config.workspace.parents[1] / "encoder"
    artifact = storage.load(folder)
    flat = flatten(data.sessions, last=artifact.config.max_events)
    events = artifact.space.encode(flat)
    network = Network(artifact.config, artifact.space)
    weights = {name: torch.from_numpy(value.copy()) for name, value in artifact.weights.items()}
    network.load_state_dict(weights)
    texts = network.text.prepare(flat.texts)
    model = _FineTuned(network, targets.shape[1])
    mean = np.clip(targets[train].mean(axis=0), 1e-4, 1 - 1e-4)
    model.out.bias.data = torch.from_numpy(np.log(mean / (1 - mean))).float()
    wanted = torch.from_numpy(targets)
    groups: list[dict[str, Any]] = [
        {"params": [*network.parameters()], "lr": _LEARNING_RATE / 2},
        {"params": [*model.head.parameters(), *model.out.parameters()]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=_LEARNING_RATE, weight_decay=0.01)
    rng = np.random.default_rng(data.seed)

    def logits(taken: np.ndarray) -> Tensor:
        batch = pad(events, events.offsets[taken], events.lengths[taken])
        found: Tensor = model(network.hidden(batch, texts)[1])
        return found

    def predict(taken: np.ndarray) -> np.ndarray:
        model.eval()
        out = np.zeros((len(taken), targets.shape[1]), np.float32)
        with torch.inference_mode():
            for part in bucket(events.lengths[taken], 16_384, np.random.default_rng(0)):
                out[part] = logits(taken[part]).sigmoid().numpy()
        return out

    best, kept = np.inf, (predict(choose), predict(data.test))
    for _ in range(_EPOCHS):
        model.train()
        for part in bucket(events.lengths[train], 4096, rng):
            taken = train[part]
            loss = F.binary_cross_entropy_with_logits(logits(taken), wanted[taken])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        held = predict(choose)
        clipped, true = np.clip(held, 1e-7, 1 - 1e-7), targets[choose]
        value = -float(np.mean(true * np.log(clipped) + (1 - true) * np.log(1 - clipped)))
        if value < best:
            best, kept = value, (held, predict(data.test))
    return kept


RIVALS: dict[str, Rival] = {
    "page counts + logistic regression": page_counts,
    "logistic regression": logistic,
    "LightGBM": boosted,
    "fine-tuned encoder": fine_tuned,
}
