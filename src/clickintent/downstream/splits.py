"""Train on the past, test on the future."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clickintent.errors import EmptyInputError


@dataclass(frozen=True)
class Split:
    """Masks over the same rows. Rows whose label was not yet known at ``at`` are in neither."""

    train: np.ndarray  # (n,) bool
    test: np.ndarray  # (n,) bool
    at: int  # µs since 1970 UTC

    def within(self, rows: np.ndarray) -> Split:
        """The split of a subset; ``rows`` is a mask or an index of the rows kept."""
        return Split(self.train[rows], self.test[rows], self.at)


def temporal_split(
    times: np.ndarray, at: int | None = None, test_share: float = 0.3, embargo_us: int = 0
) -> Split:
    """Split rows at a point in time.

    Args:
        times: (n,) int64 µs: when each row's prediction is made.
        at: rows from here on test. If not given, the quantile of ``times`` that leaves ``test_share``
            of the rows to test.
        embargo_us: how long after its prediction a label becomes known. A training row whose label was
            not yet known at ``at`` is left out: nobody could have trained on it.

    Raises:
        EmptyInputError: if there are no rows.
    """
    times = np.asarray(times, np.int64)
    if len(times) == 0:
        raise EmptyInputError("temporal split: there are no rows to split.")
    if at is None:
        at = int(np.quantile(times, 1 - test_share, method="higher"))
    return Split(train=(times < at) & (times + embargo_us <= at), test=times >= at, at=at)
