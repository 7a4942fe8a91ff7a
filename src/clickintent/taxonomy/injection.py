"""Text of a session that speaks to the language model instead of telling what the visitor did.

Titles, search terms and campaigns can be written by anybody. Known ways of giving orders to a model are
recognised here, after undoing look-alike and invisible characters, and such a text is withheld: what is not
sent cannot be obeyed. New ways will be found; what they can do is bounded by the checks of every answer.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

WITHHELD = "[instruction]"

_ASK = r"(?:print|reveal|repeat|show|output|quote|display|disclose|tell|write|return|leak)"
_FORGET = (
    r"(?:ignor\w*|disregard|forget|override|bypass|overrule|vergiss|vergessen|missacht\w*|olvid\w*|oubli\w*"
    r"|dimentic\w*)"
)
_RULES = (
    r"(?:instruction|prompt|rule|direction|guideline|system message|anweisung|vorgabe|instruccion|istruzion"
    r"|consigne)"
)
_TAGS = r"(?:session|system|user|assistant|instructions?|taxonomy|prompt|data|tool)"

_ORDERS = re.compile(
    "|".join(
        (
            rf"\b{_FORGET}\b.{{0,60}}\b{_RULES}",
            rf"\b{_FORGET}\b.{{0,20}}\b(?:everything|all|anything) (?:above|before|prior|previous|you)",
            rf"\b{_ASK}\b.{{0,40}}\b(?:system|hidden|initial|original|your|the above)\s+{_RULES}",
            r"\b(?:new|updated|real|following) instructions?\s*:",
            r"\b(?:label|classify|annotate|tag|mark|assign)\w*\b.{0,30}\b(?:everything|(?:all|every|each)\b.{0,20}\bsession)",
            r"\b(?:label|classify|annotate|mark|answer|respond|reply|output|assign)\w*\b.{0,60}\bi\d{2,3}\b",
            r"\byou are (?:now )?(?:an?|the) .{0,30}\b(?:assistant|ai|model|chatbot|bot)\b",
            rf"[<‹]\s*/?\s*{_TAGS}\b",
            r"<\|?\s*(?:im_start|im_end|endoftext|eot_id|start_header_id)|‹\|.{0,30}\|›|\[/?inst\]|\[/?sys\]",
            r"(?:^|[.!?:;]\s*)(?:system|assistant)\s*:",
            r"""["'“”`](?:sessions?|intents?|confidence|evidence|merges|remove)["'“”`]\s*:""",
        )
    )
)
#: Cyrillic and Greek letters that look like Latin ones.
_LOOK_ALIKE = str.maketrans("аеіорсухѕјһԁӏαειοκνρτυχ", "aeiopcyxsjhdlaeiokvptux")


@lru_cache(maxsize=50_000)
def is_instruction(text: str) -> bool:
    """Whether a text reads as an order to a language model, or as a piece of a prompt or an answer."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    letters = "".join(c for c in decomposed if not unicodedata.category(c).startswith(("M", "C")))
    plain = " ".join(letters.translate(_LOOK_ALIKE).split())
    spaced = re.sub(r"(?<=\b\w)[ ._-](?=\w\b)", "", plain)  # i g n o r e
    return bool(_ORDERS.search(plain) or _ORDERS.search(re.sub(r"[_*~`|+-]+", " ", spaced)))
