"""The page: tables and sentences through the template, charts beside them, everything inside one file.

Nothing is loaded from anywhere. The browser is told so by a Content-Security-Policy, which also allows
only the two scripts and the one style sheet written here, by their hashes; charts are drawn by Vega's
expression interpreter, so that not even ``eval`` is needed. Whatever comes from data is escaped by
Jinja, or stands in a JSON block in which no ``<`` survives.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import unicodedata
from typing import Any

import jinja2
from markupsafe import Markup

from clickintent.errors import require
from clickintent.report import content, vega, words
from clickintent.report.data import ReportData

_VEGA_LITE = "6.4"


def build(data: ReportData) -> str:
    """The report as one offline HTML file.

    Raises:
        MissingDependencyError: if Altair or vl-convert is not installed.
    """
    page = content.assemble(data)
    library, boot, style = _bundle(), _template("page.js"), _template("page.css")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(library)} {_hash(boot)}",
            f"style-src {_hash(style)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            policy=policy,
            library=Markup(library),
            boot=Markup(boot),
            style=Markup(style),
            specs=_json(page.specs),
            config=_json(vega.CONFIG),
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clickintent.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    environment.filters |= {
        "number": words.number,
        "percent": words.percent,
        "score": words.score,
        "signed": words.signed,
        "seconds": words.seconds,
    }
    environment.globals["legend_items"] = _legend_items
    return environment


def _legend_items(page: content.Page) -> list[tuple[str, str, str, str]]:
    return [(i.id, i.name, i.colour, words.percent(i.share)) for i in page.legend]


def _clean(value: Any) -> Any:
    """Text without control and direction characters, which could make it look like something else."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "".join(c for c in value if c in "\n\t" or unicodedata.category(c) not in _UNSEEN)
    return value


_UNSEEN = ("Cc", "Cf", "Cs")


@functools.cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, without a network.

    Raises:
        MissingDependencyError: if vl-convert is not installed.
    """
    convert = require("vl_convert", "report")
    return _inline_safe(convert.javascript_bundle(vl_version=_VEGA_LITE))


@functools.cache
def _template(name: str) -> str:
    source = _environment().loader.get_source(_environment(), name)[0]  # type: ignore[union-attr]
    return _inline_safe(source)


def _inline_safe(text: str) -> str:
    """Line ends as HTML parsers hand them on (the hash depends on it), and no early end of the element."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: Any) -> Markup:
    """JSON that cannot end the element that it stands in, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
