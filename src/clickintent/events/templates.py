"""Page templates as paths of segments, and the ones that a person has written down."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache


def segments(page: str) -> tuple[str, ...]:
    """The segments of a page template; a query that was allowed to stay is the last one.

    ``/search?type=loan`` → ``("search", "?type=loan")``. The name of a screen is one segment.
    """
    path, question, query = page.partition("?")
    parts = [part for part in path.split("/") if part] if page.startswith("/") else [path]
    return (*parts, f"?{query}") if question else tuple(parts)


def page(parts: Sequence[str], *, screen: bool = False) -> str:
    """The page template of such segments."""
    query = parts[-1] if parts and parts[-1].startswith("?") else ""
    path = "/".join(parts[:-1] if query else parts)
    return (path if screen else f"/{path}") + query


def matching(found: str, templates: Sequence[str]) -> str | None:
    """The first of the templates that the page is an instance of.

    A placeholder such as ``{product}`` stands for one segment, whatever it is; all else must be equal.
    """
    parts = segments(found.partition("?")[0])
    for template in templates:
        pattern = _pattern(template)
        if len(pattern) == len(parts) and all(p is None or p == part for p, part in zip(pattern, parts)):  # noqa: B905
            return template
    return None


@lru_cache(maxsize=10_000)
def _pattern(template: str) -> tuple[str | None, ...]:
    return tuple(None if part.startswith("{") and part.endswith("}") else part for part in segments(template))
