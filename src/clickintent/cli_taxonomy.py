"""The commands ``clickintent taxonomy …`` and ``clickintent labels …``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.markup import escape

from clickintent import pipeline
from clickintent.config import load_config
from clickintent.errors import ArtifactError, ConfigError, DataError, WorkspaceError
from clickintent.pipeline.reviewing import Review
from clickintent.progress import console, say
from clickintent.taxonomy import Intent, Plan, Taxonomy, diff, prompts
from clickintent.taxonomy.content import shorten
from clickintent.taxonomy.novelty import Proposal
from clickintent.taxonomy.review import CommandError, Made
from clickintent.workspace import Metrics

taxonomy_app = App(name="taxonomy", help="Draft, check, review, compare and approve the taxonomy of intents.")
labels_app = App(name="labels", help="Labels by people: a blinded sample out, labels in, agreement.")

_EXAMPLE = 240  # characters of a session, in a review

File = Annotated[Path, Parameter(help="The configuration, a clickintent.toml.")]
Force = Annotated[bool, Parameter(negative="", help="Do it again, even if nothing has changed.")]
PlanOnly = Annotated[bool, Parameter(negative="", help="Show calls, tokens, cost; send nothing.")]
Show = Annotated[
    int | Literal["all"] | None,
    Parameter(help="Print so many requests exactly as they would be sent; send nothing."),
]


@taxonomy_app.command
def draft(file: File, *, plan: PlanOnly = False, show: Show = None, force: Force = False) -> None:
    """Draft taxonomy.yaml from the sessions before the split."""
    config = load_config(file)
    if plan or show is not None:
        print_plan(pipeline.plan_draft(config), show)
        return
    pipeline.draft_taxonomy(config, force=force)
    say(f"taxonomy: {config.workspace / 'taxonomy.yaml'}")


def print_plan(plan: Plan, show: int | Literal["all"] | None) -> None:
    """The plan, or its requests."""
    if show is None:
        sys.stdout.write(f"{plan}\n")
    elif show != "all" and show < 1:
        raise ConfigError(f"--show takes a number of at least 1, or 'all', not {show}.")
    else:
        sys.stdout.write(f"{plan.shown(None if show == 'all' else show)}\n")


@taxonomy_app.command(name="prompts")
def copy_prompts(folder: Annotated[Path, Parameter(help="Where to put them.")]) -> None:
    """Copy the prompts to a folder, to be read or changed (llm.prompts). Files that are there stay."""
    written = prompts.copy_to(folder)
    say(f"{len(written)} prompts written to {folder}; llm.prompts is the key that makes use of them")


@taxonomy_app.command
def review(
    file: File,
    *,
    by: Annotated[str, Parameter(help="Who decides; stands in the history.")],
    commands: Annotated[Path | None, Parameter(help="A file of commands, instead of asking.")] = None,
    everything: Annotated[bool, Parameter(name="--all", negative="", help="Also approved intents.")] = False,
) -> None:
    """Walk through intents and proposals with their sessions, and decide on each.

    Every decision is kept, with who and when, before the next one is asked for.
    """
    started = pipeline.review(load_config(file), by, everything=everything)
    before = started.walk.taxonomy
    made = 0
    try:
        for place, line in _lines(started, commands):
            try:
                done = started.follow(line)
            except (ArtifactError, WorkspaceError) as error:
                if place is not None:
                    raise CommandError(f"{place}: {error} What was decided before is kept.") from error
                console.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
                continue
            if done == "quit":
                break
            if started.walk.said:
                console.print(escape(started.walk.said))
            if isinstance(done, Made):
                made += 1
                what = f" {done.what}" if done.what else ""
                say(f"[green]✓[/] {done.intent} {done.action}{escape(what)}", markup=True)
    finally:
        say(f"{made} decisions are in taxonomies/history.jsonl")
    after = started.finish()
    if after.version != before.version:
        sys.stdout.write(f"{diff(before, after)}\n")
        say(f"saved version {after.version}; approve it with: clickintent taxonomy approve {file} --by NAME")


def _lines(started: Review, commands: Path | None) -> Iterator[tuple[str | None, str]]:
    """Each line of the review, and where it stands; None if a person is being asked."""
    if commands is not None:
        try:
            text = commands.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{commands}: cannot be read as commands: {error}") from error
        yield from _written(text.splitlines(), f"{commands}, line")
    elif not sys.stdin.isatty():
        yield from _written(sys.stdin, "line")
    else:
        console.print("help shows the commands; a Ctrl-C loses nothing.")
        shown = None
        while (here := started.walk.here) is not None:
            if here != shown:
                _show(here, started)
                shown = here
            try:
                yield None, console.input("[bold]>[/] ")
            except EOFError:  # Ctrl-D
                return
        say("that was the last one")


def _written(lines: Iterable[str], where: str) -> Iterator[tuple[str, str]]:
    """Lines that are no comments, and where each stands."""
    for number, line in enumerate(lines, 1):
        if not line.startswith("#"):
            yield f"{where} {number}", line


def _show(here: Intent | Proposal, started: Review) -> None:
    place = f"{started.walk.at + 1}/{len(started.walk.queue)}"
    kind = "proposed" if isinstance(here, Proposal) else ""
    console.print(
        f"\n[dim]{place}[/] [bold]{escape(here.name)}[/] [dim]{here.id} {escape(here.area or '')} {kind}[/]"
    )
    console.print(escape(here.definition), soft_wrap=True)
    if here.includes:
        console.print(f"includes: {escape('; '.join(here.includes))}", soft_wrap=True)
    if isinstance(here, Proposal):
        console.print(f"[dim]{escape(_evidence(here))}[/]", soft_wrap=True)
        examples: tuple[str, ...] = here.examples
    else:
        if here.excludes:
            console.print(f"excludes: {escape('; '.join(here.excludes))}", soft_wrap=True)
        if here.approved:
            state = "as it reads" if here.is_approved else "before it was edited"
            console.print(f"[dim]approved {state} by {escape(here.approved.by)} at {here.approved.at}[/]")
        count = started.count(here.id)
        if count is not None:
            console.print(f"[dim]{count:,} sessions[/]")
        examples = started.sessions(here.id) or here.examples
    for example in examples:
        console.print(f"  · {escape(shorten(example, _EXAMPLE))}", soft_wrap=True)


@taxonomy_app.command
def check(
    file: File,
    *,
    stability: Annotated[bool, Parameter(negative="", help="Also draft twice and compare (calls).")] = False,
    agreement: Annotated[bool, Parameter(negative="", help="Also label sessions twice (calls).")] = False,
    force: Force = False,
) -> None:
    """Measure whether the taxonomy is good enough; exit status 1 if a gate does not pass."""
    found = pipeline.check(load_config(file), stability=stability, agreement=agreement, force=force)
    for name, gate in found.items():
        number = "—" if gate["value"] is None else f"{gate['value']:.3f}"
        side = "least" if gate["at_least"] else "most"
        state = "pass" if gate["passed"] else "FAIL"
        sys.stdout.write(
            f"{state}  {name:<10} {number:>6}  (at {side} {gate['limit']:g})  {gate['meaning']}\n"
        )
        for line in gate["worst"][: 1 if gate["passed"] else None]:
            sys.stdout.write(f"{'':<28}{line}\n")
        if not gate["passed"]:
            sys.stdout.write(f"{'':<24}→ {gate['advice']}\n")
    for name in ("stability", "agreement"):
        if name not in found:
            sys.stdout.write(f"      {name:<10}      —  not measured for these labels; --{name} does\n")
    failed = [name for name, gate in found.items() if not gate["passed"]]
    if failed:
        say(f"[red]{len(failed)} of {len(found)} gates do not pass:[/] {', '.join(failed)}", markup=True)
        sys.exit(1)
    say(f"[green]all {len(found)} gates pass[/]", markup=True)


@taxonomy_app.command
def propose(file: File) -> None:
    """Look for intents that the taxonomy lacks; review accepts or dismisses what is proposed."""
    found = pipeline.propose(load_config(file))
    for proposal in found.proposals:
        weeks = ", ".join(f"{week}: {n}" for week, n in proposal.evidence.weeks.items())
        sys.stdout.write(f"{proposal.id} {proposal.name}: {proposal.definition}\n  {_evidence(proposal)}\n")
        sys.stdout.write(f"  sessions by week: {weeks}\n")
    groups = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in found.groups.items() if n)
    say(f"{found.unsure:,} sessions without a sure label; groups of them: {groups or 'none large enough'}")
    if found.proposals:
        say(f"decide on them with: clickintent taxonomy review {file} --by NAME")


def _evidence(proposal: Proposal) -> str:
    evidence = proposal.evidence
    growth = (
        "only in the later half of the weeks" if evidence.growth is None else f"grew ×{evidence.growth:g}"
    )
    return (
        f"{evidence.sessions:,} sessions ({evidence.share:.1%}) of {evidence.visitors:,} visitors in "
        f"{len(evidence.weeks)} weeks, {growth}; {evidence.unsure_share:.0%} of the sessions there "
        "have no sure label"
    )


@taxonomy_app.command(name="diff")
def compare(old: Path, new: Path) -> None:
    """Show what changed between two taxonomy files.

    Parameters
    ----------
    old: A taxonomy, such as WORKSPACE/taxonomies/v1.yaml.
    new: Another, such as WORKSPACE/taxonomy.yaml.
    """
    sys.stdout.write(f"{diff(Taxonomy.load(old), Taxonomy.load(new))}\n")


@taxonomy_app.command
def approve(file: File, *, by: Annotated[str, Parameter(help="Who approves it.")]) -> None:
    """Approve taxonomy.yaml as it stands; later runs keep it."""
    approved = pipeline.approve(load_config(file), by)
    signed = f"({len(approved.intents)} intents) as {approved.approved_by}"
    say(f"approved version {approved.version} {signed}")


@labels_app.command
def export(
    file: File,
    out: Annotated[Path, Parameter(help="The CSV file to write.")],
    *,
    sessions: Annotated[int, Parameter(help="How many sessions.")] = 200,
    seed: Annotated[int | None, Parameter(help="Another number is another sample.")] = None,
) -> None:
    """Write sessions for people to label: redacted, shuffled, without the model's labels."""
    described = pipeline.export_labels(load_config(file), out, size=sessions, seed=seed)
    say(f"sessions: {out}\nwhat the intents mean, and how to fill it in: {described}")


@labels_app.command(name="import")
def import_(
    file: File,
    labels: Annotated[Path, Parameter(help="The CSV file, filled in.")],
    *,
    by: Annotated[str, Parameter(help="Who labelled.")],
) -> None:
    """Read labels that a person gave; every row that cannot be used is reported."""
    found = pipeline.import_labels(load_config(file), labels, by=by)
    for line, problem in found.problems:
        sys.stdout.write(f"line {line}: {problem}\n")
    counts = dict(found.counts)
    rows, sample, missing = counts.pop("rows"), counts.pop("sample"), counts.pop("missing")
    told = " + ".join(
        f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items() if n or name == "labelled"
    )
    sys.stdout.write(
        f"{rows:,} rows = {told}\n{missing:,} of the {sample:,} rows of the sample are missing\n"
    )
    if not found.intents:
        raise DataError(f"{labels}: no row has a label that can be used; nothing was kept.")


@labels_app.command
def agreement(file: File, *, force: Force = False) -> None:
    """How far people agree with the model and with each other: κ and α with 95 % intervals, weighted."""
    config = load_config(file)
    found = pipeline.agreement(config, force=force)
    names = {i.id: i.name for i in Taxonomy.load(config.workspace / "taxonomy.yaml").intents}
    for pair in found["pairs"]:
        sys.stdout.write(f"{pair['first']} and {pair['second']}: {pair['sessions']:,} sessions\n")
        sys.stdout.write(f"  κ over all intents   {_interval(pair['pooled'])}\n")
        sys.stdout.write(f"  mean of intents' κ   {_number(pair['mean'])}\n")
        sys.stdout.write(f"  α of whole sets      {_interval(pair['alpha'])}\n")
        for id_, one in pair["intents"].items():
            told = f"both {one['both']}, of {one['first']} and {one['second']}"
            sys.stdout.write(f"  {_interval(one['kappa']):<21}  {id_} {names[id_]} ({told})\n")
    for by, n in found["left_out"].items():
        if n:
            say(f"{by}: {n:,} sessions left out; their intents were removed, split or redefined")


def _interval(found: Metrics) -> str:
    if found["value"] is None:
        return "undefined"
    if found["low"] is None:
        return _number(found["value"])
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"
