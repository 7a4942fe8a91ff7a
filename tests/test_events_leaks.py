"""Nothing of a secret is left, wherever in a text or URL it stands and however it is encoded."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clickintent.events import detectors, paths, privacy
from leaks import Leak, make, partly_survives, secrets, survives

#: A secret in the middle of words, or among them, or in what is no text for people.
TEXTS = (
    "{}",
    "pay {} now",
    "Transfer to {} | Example Bank",
    "call me:{}, please",
    "({})",
    "<{}>",
    '"{}"',
    "x{}y",
    "abc{}",
    "user={}&x=1",
    "go#{}",
    "order/{}/edit",
    "¿{}?",
    "a@b {} @handle",
    "token.{}",
    "see https://x.example/a?u={} there",
)
SEGMENTS = ("{}", "x{}", "{}y", "pay-{}-now", "to_{}", "Xy{}", "{}.html", "u={}")
URLS = (
    "/u/{}/edit",
    "https://bank.example/u/{}",
    "https://bank.example/#/u/{}/edit?x=1",
    "/a;id={}/b",
    "/search?q={}&x=1",
    "/search?x=1;type={}",
    "/search?other={}",
    "/?{}",
    "/a#{}",
    "/a?type=loan#!/{}?q={}",
    "https://{}@bank.example/login",
    "https://jane:{}@bank.example/login",
    "http://bank.example/{}",
)


@settings(max_examples=1500, deadline=None)
@given(secrets(), st.integers(0, 99), st.sampled_from(TEXTS))
def test_no_secret_survives_redaction(secret: Leak, way: int, text: str) -> None:
    written = secret.written[way % len(secret.written)]
    clean, found = privacy.redacted(text.format(written))
    assert found
    assert not partly_survives(secret, clean or "")
    assert privacy.redacted(clean or "") == (clean, ())


@settings(max_examples=1500, deadline=None)
@given(secrets(), st.integers(0, 99), st.sampled_from(SEGMENTS), st.sampled_from(URLS), st.booleans())
def test_no_secret_survives_in_a_template(
    secret: Leak, way: int, segment: str, url: str, escaped: bool
) -> None:
    written = secret.written[way % len(secret.written)]
    planted = segment.format(
        quote(written, safe="") if escaped or re.search(r"[/?#&;\s]", written) else written
    )
    found = paths.templated(url.replace("{}", planted), ("type",), ("q",))
    if found is None:
        return  # nothing of it is kept
    assert found.removed
    assert not partly_survives(secret, f"{found.page} {found.term}")
    again = paths.templated(found.page, ("type",), ("q",))
    assert again is not None
    assert (again.page, again.removed) == (found.page, ())


@settings(max_examples=500, deadline=None)
@given(
    secrets(),
    st.integers(0, 99),
    st.sampled_from(
        ("https://{}@x.example/a", "https://{}.frames.example.com/", "https://www.{}.com", "//a.{}/")
    ),
)
def test_no_secret_survives_in_the_host_of_a_referrer(secret: Leak, way: int, url: str) -> None:
    host = paths.host(url.format(secret.written[way % len(secret.written)])) or ""
    assert not partly_survives(secret, host)


@settings(max_examples=300, deadline=None)
@given(secrets(), st.sampled_from(("/a/{}", "/a/{}/b", "/{}")))
def test_base64_with_slashes_does_not_survive_in_a_path(secret: Leak, url: str) -> None:
    planted = base64.b64encode(b"???>>>" + secret.plain.encode()).decode()
    found = paths.templated(url.format(planted))
    assert found is not None
    assert not partly_survives(secret, found.page)
    assert not re.search(r"[A-Za-z0-9]{8}", found.page)


@pytest.mark.parametrize("kind", ["email", "phone", "card", "iban", "ssn"])
def test_detectors_are_named(kind: str) -> None:
    for seed in range(200):
        secret = make(kind, seed)
        assert privacy.redacted(f"to {secret.plain} now") == (f"to [{kind}] now", (kind,))
        hidden = base64.urlsafe_b64encode(secret.plain.encode()).decode().rstrip("=")
        clean, found = privacy.redacted(f"to {hidden} now")
        assert (clean, set(found)) == ("to [token] now", {"token", kind}), secret


NAMED = [
    ("jane@x.com and joe@x.com", "[email] and [email]", ("email", "email")),
    ("4111111111111111", "[card]", ("card",)),
    ("4111111111111112", "[number]", ("number",)),
    ("card 4111 1111 1111 1111 12/26", "card [card]", ("card",)),
    ("4111, 1111, 1111, 1111", "[card]", ("card",)),
    ("see https://x.example/ or ask @jane", "see [url] or ask [handle]", ("url", "handle")),
    ("born 01/02/1980 at 10.0.0.1", "born [date] at [ip]", ("ip", "date")),
    ("acct 12345", "acct [number]", ("number",)),
    ("id amFuZS5kb2VAZXhhbXBsZS5jb20= ok", "id [token] ok", ("token", "email")),
    ("id amFuZUB4LmNvbQ ok", "id [token] ok", ("token", "email")),
    ("eyJhIjoiamFuZUB4LmNvbSIsImIiOiI0MTU1NTUxMjM0In0", "[token]", ("token", "email", "phone")),
    ("YW1GdVpVQjRMbU52YlE9PQ==", "[token]", ("token", "token", "email")),
    ("nothing", "nothing", ()),
    ("  ", None, ()),
]


@pytest.mark.parametrize(("text", "clean", "names"), NAMED)
def test_what_was_found_is_counted(text: str, clean: str | None, names: tuple[str, ...]) -> None:
    assert privacy.redacted(text) == (clean, names)
    assert set(names) <= set(detectors.NAMES)


REMOVED = [
    ("/cards/travel", ()),
    ("/", ()),
    ("/users/12345/edit", ("path_id",)),
    ("/users/1234567/edit", ("path_id", "phone")),
    ("/users/{id}/edit", ()),
    ("/u/jane.doe", ("path_id",)),
    ("/u/jane%40x.com/4155551234", ("path_id", "email", "path_id", "phone")),
    ("/u/amFuZUB4LmNvbQ", ("path_id", "token", "email")),
    ("/a;jsessionid=0AB1/b", ("path_parameter",)),
    ("/a?x=1&y=2&type=loan#top", ("fragment", "query_parameter", "query_parameter")),
    ("/a?type=77812", ("query_id",)),
    ("/a?q=jane%40x.com", ("search_email",)),
    ("https://jane:pw@bank.example/a", ("userinfo",)),
]


@pytest.mark.parametrize(("url", "removed"), REMOVED)
def test_what_was_removed_from_a_url_is_counted(url: str, removed: tuple[str, ...]) -> None:
    found = paths.templated(url, ("type",), ("q",))
    assert found is not None
    assert found.removed == removed


KEPT = [
    "PayPal and LinkedIn, iPhone and MacBook Pro",
    "iPhoneXSMax eBay McDonalds YouTube GmbH",
    "MORTGAGES CERTIFICATES BANKRUPTCY",
    "HowToPayOffYourLoan",
    "InternationalMoneyTransfer",
    "JavaScriptFrameworks",
    "Wholesale-Commercial-Banking",
    "JPMorgan Chase & Co. vs. HSBC",
    "TaxFreeSavingsAccounts",
    "USAToday",
    "QualityQuestionnaires",
    "OK/Cancel",
    "NoFeeBalanceTransfer",
    "MyPINReset",
]
PAGES = ["/HowToPayOffYourLoan", "/PayPal/LinkedIn", "/FAQs", "/MyAccount/Overview", "/JavaScriptFrameworks"]


@pytest.mark.parametrize("text", KEPT)
def test_words_in_capitals_stay(text: str) -> None:
    assert privacy.redacted(text) == (text, ())


@pytest.mark.parametrize("url", PAGES)
def test_words_in_capitals_stay_in_paths(url: str) -> None:
    assert paths.templated(url) == paths.Template(url.lower(), None, ())


PIECES = st.one_of(
    st.sampled_from("@.-_/+=:;,#()[]%&1x "),
    st.sampled_from(
        ("  ", "12", "123", "4567", "2024", "1980-01", "+1", "%40", "&#64;", "\u200b", "[email]")
    ),
    st.sampled_from(
        ("Ab", "pin", "card", "token", "jane", "MTIz", "amFuZUB4LmNvbQ", "at", "dot", "www.", "://")
    ),
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
@example("12 @ 34567")
@example("a[number]b 5")
def test_redacting_twice_finds_nothing_more(text: str) -> None:
    clean, _ = privacy.redacted(text)
    assert privacy.redacted(clean or "") == (clean, ())


@settings(max_examples=300, deadline=None)
@given(secrets(), secrets())
def test_survival_is_recognised(secret: Leak, other: Leak) -> None:
    for written in secret.written:
        assert survives(secret, f"some page/{written}?x")
    assert not survives(secret, "some page/{id}?x [token]")
    if secret.plain != other.plain and secret.kind != "number" != other.kind:
        assert not survives(secret, other.plain)


def test_long_texts_take_linear_time() -> None:
    for text in ("a" * 50_000 + "1", "a.b-" * 20_000, "aB" * 30_000, "1 " * 30_000, "(at) " * 10_000):
        privacy.redact(text)
