"""The model card beside a saved encoder: what it was trained on, how well it does, what it is not for.

For the people who have to approve or maintain it. It holds counts and dates, and no value of the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clickintent._version import __version__

if TYPE_CHECKING:
    from clickintent.encoder.storage import Artifact

_OBJECTIVE = """\
Self-supervised; no label is read. A session is cut after a random event. From the events up to the cut
alone, the embedding has to tell the next event (page, type, waiting time), the pages of the rest of the
session, those of the visitor's next session, and the pages and numbers of what was seen; from masked
events, what was masked. Sessions that start in the last 5 % of the time order were held out from training
and are measured below."""

_LIMITS = """\
- It knows sessions like those it was trained on. Pages that training did not see are known by their text
  alone; a relaunch of the site calls for a new training.
- Only the last {max_events} events of a session are seen.
- The numbers of a vector are in the order of how much they vary: its first half can be used alone.
- Vectors of another version are not comparable, unless mapped: `embed(sessions, space=VERSION)`. Neither
  should those of the float32 and the int8 model be mixed.
- An embedding is made of a person's behaviour and can give part of it away. Protect and delete it as you
  do the sessions. `encoder.json` holds pages and event types as the privacy layer wrote them. To forget a
  person does not change an encoder that was trained before: train it anew within your retention period.
- Not meant as the sole ground of a decision on a person, such as one about credit or a price."""


def card(artifact: Artifact) -> str:
    """Markdown."""
    metrics, config = artifact.metrics, artifact.config
    parts = [
        f"# Session encoder {artifact.version}",
        f"Turns a web session into {config.dim} numbers. Written by clickintent {__version__}.",
        "```python\nfrom clickintent import SessionEncoder\n\n"
        'encoder = SessionEncoder.load("THIS FOLDER")\n'
        f"vectors = encoder.embed(sessions)  # (n, {config.dim}) float32\n```",
        "## Data",
        _table(
            {
                "sessions to learn from": metrics.get("sessions"),
                "their events": metrics.get("events"),
                "sessions seen while training, each time counted": metrics.get("sessions_seen"),
                "sessions held out": metrics.get("held_out_sessions"),
                "first start of a session": metrics.get("first_start"),
                "last start of a session": metrics.get("last_start"),
                "pages known": metrics.get("pages"),
                "event types known": metrics.get("event_types"),
            }
        ),
        "## Model and training",
        _OBJECTIVE,
        _table(
            {
                "cell": config.cell,
                "layers × width": f"{config.layers} × {config.width}",
                "text of pages": "a sentence model" if config.text not in ("none", "hashed") else config.text,
                "parameters": metrics.get("parameters"),
                "epochs": len(metrics.get("epochs") or []),
                "seed": artifact.seed,
                "training, seconds": metrics.get("seconds"),
            }
        ),
        "## Measured",
        _table(_measured(metrics)),
        "## Limits",
        _LIMITS.format(max_events=config.max_events),
    ]
    return "\n\n".join(parts) + "\n"


def _measured(metrics: dict[str, Any]) -> dict[str, Any]:
    next_page, int8 = metrics.get("next_page") or {}, metrics.get("int8") or {}
    rows = {
        f"next page, recall@{k} (best count: {_shown(next_page.get(f'floor_recall_at_{k}'))})": next_page.get(
            f"recall_at_{k}"
        )
        for k in (1, 5)
    }
    rows["sessions that was measured on"] = next_page.get("sessions")
    rows["int8 model"] = "written" if int8.get("accepted") else "not written: it would change too much"
    rows["its least cosine to float32"] = int8.get("min_cosine")
    for version, found in (metrics.get("alignments") or {}).items():
        if "explained" in found:
            rows[f"variance explained by the map into the space of {version}"] = found["explained"]
        else:
            rows[f"map into the space of {version}"] = f"through {found['through']}"
    return rows


def _table(rows: dict[str, Any]) -> str:
    lines = [f"| {name} | {_shown(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
