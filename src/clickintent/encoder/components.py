"""The embedding's axes by importance, so that its first numbers can be used alone.

Turning a space changes no distance, and a linear model on all its numbers learns the same. After training the
last layer is therefore turned to the principal components of the training sessions: the first k of 64 numbers
are the best k-dimensional picture of them. It costs nothing at inference.
"""

from __future__ import annotations

import numpy as np
import torch

from clickintent.encoder.features import Floats
from clickintent.encoder.model import SessionModel


def turn_to_components(model: SessionModel, embeddings: Floats) -> None:
    """Turn ``model.project`` to the principal components of ``embeddings`` (n, dim), their mean to zero.

    The heads of the training do not fit the model any more afterwards.
    """
    values = embeddings.astype(np.float64)
    mean = values.mean(axis=0)
    centered = values - mean
    _, axes = np.linalg.eigh(centered.T @ centered)
    axes = axes[:, ::-1]  # the largest first
    # An axis has no direction of its own: its largest entry points up, so that equal data give equal signs.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    turn = torch.from_numpy(axes.T.copy()).to(model.project.weight.dtype)
    with torch.no_grad():
        model.project.weight.copy_(turn @ model.project.weight)
        model.project.bias.copy_(
            turn @ (model.project.bias - torch.from_numpy(mean).to(model.project.bias.dtype))
        )
