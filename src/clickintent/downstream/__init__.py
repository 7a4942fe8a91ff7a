"""What the representations are worth: conversion and homepage tiles, by the same head for every method.

Each method is one feature matrix over the same sessions. Train before the split, test after it; the
head, its parameters and its budget are the same for all (see ``head``), so that differences come from
the representation. Every figure comes with a bootstrap interval (see ``metrics``).
"""

from clickintent.downstream.conversion import Oracle, Outcomes, account_outcomes, evaluate_conversion
from clickintent.downstream.features import FeatureSet, PageCounts, align, concatenate, evening_features
from clickintent.downstream.prefixes import evaluate_prefixes
from clickintent.downstream.slates import Slates, latest_session, read_slates
from clickintent.downstream.splits import Split, temporal_split
from clickintent.downstream.tiles import evaluate_tiles

#: The representations that are compared; results use these names.
METHODS = ("page_counts", "embedding", "llm_labels", "student_labels", "embedding_page_counts")

__all__ = [
    "METHODS",
    "FeatureSet",
    "Oracle",
    "Outcomes",
    "PageCounts",
    "Slates",
    "Split",
    "account_outcomes",
    "align",
    "concatenate",
    "evaluate_conversion",
    "evaluate_prefixes",
    "evaluate_tiles",
    "evening_features",
    "latest_session",
    "read_slates",
    "temporal_split",
]
