"""Robots that say so: by the user agent, as the ``crawler-user-agents`` list knows it.

The list (MIT licence) has some 1,500 patterns, nearly all of them plain words: crawlers, previews, monitors,
and libraries that no person browses with. It counts okhttp among them, which the events of Android apps may
come with: ask about web traffic only. Robots that claim to be browsers are for ``bots`` to find.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

import crawleruseragents  # type: ignore[import-untyped]

_SHORTEST = 3  # characters; ``-`` is how logs write none
_HEAD = 3  # characters of a word that it is looked up by
_ESCAPED = re.compile(r"\\(\W)")
_SYNTAX = re.compile(r"[\\\[\](){}|*+?^$.]")

#: Those the list does not have: whatever calls itself a robot (Cubot makes telephones), and bare clients.
_OTHERS = r"(?i:(?<!cu)bot\b|crawler\b|spider\b)|^(?:Java|PostmanRuntime)/|^Ruby$"


@lru_cache(maxsize=100_000)
def declared_bot(user_agent: str) -> bool:
    """Whether a user agent names a robot. Nothing, or next to nothing, is unknown and names none."""
    if len(user_agent) < _SHORTEST:
        return False
    words, others = _known()
    for at in range(len(user_agent) - _HEAD + 1):
        for word in words.get(user_agent[at : at + _HEAD], ()):
            if user_agent.startswith(word, at):
                return True
    return others.search(user_agent) is not None


@cache
def _known() -> tuple[dict[str, tuple[str, ...]], re.Pattern[str]]:
    """The words of the list by their first characters, and its other patterns as one.

    Trying 1,500 alternatives at every character, as one expression of them would, takes a quarter of a
    millisecond; looking up takes a tenth of that.
    """
    words: dict[str, tuple[str, ...]] = {}
    others = [_OTHERS]
    for crawler in crawleruseragents.CRAWLER_USER_AGENTS_DATA:
        pattern = crawler["pattern"]
        word = _ESCAPED.sub(r"\1", pattern)
        if len(word) < _HEAD or _SYNTAX.search(_ESCAPED.sub("", pattern)):
            others.append(pattern)
        else:
            words[word[:_HEAD]] = (*words.get(word[:_HEAD], ()), word)
    return words, re.compile("|".join(f"(?:{pattern})" for pattern in others))
