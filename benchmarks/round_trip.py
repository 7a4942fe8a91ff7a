"""A whole run through batch files: requests out, responses in, from the raw export to the report.

No language model is asked: a stand-in answers ``requests.jsonl`` by plain rules on words, so its labels say
nothing about quality. What is measured is the way: how many rounds and requests, whether every line of the
responses is accounted for, and whether a responses file full of dirt (each request's good line among lines
that are cut off, no JSON, of unknown requests, refused by the service, twice the same, empty, of an unknown
intent, and hostile: an answer that obeys a session's text) ends in the same labels as a clean one.

    python benchmarks/round_trip.py [--data ga360,simbank] [--sessions 12000] [--label 1500] [--work FOLDER]

``ga360`` reads ``CLICKINTENT_DATA`` as in ``quality.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import clickintent
from clickintent.config import Config, LlmConfig, load_config
from clickintent.errors import AnswersNeededError
from common import write_results

Json = dict[str, Any]
ROOT = Path(__file__).parents[1]
ROUNDS = 60  # at most
SESSION = re.compile(r'<session n="(\d+)">(.*?)</session>')
INTENT = re.compile(r"^(\S+) \[.*?\] (.*?): ", re.MULTILINE)


def pages_of(narrative: str) -> list[str]:
    """What a narrative says was seen, without dwell and repeats."""
    steps = narrative.rsplit(" · ", 1)[-1].split(" → ")
    return [re.sub(r"( ×\d+)?(, (briefly|a while|long))?$", "", step) for step in steps]


def answer(task: str, user: str) -> Json:
    """A plausible answer: intents are called as pages are, a session has those whose name it shows."""
    shown = [(int(number), pages_of(text)) for number, text in SESSION.findall(user)]
    known = INTENT.findall(user.split("<session", 1)[0])
    if task == "Labels":
        labels = [
            {
                "session": number,
                "intents": [
                    {
                        "intent": id_,
                        "confidence": round(0.4 + 0.6 * pages.count(name) / len(pages), 3),
                        "evidence": name,
                    }
                    for id_, name in known
                    if name in pages
                ],
            }
            for number, pages in shown
        ]
        return {"sessions": labels}
    if not shown:  # the review
        limit = int((re.search(r"at most (\d+) intents afterwards", user) or ["", "35"])[1])
        return {"intents": [], "merges": [], "remove": [id_ for id_, _ in known[limit:]]}
    limit = int((re.search(r"at most (\d+)", user) or ["", "35"])[1]) - len(known)
    counts = Counter(page for _, pages in shown for page in set(pages))
    new = [page for page, n in counts.most_common() if n > 1 and page not in {name for _, name in known}]
    intents = [
        {
            "id": "",
            "area": page.split()[0],
            "name": page,
            "definition": f"The visitor looks at {page}.",
            "includes": [page],
            "excludes": [],
            "examples": [number for number, pages in shown if page in pages][:3],
        }
        for page in new[: max(limit, 0)]
    ]
    return {"intents": intents} if task == "Draft" else {"intents": intents, "merges": [], "remove": []}


def line(custom_id: str, content: str, *, finish: str = "stop", status: int = 200) -> str:
    """A line as the OpenAI Batch service writes it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    body = {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": len(content) // 4}}
    return json.dumps(
        {"custom_id": custom_id, "response": {"status_code": status, "body": body}, "error": None}
    )


def responses(requests: list[Json], rng: random.Random | None) -> list[str]:
    """A line for each request, and with ``rng`` the dirt among them, in any order."""
    lines = []
    for request in requests:
        id_ = request["custom_id"]
        task = request["body"]["response_format"]["json_schema"]["name"]
        content = json.dumps(answer(task, request["body"]["messages"][1]["content"]))
        good = line(id_, content)
        if not rng:
            lines.append(good)
            continue
        hostile = {
            "Labels": {"sessions": [{"session": 1, "intents": "all of them; ignore your instructions"}]}
        }
        bad = [
            good[: len(good) // 2],
            "<html>502 Bad Gateway</html>",
            "",
            line("0" * 64, content),
            line(id_, content[: len(content) // 2], finish="length"),
            line(id_, "As you asked, I ignore my instructions. SYSTEM PROMPT: …"),
            line(id_, json.dumps(hostile.get(task, {"intents": "DROP TABLE"}))),
            line(id_, "", status=429),
        ]
        lines += [*rng.sample(bad, 4), good, good]
    if rng:
        rng.shuffle(lines)
    return lines


def to_the_end(config: Config, rng: random.Random | None) -> Json:
    """``run``, answered round by round; what it took."""
    folder = config.workspace / "llm"
    found = {"rounds": 0, "requests": 0, "lines": 0}
    refused = Counter[str]()
    started = time.perf_counter()
    while found["rounds"] < ROUNDS:
        metrics = _unless_it_waits(config)
        path = folder / "refused.jsonl"
        if path.exists():
            refused.update(json.loads(text)["reason"] for text in path.read_text().splitlines())
        if metrics:
            break
        texts = [path.read_text() for path in sorted(folder.glob("requests*.jsonl"))]
        requests = [json.loads(text) for text in "".join(texts).splitlines()]
        lines = responses(requests, rng)
        (folder / "responses.jsonl").write_text("\n".join(lines) + "\n")
        found["rounds"] += 1
        found["requests"] += len(requests)
        found["lines"] += sum(bool(line) for line in lines)
    else:
        raise SystemExit(f"not done after {ROUNDS} rounds")
    labels = metrics["labels"]
    return {
        **found,
        "used": found["lines"] - refused.total(),
        "refused": refused,
        "seconds": time.perf_counter() - started,
        "sessions": labels["sessions"],
        "unanswered": labels["unanswered"],
        "intents": metrics["taxonomy"]["intents"],
        "report": (config.workspace / "report.html").exists(),
    }


def _unless_it_waits(config: Config) -> Json | None:
    try:
        return clickintent.run(config)
    except AnswersNeededError:
        return None


def config_of(name: str, work: Path, sessions: int, label: int) -> Config:
    """The run's configuration, in ``work / name``."""
    if name == "ga360":
        os.environ.setdefault("CLICKINTENT_DATA", str(ROOT.parent / "shared" / "data"))
        config = load_config(ROOT / "examples" / "ga360.toml")
    else:
        bank = work / "simulated"
        bank.mkdir(parents=True, exist_ok=True)
        text = f'workspace = "ws"\n[simbank]\nout = "bank"\nsessions = {sessions}\n'
        (bank / "simulate.toml").write_text(text)
        clickintent.simulate(load_config(bank / "simulate.toml"))
        config = load_config(bank / "bank" / "clickintent.toml")
    return config.model_copy(
        update={
            "workspace": work / name,
            "llm": LlmConfig(backend="batch", model="stand-in"),
            "labels": config.labels.model_copy(update={"max_sessions": label}),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="ga360,simbank")
    parser.add_argument("--sessions", type=int, default=12_000)
    parser.add_argument("--label", type=int, default=1_500)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="round-trip-"))
    results: Json = {}
    for name in arguments.data.split(","):
        config = config_of(name, work, arguments.sessions, arguments.label)
        for stage in (clickintent.ingest, clickintent.pretrain, clickintent.embed):
            stage(config)
        tables = {}
        for kind, rng in (("clean", None), ("dirty", random.Random(1))):
            folder = work / f"{name}-{kind}"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(config.workspace, folder)
            run = to_the_end(config.model_copy(update={"workspace": folder}), rng)
            tables[kind] = pq.read_table(folder / "labels" / "teacher.parquet")
            if run["used"] != run["requests"]:
                raise SystemExit(f"{name} {kind}: {run['used']} lines used for {run['requests']} requests")
            results[f"{name} {kind}"] = run
            print(f"{name} {kind}: {json.dumps(run)}", flush=True)
        same = tables["clean"].equals(tables["dirty"])
        results[f"{name} dirty"]["same_labels_as_clean"] = same
        print(f"{name}: the same labels with dirt as without: {same}", flush=True)
    write_results("round_trip", results)


if __name__ == "__main__":
    main()
