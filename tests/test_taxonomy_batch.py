"""Requests and responses as files: whole runs without a call, and responses files of every kind of dirt."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import factories
from clickintent.cli import main
from clickintent.config import Config
from clickintent.errors import AnswersNeededError, BudgetError, LanguageModelError
from clickintent.taxonomy import Taxonomy, annotate, draft, plan, prompts
from clickintent.taxonomy.answers import Request
from clickintent.taxonomy.batch_files import read_responses, write_requests
from clickintent.taxonomy.board import Draft
from llm_server import LlmServer, plausible
from test_taxonomy_llm import KEY, KEY_NAME, config, embed, some_taxonomy

Json = dict[str, Any]


def batch_config(folder: Path, **options: Any) -> Config:
    """No endpoint, and no key."""
    online = config(folder, None, **options)
    return online.model_copy(update={"llm": online.llm.model_copy(update={"backend": "batch"})})


def requests_in(folder: Path) -> list[Json]:
    paths = sorted((folder / "llm").glob("requests*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def user_of(request: Json) -> str:
    return str(request["body"]["messages"][1]["content"])


def answered(request: Json, content: str | None = None, finish: str = "stop") -> Json:
    """A line as the OpenAI Batch service writes it."""
    if content is None:
        name = request["body"]["response_format"]["json_schema"]["name"]
        content = json.dumps(plausible(name, user_of(request)))
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    body = {"id": "c", "choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
    return {
        "id": f"batch_req_{request['custom_id'][:6]}",
        "custom_id": request["custom_id"],
        "response": {"status_code": 200, "request_id": "r", "body": body},
        "error": None,
    }


def write_lines(path: Path, lines: Sequence[Json | str]) -> None:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))


def to_the_end(work: Callable[[], Any], folder: Path, most: int) -> tuple[Any, int]:
    """Answer every round of requests until the work is done; what it gives, and how many rounds it took."""
    for rounds in range(most):
        try:
            return work(), rounds
        except AnswersNeededError:
            write_lines(folder / "llm" / "responses.jsonl", [answered(r) for r in requests_in(folder)])
    raise AssertionError(f"not done after {most} rounds")


def refused(folder: Path) -> list[tuple[int, str]]:
    path = folder / "llm" / "refused.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(line["line"], line["reason"]) for line in lines]


def test_a_whole_run_through_files_equals_one_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    sessions = factories.themed_sessions(60)
    embeddings = embed(sessions)
    wanted = batch_config(tmp_path)

    def work() -> tuple[Taxonomy, Any]:
        taxonomy = draft(sessions, embeddings, wanted, tmp_path / ".llm")
        return taxonomy, annotate(sessions, taxonomy, wanted, tmp_path / ".llm")

    (taxonomy, annotation), rounds = to_the_end(work, tmp_path, most=9)
    monkeypatch.setenv(KEY_NAME, KEY)
    with LlmServer() as server:
        online = config(tmp_path, server.url)
        same = draft(sessions, embeddings, online, tmp_path / "other")
        other = annotate(sessions, same, online, tmp_path / "other")
        drafting = sum(request.task != "Labels" for request in server.requests)
    assert rounds == drafting + 1  # drafting asks one request a round, labelling all at once
    assert taxonomy == same
    assert annotation.labels.equals(other.labels)
    assert annotation.metrics["usage"]["input_tokens"] == other.metrics["usage"]["input_tokens"] > 0
    assert not list((tmp_path / "llm").glob("requests*.jsonl"))  # nothing is open any more
    assert refused(tmp_path) == []


def test_what_drafting_refused_is_still_listed_when_labelling_has_read_the_same_file(tmp_path: Path) -> None:
    sessions = factories.themed_sessions(60)
    embeddings = embed(sessions)
    wanted = batch_config(tmp_path, minibatch=100)

    def work() -> None:
        taxonomy = draft(sessions, embeddings, wanted, tmp_path / ".llm")
        annotate(sessions, taxonomy, wanted, tmp_path / ".llm")

    for _ in range(2):  # the draft, its review
        with pytest.raises(AnswersNeededError):
            work()
        good = [answered(request) for request in requests_in(tmp_path)]
        write_lines(tmp_path / "llm" / "responses.jsonl", [*good, "{not json", *good, *good])
    with pytest.raises(AnswersNeededError, match=r"4 lines = 0 used \+ 1 answered before \+ 3 refused"):
        work()
    second = "a second answer to the same request"
    assert refused(tmp_path) == [(2, "not JSON"), (3, second), (4, second)]


def test_requests_are_openai_batch_lines(tmp_path: Path) -> None:
    sessions = factories.themed_sessions(60)
    with pytest.raises(AnswersNeededError) as caught:
        annotate(sessions, some_taxonomy(), batch_config(tmp_path, minibatch=3), tmp_path / ".llm")
    lines = requests_in(tmp_path)
    planned = plan(sessions, some_taxonomy(), batch_config(tmp_path, minibatch=3))
    assert [line["body"] for line in lines] == [request.body() for request in planned.requests]
    assert len({line["custom_id"] for line in lines}) == len(lines) == planned.calls
    for line in lines:
        assert set(line) == {"custom_id", "method", "url", "body"}
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        assert line["body"]["model"] == "test-model"
        assert line["body"]["response_format"]["json_schema"]["strict"] is True
        assert len(line["custom_id"]) == 64
    told = str(caught.value)
    for word in (
        f"{len(lines)} requests",
        "requests.jsonl",
        "responses.jsonl",
        "same command",
        "Nothing was",
    ):
        assert word in told


def test_every_bad_line_is_named_and_no_good_one_is_lost(tmp_path: Path) -> None:
    sessions = factories.themed_sessions(60)
    wanted = batch_config(tmp_path, minibatch=1)

    def work() -> Any:
        return annotate(sessions, some_taxonomy(), wanted, tmp_path / ".llm")

    with pytest.raises(AnswersNeededError):
        work()
    asked = requests_in(tmp_path)
    a, b, c, d, _, _, g, h = (answered(request) for request in asked[:8])
    other = {"sessions": [{"session": 1, "intents": []}]}
    lines: list[Json | str] = [
        a,
        {**a, "response": answered(asked[0], json.dumps(other))["response"]},  # a second one
        "",
        "{not json at all",
        "[" * 100_000,
        '{"custom_id": 7}',
        '"just text"',
        {"custom_id": "0" * 64, "content": json.dumps(other)},  # of nothing that was asked
        {**b, "response": {"status_code": 500, "body": {"error": {"message": "jane.doe@example.com"}}}},
        {**b, "response": None, "error": {"code": "batch_expired", "message": "jane.doe@example.com"}},
        b,
        answered(asked[2], "Sure! jane.doe@example.com"),
        c,  # the first valid one wins
        {**d, "response": {"status_code": 200, "body": {"choices": "none"}}},
        {"custom_id": d["custom_id"], "content": 17},
        {
            "custom_id": d["custom_id"],
            "content": plausible("Labels", user_of(asked[3])),
        },
        answered(asked[4], '{"sessions": [{"session": "jane", "intents": 3}]}'),
        answered(asked[5], '{"sessions": [{"sess', finish="length"),
        {**g, "custom_id": g["custom_id"].upper()},
        h,
    ]
    (tmp_path / "llm" / "responses-1.jsonl").write_bytes(b"\xff\xfe not text\n")
    write_lines(tmp_path / "llm" / "responses.jsonl", lines)
    with pytest.raises(AnswersNeededError) as caught:
        work()
    told = str(caught.value)
    assert "20 lines = 5 used + 0 answered before + 15 refused" in told
    reasons = dict(refused(tmp_path)[1:])  # of responses.jsonl; the first one is of responses-1.jsonl
    assert reasons == {
        2: "a second answer to the same request",
        4: "not JSON",
        5: "not JSON",
        6: "no custom_id",
        7: "no custom_id",
        8: "custom_id of no request that is open",
        9: "error, status 500",
        10: "error",
        12: "answer is not JSON",
        14: "no answer in it",
        15: "content is neither text nor an object",
        17: "answer does not fit the schema",
        18: "cut off by the output limit",
        19: "custom_id of no request that is open",
    }
    assert "jane" not in (tmp_path / "llm" / "refused.jsonl").read_text() + told
    # what is open now: all others, and for the unusable answers a repair
    still = requests_in(tmp_path)
    good = {asked[n]["custom_id"] for n in (0, 1, 2, 3, 7)}
    repairs = [r for r in still if len(r["body"]["messages"]) == 4]
    assert {r["custom_id"] for r in asked} - {r["custom_id"] for r in still} == good | {
        asked[4]["custom_id"],
        asked[5]["custom_id"],
    }
    assert len(repairs) == 2
    assert "2 of them because the answer before could not be used" in told
    # the next answers replace the file; nothing of the first is needed again
    (tmp_path / "llm" / "responses-1.jsonl").unlink()
    write_lines(tmp_path / "llm" / "responses.jsonl", [answered(request) for request in still])
    annotation = work()
    assert annotation.metrics["unanswered"] == 0
    assert annotation.metrics["usage"]["repaired"] == 2
    assert refused(tmp_path) == []
    again = work()  # from the cache
    assert again.labels.equals(annotation.labels)
    assert again.metrics["usage"]["cached"] == len(asked)
    assert refused(tmp_path) == []


def test_a_repair_is_asked_once_and_then_smaller_requests(tmp_path: Path) -> None:
    sessions = factories.themed_sessions(60)
    wanted = batch_config(tmp_path, minibatch=8)
    sizes = []
    for _ in range(5):
        try:
            annotation = annotate(sessions, some_taxonomy(), wanted, tmp_path / ".llm")
            break
        except AnswersNeededError:
            asked = requests_in(tmp_path)
            sizes.append(
                [
                    (len(r["body"]["messages"]), r["body"]["messages"][1]["content"].count("</session>"))
                    for r in asked
                ]
            )
            nonsense = [
                answered(r, "nonsense") if n == 0 and len(sizes) < 3 else answered(r)
                for n, r in enumerate(asked)
            ]
            write_lines(tmp_path / "llm" / "responses.jsonl", nonsense)
    assert [messages for messages, _ in sizes[0]] == [2] * len(sizes[0])
    assert sizes[1] == [(4, 8)]  # one repair
    assert sizes[2] == [(2, 2)] * 4  # the same eight sessions, two by two
    assert len(sizes) == 3
    assert annotation.metrics["unanswered"] == 0
    assert annotation.metrics["dropped"]["unusable_answers"] == 1


def test_a_new_answer_to_a_failed_request_is_taken(tmp_path: Path) -> None:
    sessions = factories.themed_sessions(60)
    wanted = batch_config(tmp_path)

    def work() -> Taxonomy:
        return draft(sessions, embed(sessions), wanted, tmp_path / ".llm")

    responses = tmp_path / "llm" / "responses.jsonl"
    with pytest.raises(AnswersNeededError):
        work()
    first = requests_in(tmp_path)
    write_lines(responses, [answered(first[0], "nonsense")])
    with pytest.raises(AnswersNeededError):
        work()
    write_lines(responses, [answered(requests_in(tmp_path)[0], "nonsense again")])
    with pytest.raises(LanguageModelError, match="gave no usable Draft") as caught:
        work()
    assert not isinstance(caught.value, AnswersNeededError)
    write_lines(responses, [answered(first[0])])
    with pytest.raises(AnswersNeededError):  # of the update
        work()
    assert requests_in(tmp_path)[0]["body"]["response_format"]["json_schema"]["name"] == "Revision"


def test_an_answer_to_a_changed_request_is_never_used(tmp_path: Path) -> None:
    sessions = factories.themed_sessions(40)
    with pytest.raises(AnswersNeededError):
        annotate(sessions, some_taxonomy(), batch_config(tmp_path), tmp_path / ".llm")
    before = requests_in(tmp_path)
    write_lines(tmp_path / "llm" / "responses.jsonl", [answered(request) for request in before])
    intents = [i.model_copy(update={"definition": "Something else."}) for i in some_taxonomy().intents]
    with pytest.raises(AnswersNeededError, match=r"0 used .* custom_id of no request that is open"):
        annotate(
            sessions, some_taxonomy().revised(intents=intents), batch_config(tmp_path), tmp_path / ".llm"
        )
    assert not {r["custom_id"] for r in before} & {r["custom_id"] for r in requests_in(tmp_path)}


def test_no_requests_are_written_past_a_cap(tmp_path: Path) -> None:
    sessions = factories.themed_sessions(60)
    capped = batch_config(tmp_path, minibatch=3, max_tokens=3000)
    with pytest.raises(BudgetError, match="max_tokens"):
        annotate(sessions, some_taxonomy(), capped, tmp_path / ".llm")
    assert not list((tmp_path / "llm").glob("*"))
    with pytest.raises(AnswersNeededError):
        annotate(sessions, some_taxonomy(), batch_config(tmp_path, minibatch=3), tmp_path / ".llm")
    assert requests_in(tmp_path)


def test_many_requests_are_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clickintent.taxonomy.batch_files._LARGEST_FILE", (3, 1 << 20))
    requests = [Request("m", "s", f"u{n}", Draft) for n in range(7)]
    assert [path.name for path in write_requests(requests, tmp_path)] == [
        "requests.jsonl",
        "requests-2.jsonl",
        "requests-3.jsonl",
    ]
    lines = [
        line
        for name in ("requests", "requests-2", "requests-3")
        for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()
    ]
    assert [json.loads(line)["custom_id"] for line in lines] == [request.key for request in requests]
    write_requests(requests[:1], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["requests.jsonl"]


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clickintent.taxonomy.batch_files._LONGEST_LINE", 100)
    (tmp_path / "responses.jsonl").write_text(
        "x" * 1000 + '\n{"custom_id": "k", "content": "{}"}\n' + "y" * 500
    )
    lines = list(read_responses([tmp_path / "responses.jsonl"]))
    assert [line.problem.startswith("longer than") for line in lines] == [True, False, True]
    assert [line.number for line in lines] == [1, 2, 3]
    assert lines[1].custom_id == "k"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["custom_id", "content", "response", "body", "choices", "message", "status_code", "error"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    junk=st.lists(
        JSON_VALUES.map(lambda value: json.dumps(value).encode())
        | st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")),
        max_size=8,
    ),
    known=JSON_VALUES,
    seed=st.integers(0, 99),
)
def test_no_junk_stops_the_reading_or_costs_a_good_line(
    tmp_path: Path, junk: list[bytes], known: Any, seed: int
) -> None:
    """Any bytes and any JSON, also under a known custom_id, in any order around good lines."""
    good = [json.dumps({"custom_id": f"good{n}", "content": {"n": n}}).encode() for n in range(3)]
    hostile = json.dumps({"custom_id": "good1", "response": known}).encode()
    lines = [*junk, hostile, *good]
    random.Random(seed).shuffle(lines)
    path = tmp_path / "responses.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    read = list(read_responses([path]))
    assert len(read) == sum(bool(line.strip()) for line in path.read_bytes().split(b"\n"))
    assert all((line.reply is None) == bool(line.problem) for line in read)
    texts = [(line.custom_id, line.reply.text) for line in read if line.reply]
    assert all((f"good{n}", json.dumps({"n": n})) in texts for n in range(3))


def a_small_run(folder: Path) -> Path:
    """The configuration of a run on ninety one-page visits, with batch files."""
    pages = ("cards", "loans", "savings")
    rows = [
        f"v{i},2026-01-{1 + i // 10:02d}T10:{i % 10:02d}:00Z,/{pages[i % 3]},{pages[i % 3]}"
        for i in range(90)
    ]
    (folder / "clicks.csv").write_text("\n".join(["cookie,time,page,title", *rows]) + "\n")
    path = folder / "clickintent.toml"
    path.write_text(
        'workspace = "w"\n[[sources]]\nreader = "table"\npath = "clicks.csv"\n[sources.columns]\n'
        'visitor_id = "cookie"\nts = "time"\npage = "page"\ntitle = "title"\n'
        '[sources.constants]\nevent_type = "page_view"\n'
        "[encoder]\nepochs = 1\n[evaluate]\nbootstrap = 50\n"
        "[taxonomy]\nintents = 3\nsample = 40\nminibatch = 30\n"
        '[llm]\nbackend = "batch"\nmodel = "m"\n'
    )
    return path


def told(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command; white space is not kept."""
    status = 0
    try:
        main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capfd.readouterr()
    return status, out, " ".join(err.split())


def test_the_command_stops_with_status_3_until_all_is_answered(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = str(a_small_run(tmp_path))
    workspace = tmp_path / "w"
    for rounds in range(9):
        status, out, err = told(capfd, "run", file)
        if status == 0:
            break
        assert status == 3
        assert "waiting:" in err
        assert "Traceback" not in err
        if rounds == 0:
            _, plan_text, _ = told(capfd, "taxonomy", "draft", file, "--plan")
            _, shown, _ = told(capfd, "taxonomy", "draft", file, "--show", "1")
            first = requests_in(workspace)[0]
            assert "Nothing was sent" in plan_text
            assert f"[user]\n{user_of(first)}\n" in shown
            assert first["custom_id"] in shown
            assert told(capfd, "taxonomy", "draft", file, "--show", "0")[0] == 2
        write_lines(workspace / "llm" / "responses.jsonl", [answered(r) for r in requests_in(workspace)])
    assert status == 0
    assert rounds >= 3  # draft, review, label
    assert (workspace / "report.html").exists()
    _, out, _ = told(capfd, "label", file, "--show", "all")
    assert "nothing would be sent" in out
    status, _, err = told(capfd, "taxonomy", "prompts", str(tmp_path / "prompts"))
    assert status == 0
    assert len(list((tmp_path / "prompts").glob("*.txt"))) == len(prompts.NAMES)

    # a prompt of one's own is another request: there is something to ask again
    annotate_prompt = tmp_path / "prompts" / "annotate.txt"
    annotate_prompt.write_text(annotate_prompt.read_text() + "Be brief.\n")
    Path(file).write_text(Path(file).read_text() + 'prompts = "prompts"\n')
    status, _, err = told(capfd, "label", file)
    assert status == 3
    assert user_of(requests_in(workspace)[0]).endswith("Be brief.")
