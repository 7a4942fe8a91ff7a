"""Numbers and names as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

_THIN = "\u202f"
MINUS = "−"

METRICS = {
    "micro_f1": ("Micro F1", "share of sessions whose outcome, “none” included, is guessed right"),
    "micro_f1_products": ("Micro F1 of products", "F1 over the products alone, “none” left out"),
    "macro_f1": ("Macro F1", "mean F1, every outcome counting the same"),
    "auc": ("AUC", "how often a session that converts is ranked above one that does not; 0.5 is chance"),
    "log_loss": ("Log loss", "how wrong the stated probabilities are; lower is better"),
    "macro_recall_at_1": (
        "Macro recall@1",
        "how often the tapped tile is ranked first, every tile counting the same",
    ),
    "recall_at_1": ("Recall@1", "how often the tapped tile is ranked first"),
}
LOWER_IS_BETTER = frozenset({"log_loss"})

_METHODS = {
    "prior": "No features",
    "popularity": "No features (popularity)",
    "page_counts": "Page counts",
    "evening": "Hand-made features",
    "llm_labels": "{teacher} labels",
    "student_labels": "Student labels",
    "embedding": "Embedding",
    "embedding_page_counts": "Embedding + page counts",
    "oracle": "Oracle (true intent)",
}
#: How methods are ordered wherever they stand together.
METHOD_ORDER = tuple(_METHODS)

_LINKS = {
    "in_session": "Login in the session",
    "before": "Earlier login",
    "after": "Later login",
    "ambiguous": "Several accounts",
    "none": "No account known",
}


def method_name(name: str, *, teacher: str) -> str:
    """``teacher``, LLM or Keyword: who made the labels that the student learned from."""
    return _METHODS.get(name, name.replace("_", " ").capitalize()).format(teacher=teacher)


def link_name(link: str) -> str:
    return _LINKS.get(link, link.replace("_", " "))


def metric_name(metric: str) -> str:
    return METRICS[metric][0] if metric in METRICS else metric.replace("_", " ")


def metric_in_text(metric: str) -> str:
    """A metric's name inside a sentence."""
    name = metric_name(metric)
    return name if name.isupper() else name[:1].lower() + name[1:]


def number(value: Any) -> str:
    """A count with thousands separators; an em dash for nothing."""
    if not is_number(value):
        return "—"
    return f"{value:,.0f}".replace("-", MINUS)


def percent(share: Any, digits: int | None = None) -> str:
    """A share (0 to 1) in per cent, with more digits the smaller it is."""
    if not is_number(share):
        return "—"
    value = 100 * share
    if digits is None:
        size = abs(value)
        digits = 0 if size >= 10 or size == 0 else 1 if size >= 0.95 else 2
    if 0 < value < 0.005 and digits == 2:
        return f"< 0.01{_THIN}%"
    return f"{value:.{digits}f}{_THIN}%".replace("-", MINUS)


def score(value: Any, digits: int = 3) -> str:
    return f"{value:.{digits}f}".replace("-", MINUS) if is_number(value) else "—"


def signed(value: Any, digits: int = 3) -> str:
    if not is_number(value):
        return "—"
    text = f"{value:+.{digits}f}"
    return text.replace("-", MINUS) if float(text) else f"±{abs(float(text)):.{digits}f}"


def day(us: int) -> str:
    """A day in UTC, such as 2 March 2026."""
    at = datetime.fromtimestamp(us / 1e6, UTC)
    return f"{at.day} {at:%B %Y}"


def days(first_us: int, last_us: int) -> str:
    """A range of days without repeating what is the same."""
    first, last = (datetime.fromtimestamp(us / 1e6, UTC) for us in (first_us, last_us))
    if first.date() == last.date():
        return day(first_us)
    if first.year != last.year:
        return f"{day(first_us)} to {day(last_us)}"
    if first.month != last.month:
        return f"{first.day} {first:%B} to {day(last_us)}"
    return f"{first.day} to {day(last_us)}"


def seconds(value: Any) -> str:
    if not is_number(value):
        return "—"
    if value < 90:
        return f"{value:.3g}{_THIN}s"
    return f"{value / 60:.1f}{_THIN}min"


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
