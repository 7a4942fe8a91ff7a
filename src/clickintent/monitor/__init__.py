"""Drift: whether what people do has moved away from what the models were trained on.

See ``docs/monitoring.md``. ``find_drift`` is a function from tables to what was found; nothing here touches
the disk.
"""

from __future__ import annotations

from clickintent.monitor.drift import Intents, find_drift
from clickintent.monitor.measures import Fourier, jensen_shannon, mmd2, psi
from clickintent.monitor.result import Compared, Detail, Drift, Week, Window

__all__ = [
    "Compared",
    "Detail",
    "Drift",
    "Fourier",
    "Intents",
    "Week",
    "Window",
    "find_drift",
    "jensen_shannon",
    "mmd2",
    "psi",
]
