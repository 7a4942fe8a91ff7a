"""The simple rivals of ``quality.py``, each: sessions seen → features; fitted on the past alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from clickintent.downstream import PageCounts, evening_features
from clickintent.downstream.features import Matrix
from quality_data import Data

Method: TypeAlias = Callable[[pa.Table], Matrix]


def page_counts(data: Data, _seed: int) -> Method:
    """How often each page was seen."""
    return PageCounts.fit(data.past).transform


def evening(data: Data, _seed: int) -> Method:
    """Counts, dwell, order, furthest and last page, hour, device: a good data scientist's evening."""
    return lambda seen: evening_features(seen, fit_on=data.past)


def last_page(data: Data, _seed: int) -> Method:
    """The last page seen, one-hot."""
    counts = PageCounts.fit(data.past)
    known = {page: i for i, page in enumerate(counts.pages)}

    def features(seen: pa.Table) -> Matrix:
        pages = [known.get(events[-1]["page"], -1) for events in seen["events"].to_pylist()]
        column = np.array(pages)
        row = np.flatnonzero(column >= 0)
        ones = np.ones(len(row), np.float32)
        return sparse.csr_matrix((ones, (row, column[row])), shape=(seen.num_rows, max(len(known), 1)))

    return features


def tfidf_svd(data: Data, seed: int, dim: int = 64) -> Method:
    """TF-IDF over pages, SVD to 64 numbers: latent semantic analysis."""
    counts = PageCounts.fit(data.past)
    known = counts.transform(data.past)
    weights = TfidfTransformer(sublinear_tf=True).fit(known)
    width = min(dim, known.shape[1] - 1)
    reduce = TruncatedSVD(width, random_state=seed).fit(weights.transform(known))
    return lambda seen: reduce.transform(weights.transform(counts.transform(seen))).astype(np.float32)
