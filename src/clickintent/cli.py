"""The command line: a thin row of the functions in ``clickintent.pipeline``.

Exit status: 0 done; 1 the work failed, with one line that says why; 2 wrong arguments or configuration;
3 requests to a language model were written to a file and wait for answers; 4 drift was found, and
``drift --fail-on-drift`` asked; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clickintent import events, pipeline
from clickintent._version import __version__
from clickintent.cli_drift import print_drift
from clickintent.cli_keys import keys_app
from clickintent.cli_taxonomy import File, Force, PlanOnly, Show, labels_app, print_plan, taxonomy_app
from clickintent.config import ServeConfig, load_config
from clickintent.errors import AnswersNeededError, ClickintentError, ConfigError, require
from clickintent.progress import console, say
from clickintent.workspace import Metrics

app = App(
    name="clickintent",
    suppress_keyboard_interrupt=False,  # main says how to go on
    version=__version__,
    help="Raw web clickstream in; session embeddings and interpretable intent labels out.",
)
app.command(taxonomy_app)
app.command(labels_app)
app.command(keys_app)

_SHOWN_EVENTS = 12  # of a session, by inspect


@app.command
def demo(
    *, workspace: Path = Path("runs/demo"), sessions: int = 60_000, seed: int = 7, force: Force = False
) -> None:
    """Simulate a bank and run every stage on it.

    Parameters
    ----------
    workspace: Folder for everything that the run makes.
    sessions: Web sessions to simulate, roughly.
    seed: Another number is another bank.
    """
    if sessions < 1:
        raise ConfigError(f"--sessions must be at least 1, not {sessions}.")
    _headline(pipeline.demo(workspace, sessions=sessions, seed=seed, force=force), workspace)
    file = workspace / "simbank" / "clickintent.toml"
    _explorer(workspace, file)
    say(f"To go on, for example: clickintent taxonomy review {file} --by NAME")


@app.command
def run(file: File, *, force: Force = False) -> None:
    """Run every stage, from the raw exports to the report, drift and the explorer."""
    config = load_config(file)
    _headline(pipeline.run(config, force=force), config.workspace)
    _explorer(config.workspace, file)


@app.command
def simulate(file: File, *, force: Force = False) -> None:
    """Write the raw exports of a simulated bank (section [simbank])."""
    pipeline.simulate(load_config(file), force=force)


@app.command
def ingest(file: File, *, force: Force = False) -> None:
    """Read the raw exports into private, checked events and sessions."""
    pipeline.ingest(load_config(file), force=force)


@app.command
def inspect(
    path: Annotated[str, Parameter(help="A raw export: a file, a folder, a glob or a URL.")],
    *,
    reader: Annotated[str | None, Parameter(help="Its format, if it shall not be recognised.")] = None,
    sessions: Annotated[int, Parameter(help="How many sessions to show.")] = 3,
) -> None:
    """Recognise a raw export and show how its first sessions would come out. Keeps nothing."""
    found = events.inspect(path, reader=reader)
    out = Console()
    out.print(f"[bold]{escape(path)}[/]: reader [bold]{found.source.reader}[/]", soft_wrap=True)
    of_events = found.metrics["events"]
    out.print(
        f"{'first rows: ' if found.is_sample else ''}{of_events['read']:,} read = {of_events['events']:,} "
        f"events + {of_events['duplicates']:,} duplicates + {of_events['quarantined']:,} quarantined",
        soft_wrap=True,
    )
    for reason, n in of_events["quarantine_reasons"].items():
        out.print(f"  quarantined {n:,} × {escape(reason)}", soft_wrap=True)
    for column, removed in found.metrics["privacy"]["removed"].items():
        listed = ", ".join(f"{n:,} × {name}" for name, n in removed.items())
        out.print(f"  removed from {column}: {listed}", soft_wrap=True)
    for session in found.shown(sessions):
        out.print(_timeline(session))
    out.print("\nTo read such files, write into clickintent.toml:\n", highlight=False)
    sys.stdout.write(f"{found.toml()}\n")


def _timeline(session: dict[str, Any]) -> Table:
    start = datetime.fromtimestamp(session["start"] / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    robot = f", robot: {session['bot_reason']}" if session["is_bot"] else ""
    title = f"visitor {session['visitor_id']}, {start}, {session['n_events']} events{robot}"
    events = session["events"][:_SHOWN_EVENTS]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    names = ["event_type", "page", *(n for n in ("title", "text") if any(event[n] for event in events))]
    for column in ("after", *names):
        table.add_column(column.replace("_", " "), overflow="fold")
    for event in events:
        gap = "" if event["gap_s"] is None else f"{event['gap_s']:.0f} s"
        table.add_row(gap, *(escape(event[name] or "") for name in names))
    if session["n_events"] > _SHOWN_EVENTS:
        table.add_row("", f"… {session['n_events'] - _SHOWN_EVENTS} more")
    return table


@app.command
def forget(
    file: File,
    *,
    visitor: Annotated[str | None, Parameter(help="A visitor id, raw or as in the tables.")] = None,
    account: Annotated[str | None, Parameter(help="An account id, raw or as in the tables.")] = None,
) -> None:
    """Remove a person from every table of the workspace, and keep them out."""
    if (visitor is None) == (account is None):
        raise ConfigError("give exactly one of --visitor and --account.")
    done = pipeline.forget(load_config(file), visitor=visitor, account=account)
    for name, n in done.rows.items():
        sys.stdout.write(f"{name}: {n:,} rows removed\n")
    if not done.rows.get("events"):
        sys.stdout.write("No event of that id was there. It will be refused from now on.\n")
    for name in done.deleted:
        sys.stdout.write(f"{name}: deleted; it is made again when its stage is run\n")
    if done.learned:
        sys.stdout.write(
            f"{', '.join(done.learned)}: what was learned from all sessions together is not changed; to "
            "learn it without this person, run pretrain, taxonomy draft, label and distill with --force\n"
        )


@app.command
def pretrain(file: File, *, force: Force = False) -> None:
    """Train the session encoder on the sessions before the split."""
    pipeline.pretrain(load_config(file), force=force)


@app.command
def embed(file: File, *, force: Force = False) -> None:
    """Embed every session."""
    pipeline.embed(load_config(file), force=force)


@app.command
def label(file: File, *, plan: PlanOnly = False, show: Show = None, force: Force = False) -> None:
    """Annotate sessions with intents."""
    config = load_config(file)
    if plan or show is not None:
        print_plan(pipeline.plan(config), show)
    else:
        pipeline.label(config, force=force)


@app.command
def distill(file: File, *, force: Force = False) -> None:
    """Train the student on the labels, and label every session with it."""
    pipeline.distill(load_config(file), force=force)


@app.command
def evaluate(file: File, *, force: Force = False) -> None:
    """Measure conversion and tile ranking on the sessions after the split."""
    config = load_config(file)
    pipeline.evaluate(config, force=force)
    _headline(pipeline.metrics(config), config.workspace)


@app.command
def report(file: File, *, force: Force = False) -> None:
    """Write report.html."""
    config = load_config(file)
    pipeline.write_report(config, force=force)
    say(f"report: {config.workspace / 'report.html'}")


@app.command
def drift(
    file: File,
    *,
    fail_on_drift: Annotated[
        bool, Parameter(negative="", help="Exit with status 4 if there is any.")
    ] = False,
    force: Force = False,
) -> None:
    """Compare the latest sessions with those that the models learned from."""
    found = pipeline.drift(load_config(file), force=force)["drift"]
    print_drift(found)
    if fail_on_drift and found["verdict"] == "drift":
        sys.exit(4)


@app.command
def explore(file: File, *, force: Force = False) -> None:
    """Write the explorer: a page on intents and sessions, for any web server."""
    config = load_config(file)
    pipeline.explore(config, force=force)
    _explorer(config.workspace, file)


@app.command
def serve(
    file: File,
    *,
    host: Annotated[str | None, Parameter(help="Where to listen, instead of serve.host.")] = None,
    port: Annotated[int | None, Parameter(help="Instead of serve.port.")] = None,
    shadow: Annotated[
        Path | None, Parameter(help="Configuration of a workspace whose model scores along, to compare.")
    ] = None,
) -> None:
    """Serve intents over HTTP: scores, live sessions, accounts."""
    config = load_config(file)
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    try:
        section = ServeConfig.model_validate({**config.serve.model_dump(), **given})
    except ValidationError as error:
        raise ConfigError(f"--port: {error.errors()[0]['msg']}") from error
    config = config.model_copy(update={"serve": section})
    require("starlette", "serve")
    from clickintent.serve.run import serve as run_service

    run_service(config, shadow=load_config(shadow) if shadow else None)


@app.command
def backfill(
    file: File,
    *,
    days: Annotated[
        float | None, Parameter(help="How far back, instead of serve.keep_days, the most.")
    ] = None,
) -> None:
    """Give accounts a past: append the latest events of the workspace to the service's live sessions."""
    config = load_config(file)
    if days is not None and not 0 < days <= config.serve.keep_days:
        raise ConfigError(f"--days: between 0 and serve.keep_days ({config.serve.keep_days:g}).")
    require("starlette", "serve")
    from clickintent.serve.run import backfill as run_backfill

    run_backfill(config, config.serve.keep_days if days is None else days)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, by default that of the process; every expected error is one readable message."""
    try:
        app(arguments)
    except ConfigError as error:
        _fail(error, 2)
    except AnswersNeededError as error:
        console.print(f"[yellow]waiting:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(3)
    except ClickintentError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        _stop()
    except RuntimeError as error:
        if str(error) != "Query interrupted":  # what Ctrl-C becomes inside DuckDB
            raise
        _stop()


def _stop() -> None:
    say("\n[yellow]Stopped.[/] Give the same command again to go on where it stopped.", markup=True)
    sys.exit(130)


def _fail(error: ClickintentError, status: int) -> None:
    console.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
    sys.exit(status)


_METHODS = {
    "page_counts": "page counts",
    "embedding": "embedding",
    "llm_labels": "{teacher} labels",
    "student_labels": "student labels",
    "embedding_page_counts": "embedding + counts",
    "evening": "evening's features",
    "oracle": "oracle",
}


def _headline(metrics: Metrics, workspace: Path) -> None:
    """The results as one small table on standard output, and where the report is."""
    wanted = {
        ("conversion", "auc"): "conversion\nAUC",
        ("conversion", "micro_f1"): "conversion\nmicro F1",
        ("conversion", "micro_f1_products"): "… without\n“none”",
        ("tiles", "macro_recall_at_1"): "tiles\nrecall@1",
        ("tiles", "log_loss"): "tiles\nlog loss",
    }
    found = {}
    for task in ("conversion", "tiles"):
        result = metrics.get(task, {})
        found[task] = {**result.get("methods", {}), "oracle": result.get("oracle", {})}
    columns = {key: title for key, title in wanted.items() if found[key[0]].get("page_counts")}
    if columns:
        table = Table(
            "\nmethod", box=box.SIMPLE_HEAD, title="On sessions after the split; ± half the 95 % interval"
        )
        for title in columns.values():
            table.add_column(title, justify="right")
        teacher = "keyword" if metrics["taxonomy"]["source"] == "keywords" else "LLM"
        for name, words in _METHODS.items():
            cells = [_cell(found[task].get(name, {}).get(metric)) for task, metric in columns]
            if any(cells):
                table.add_row(words.format(teacher=teacher), *cells)
        Console().print(table)
    sys.stdout.write(f"report: {workspace / 'report.html'}\n")


def _explorer(workspace: Path, file: Path) -> None:
    say(f"explorer: {workspace / 'explorer'}")
    say(f"To look at it: clickintent serve {file}, or any web server for static files in that folder.")


def _cell(metric: Metrics | None) -> str:
    if not metric or metric.get("value") is None:
        return ""
    if metric.get("low") is None:
        return f"{metric['value']:.3f}"
    return f"{metric['value']:.3f} ±{(metric['high'] - metric['low']) / 2:.3f}"
