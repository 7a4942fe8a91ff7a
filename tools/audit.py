"""Licences and known vulnerabilities of what constraints.txt and explorer/package-lock.json pin.

Licences are read from what is installed, without a network. Vulnerabilities are asked for at OSV (osv.dev;
OSV_URL: another address that speaks its API), in one request for both kinds of packages; where OSV is not
reached, npm may still ask its registry about the page's. A closed network reaches neither: then it says so,
and does not fail. Exceptions, each with its reason, are in audit.toml.

Exit status 1: a licence that is not known to be permissive, or a vulnerability that is not excepted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OSV = "https://api.osv.dev"
_SECONDS = 6
_TOKEN = re.compile(r"\(|\)|\bAND\b|\bOR\b|[^()\s]+(?:\s+WITH\s+[^()\s]+)?")

#: ecosystem, as OSV calls it; package; version
Package = tuple[str, str, str]


class NotReachedError(Exception):
    """Nobody who knows of vulnerabilities was reached."""


# --- what is pinned ---


def pinned(constraints: Path) -> list[Package]:
    lines = [line.partition("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines()]
    pins = [line.partition("==") for line in lines if line]
    return [("PyPI", name, version) for name, _, version in pins]


def locked(lock: Path) -> dict[Package, str | None]:
    """Each package of the page, with its licence."""
    if not lock.exists():
        return {}
    packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    return {
        ("npm", path.rpartition("node_modules/")[2], about["version"]): about.get("license")
        for path, about in packages.items()
        if path and not about.get("link")
    }


# --- licences ---


def is_allowed(expression: str, allowed: Collection[str]) -> bool:
    """Whether an SPDX expression, or a single name, asks for nothing but what is allowed."""
    if expression in allowed:
        return True
    tokens = _TOKEN.findall(expression)

    def either() -> bool:
        found = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            found = both() or found
        return found

    def both() -> bool:
        found = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            found = one() and found
        return found

    def one() -> bool:
        token = tokens.pop(0) if tokens else ""
        if token != "(":
            return " ".join(token.split()) in allowed
        found = either()
        return bool(tokens) and tokens.pop(0) == ")" and found

    return either() and not tokens


def licence_of(name: str, version: str) -> list[str]:
    """What the installed package says, all of which must be allowed; nothing, if it says nothing.

    Raises:
        LookupError: if another version is installed, or none.
    """
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise LookupError("is not installed; run make first") from None
    if found.version.partition("+")[0] != version.partition("+")[0]:
        raise LookupError(f"is installed as {found.version}; run make first")
    about = found.metadata
    if expression := about.get_all("License-Expression"):
        return [str(one) for one in expression]
    classifiers = [c.split(" :: ")[-1] for c in about.get_all("Classifier") or [] if c.startswith("License")]
    names = [
        text for one in about.get_all("License") or [] if (text := str(one).strip()) and "\n" not in text
    ]
    return classifiers or names


def bad_licences(
    packages: Sequence[Package], lock: Mapping[Package, str | None], rules: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """What is wrong with licences, in words; and exceptions that nothing needs."""
    allowed, problems, used = set(rules["allowed"]), [], set()
    for kind, name, version in (*packages, *lock):
        section = "python" if kind == "PyPI" else "npm"
        excepted = next((p for p in rules["exceptions"][section] if fnmatchcase(name, p)), None)
        try:
            said = [lock[kind, name, version] or ""] if kind == "npm" else licence_of(name, version)
        except LookupError as error:
            problems.append(f"{name} {version}: {error}")
            continue
        if said and all(is_allowed(licence, allowed) for licence in said):
            continue
        if excepted is None:
            told = "; ".join(filter(None, said)) or "none that could be read"
            problems.append(f"{name} {version}: licence {told}. Leave it out, or except it in audit.toml.")
        else:
            used.add((section, excepted))
    idle = [
        f"{name}: excepted in audit.toml for nothing; take it out."
        for section in ("python", "npm")
        for name in rules["exceptions"][section]
        if (section, name) not in used
    ]
    return problems, idle


# --- vulnerabilities ---


def vulnerabilities(packages: Sequence[Package], service: str) -> dict[Package, list[str]]:
    """Ids of what is known of each package.

    Raises:
        NotReachedError: if OSV does not answer.
    """
    queries = [
        {"package": {"name": name, "ecosystem": kind}, "version": version.partition("+")[0]}
        for kind, name, version in packages
    ]
    request = urllib.request.Request(
        f"{service}/v1/querybatch",
        json.dumps({"queries": queries}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            results = json.load(answer)["results"]
        found = [[one["id"] for one in result.get("vulns") or []] for result in results]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotReachedError(f"{service}: {getattr(error, 'reason', error)}") from error
    if len(found) != len(packages):
        raise NotReachedError(f"{service}: an answer that is none")
    return {package: ids for package, ids in zip(packages, found, strict=True) if ids}


def vulnerabilities_by_npm(folder: Path) -> dict[Package, list[str]]:
    """The same of the page's packages alone, by what npm's registry knows.

    Raises:
        NotReachedError: if there is no npm, or its registry does not answer that.
    """
    command = ["npm", "audit", "--package-lock-only", "--json", "--fetch-retries=0"]
    command.append(f"--fetch-timeout={_SECONDS * 1000}")
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=2 * _SECONDS, check=False
        )
        found = json.loads(done.stdout)["vulnerabilities"]
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        raise NotReachedError("npm: its registry does not answer audits") from None
    problems: dict[Package, list[str]] = {}
    for name, about in found.items():
        ids = [one["url"].rpartition("/")[2] for one in about["via"] if isinstance(one, dict)]
        if ids:
            problems["npm", name, about["range"]] = ids
    return problems


def main() -> int:
    say = sys.stdout.write
    rules = tomllib.loads((ROOT / "tools" / "audit.toml").read_text(encoding="utf-8"))
    python, lock = pinned(ROOT / "constraints.txt"), locked(ROOT / "explorer" / "package-lock.json")
    problems, idle = bad_licences(python, lock, rules["licences"])
    say(f"licences: {len(python)} packages of Python, {len(lock)} of the page; ")
    say(f"{len(problems)} problems\n" if problems else "all are permissive, or excepted with a reason\n")

    known: dict[Package, list[str]] = {}
    open_: list[str] = []
    try:
        known = vulnerabilities([*python, *lock], os.environ.get("OSV_URL", OSV).rstrip("/"))
    except NotReachedError as error:
        say(f"vulnerabilities, Python: not audited: no vulnerability service was reached ({error})\n")
        try:
            known = vulnerabilities_by_npm(ROOT / "explorer") if lock else {}
            say("vulnerabilities, page: asked npm's registry\n" if lock else "")
        except NotReachedError as other:
            say(f"vulnerabilities, page: not audited: no vulnerability service was reached ({other})\n")
    else:
        say(f"vulnerabilities: {len(python) + len(lock)} packages were asked about\n")
    ignored = rules["vulnerabilities"]["ignored"]
    for (_, name, version), ids in known.items():
        open_ += [f"{name} {version}: {id_}; see https://osv.dev/{id_}" for id_ in ids if id_ not in ignored]
    for line in (*problems, *open_, *idle):
        say(f"  {line}\n")
    return 1 if problems or open_ else 0


if __name__ == "__main__":
    sys.exit(main())
