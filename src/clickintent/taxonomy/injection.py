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
_IGNORE = r"(?:ignor\w*|disregard|vergiss|vergessen|missacht\w*|olvid\w*|oubli\w*|dimentic\w*)"
_FORGET = rf"(?:{_IGNORE}|forget|override|bypass|overrule)"
_INSTRUCTIONS = r"(?:instruction|prompts?\b|system message|anweisung|vorgabe|instruccion|istruzion|consigne)"
_RULES = r"(?:rule|direction|guideline)"  # a bank has rules, too: which ones are meant must be said
_GIVEN = r"(?:previous|prior|above|earlier|preceding|initial|original|system|hidden)"
_LABEL = r"(?:label|classify|annotate|assign|tag|mark)(?:l?ing|l?ed)?"
#: What may stand between such a verb and an intent's id; "about insuring your Hyundai i20" may not.
_BETWEEN = (
    r"(?:them|it|this|that|these|those|all|every|each|everything|everyone|following|remaining|other|sessions?"
    r"|the|an?|as|with|to|is|be|in|by|only|just|always|intents?|labels?|ids?|of|one|and|must|should|now)"
)
_ID = r"i\d{2,3}\b"
_TAGS = r"(?:session|system|user|assistant|instructions?|taxonomy|prompt|data|tool)"

_ORDERS = re.compile(
    "|".join(
        (
            rf"\b{_IGNORE}\b.{{0,60}}\b{_INSTRUCTIONS}|\b{_IGNORE} (?:the |these |those )?{_RULES}",
            rf"\b{_FORGET}\b.{{0,60}}\b(?:(?:{_GIVEN}|all|any)(?: \w+)?|the|these|your|my) {_INSTRUCTIONS}",
            rf"\b{_FORGET}\b.{{0,60}}\b(?:{_GIVEN}|all|any|your)(?: safety)? {_RULES}",
            rf"\b{_FORGET}\b.{{0,60}}\b(?:{_INSTRUCTIONS}|{_RULES})\w* (?:above|before|so far|you were)\b",
            rf"\b{_FORGET}\b.{{0,20}}\b(?:everything|all|anything) (?:above|before|prior|previous|you)"
            r"(?! (?:know|knew|thought|learned|heard) about)",
            rf"\b{_ASK}\b.{{0,40}}\b(?:system|hidden|initial|original|your|the above) "
            rf"(?:{_INSTRUCTIONS}|{_RULES})",
            r"\b(?:new|updated|real|following) instructions?\s*:",
            rf"\b{_LABEL}\b.{{0,30}}\b(?:all|every|each)\b.{{0,20}}\bsession",
            rf"\b{_LABEL} (?:\w+ )?everything\b(?! as read)",
            rf"\b(?:label|classif|annotat)\w*\b.{{0,60}}\b{_ID}",
            rf"\b{_LABEL}\b.{{0,60}}\b(?:as|with|to|intent)\W+{_ID}",
            rf"\b(?:{_LABEL}|answer|respond|reply|output)\b(?:\W+{_BETWEEN})*\W+{_ID}",
            r"\byou are (?:now )?(?:an?|the) .{0,30}\b(?:assistant|ai|model|chatbot|bot)\b",
            rf"[<‹]\s*/?\s*{_TAGS}\b",
            r"<\|?\s*(?:im_start|im_end|endoftext|eot_id|start_header_id)|‹\|.{0,30}\|›|\[/?inst\]|\[/?sys\]",
            r"(?:^|[.!?:;]\s*)(?:system|assistant)\s*:",
            r"""["'“”`](?:sessions?|intents?|confidence|evidence|merges|remove)["'“”`]\s*:""",
        )
    )
)
#: "Don't forget the rules" asks nobody to forget them.
_REMINDER = re.compile(
    r"\b(?:do not|don['’]?t|never) (?:forget|ignore|disregard)\b|\bno olvid\w*|\bnon dimentic\w*"
    r"|\bn['’]oubli\w*|\b(?:vergessen sie|vergiss) nicht\b"
)
#: Cyrillic and Greek letters that look like Latin ones.
_LOOK_ALIKE = str.maketrans("аеіорсухѕјһԁӏαειοκνρτυχ", "aeiopcyxsjhdlaeiokvptux")


@lru_cache(maxsize=50_000)
def is_instruction(text: str) -> bool:
    """Whether a text reads as an order to a language model, or as a piece of a prompt or an answer."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    letters = "".join(c for c in decomposed if not unicodedata.category(c).startswith(("M", "C")))
    plain = _REMINDER.sub("", " ".join(letters.translate(_LOOK_ALIKE).split()))
    spaced = re.sub(r"(?<=\b\w)[ ._-](?=\w\b)", "", plain)  # i g n o r e
    unmarked = " ".join(re.sub(r"[_*~`|+-]+", " ", spaced).split())
    return bool(_ORDERS.search(plain) or _ORDERS.search(unmarked))
