"""What all charts share: looks, and the pieces that they are put together from.

Colours are CSS variables of the page (``var(--c0)``), which the SVG renderer hands through: so one
specification serves light, dark and paper. Data values never become part of an expression or a field name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clickintent.errors import require

Spec = dict[str, Any]
Rows = list[dict[str, Any]]

FONT = (
    'Inter, -apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", '
    '"Helvetica Neue", Arial, sans-serif'
)

CONFIG: Spec = {
    "background": "transparent",
    "font": FONT,
    "padding": 2,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelPadding": 6,
        "gridColor": "var(--rule)",
        "domain": False,
        "ticks": False,
        "labelLimit": 260,
        "labelOverlap": True,
    },
    "axisY": {"labelColor": "var(--ink)", "labelOverlap": False},
    "rule": {"color": "var(--muted)"},
    "text": {"color": "var(--ink)", "fontSize": 12},
}


def altair() -> Any:
    """The module.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    return require("altair", "report")


def chart() -> Any:
    """A chart of the table that ``specify`` is given."""
    return altair().Chart(altair().NamedData("rows"))


def specify(chart: Any, rows: Rows, *, height: int | str) -> Spec:
    """The specification of a chart as wide as its place, with its table."""
    # Its structure never depends on data, and the tests draw every chart: so it is not validated each time.
    spec: Spec = chart.properties(width="container", height=height).to_dict(validate=False)
    spec.pop("$schema", None)  # an address; the page names the grammar itself
    spec.pop("config", None)
    spec["datasets"] = {"rows": rows}
    spec["autosize"] = {"type": "fit" if height == "container" else "fit-x", "contains": "padding"}
    return spec


def names(field: str, domain: Sequence[str], *, padding: float = 0.5) -> Any:
    """A vertical axis of names in the given order."""
    alt = altair()
    scale = alt.Scale(domain=list(dict.fromkeys(domain)), paddingInner=padding)
    return alt.Y(field, type="nominal", title=None, scale=scale, axis=alt.Axis(grid=False))


def colours(field: str, by_value: Mapping[str, str], channel: str = "Color") -> Any:
    """Colours (CSS variables without ``--``) by value."""
    alt = altair()
    scale = alt.Scale(domain=list(by_value), range=[f"var(--{name})" for name in by_value.values()])
    return getattr(alt, channel)(field, type="nominal", legend=None, scale=scale)


def tooltip(**fields: str) -> list[Any]:
    """Field → title."""
    return [altair().Tooltip(field, type="nominal", title=title) for field, title in fields.items()]


def focus(test: str, *, on: float, off: float) -> Any:
    """Opacity ``on``, or ``off`` for what fails the test when the signal ``focus`` is set."""
    alt = altair()
    return alt.condition(f"focus === '' || {test}", alt.value(on), alt.value(off))


def signal(name: str, value: str) -> Any:
    """A parameter that the page's buttons set."""
    return altair().param(name=name, value=value)


def text(field: str) -> Any:
    return altair().Text(field, type="nominal")


def intervals(base: Any, *, y: Any, x: Mapping[str, Any], colour: Any, tips: list[Any]) -> list[Any]:
    """Layers of a dot plot: a line from ``low`` to ``high``, and a point at ``value``."""
    alt = altair()
    shared = {"y": y, "color": colour, "tooltip": tips}
    return [
        base.mark_rule(strokeWidth=3, strokeCap="round").encode(x=alt.X("low", **x), x2="high", **shared),
        base.mark_point(size=90, filled=True, opacity=1).encode(x=alt.X("value", **x), **shared),
    ]
