"""URLs become templates and personal data placeholders, whatever way they are written."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clickintent.events import paths, privacy

TEMPLATES = [
    ("https://www.bank.example/Cards/Travel/?utm_source=x#top", "/cards/travel"),
    ("https://bank.example", "/"),
    ("/index.html", "/"),
    ("/loans/index.html", "/loans"),
    ("/home.html", "/home.html"),
    ("/step_1", "/step_1"),
    ("/step-2", "/step-2"),
    ("/401k/529-plan", "/401k/529-plan"),
    ("/30-year-fixed-vs-15-year-fixed", "/30-year-fixed-vs-15-year-fixed"),
    ("/forms/1099-int", "/forms/1099-int"),
    ("/users/12345/edit", "/users/{id}/edit"),
    ("/users/{id}/edit", "/users/{id}/edit"),
    ("/x/550e8400-e29b-41d4-a716-446655440000", "/x/{id}"),
    ("/x/deadbeefcafe1234", "/x/{id}"),
    ("/x/eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "/x/{id}"),
    ("/u/jane.doe@example.com", "/u/{id}"),
    ("/u/jane.doe%40example.com", "/u/{id}"),
    ("/u/jane.doe%2540example.com", "/u/{id}"),
    ("/u/jane.doe", "/u/{id}"),
    ("/account-4821", "/{id}"),
    ("/order-12", "/{id}"),
    ("/~jdoe/x", "/{id}/x"),
    ("/a//b/", "/a/b"),
    ("/A;jsessionid=0AB1/b", "/a/b"),
    ("/shop+by+brand/men%27s%20shirts", "/shop+by+brand/men's+shirts"),
    ("https://bank.example/#/accounts/998877/details?x=1", "/accounts/{id}/details"),
    ("https://jane:secret@bank.example:8443/login", "/login"),
    ("bank.example/login", "/login"),
    ("//bank.example/login", "/login"),
    ("http://10.0.0.7/login", "/login"),
    ("/%C3%BCber-uns", "/über-uns"),
]


@pytest.mark.parametrize(("url", "page"), TEMPLATES)
def test_templates(url: str, page: str) -> None:
    assert paths.template(url) == (page, None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "not a url",
        "mailto:jane@example.com",
        "javascript:void(0)",
        "https://",
        "https://[bad",
        "about:blank",
        ":::",
    ],
)
def test_what_is_no_page_has_no_template(url: str) -> None:
    assert paths.template(url) is None


def test_queries_are_dropped_but_for_the_allowed_ones() -> None:
    url = "/search?type=Auto+Loan&ssn=123-45-6789&id=9&q=jane%40x.com+loan&ref=998877"
    assert paths.template(url) == ("/search", None)
    assert paths.template(url, ("type", "ref"), ("q",)) == (
        "/search?ref={id}&type=auto+loan",
        "jane@x.com loan",
    )


SEGMENTS = st.text(st.characters(codec="utf-8", exclude_characters="/?#"), max_size=20)


@given(st.lists(SEGMENTS, max_size=4))
@example(["+14155551234"])
@example(["４１５５５５１２３４"])
def test_a_template_is_its_own_template_and_holds_no_long_number(segments: list[str]) -> None:
    found = paths.template("/" + "/".join(segments))
    if found is not None:  # two slashes first make the next segment a host
        page = found[0]
        assert paths.template(page) == (page, None)
        assert not re.search(r"\d{5,}|@", page)


HOSTS = [
    ("https://www.google.com/search?q=jane", "google.com"),
    ("https://jane:pw@example.com:8080/x", "example.com"),
    ("android-app://com.google.android.gm", "com.google.android.gm"),
    ("google.com", "google.com"),
    ("https://a8f3c9d2e1b4.frames.example.com/x", "frames.example.com"),
    ("http://10.0.0.1/x", None),
    ("http://[fe80::1]/x", None),
    ("jane@example.com", None),
    ("/relative", None),
    ("localhost", None),
    (None, None),
]


@pytest.mark.parametrize(("referrer", "host"), HOSTS)
def test_of_a_referrer_only_the_host_stays(referrer: str | None, host: str | None) -> None:
    assert paths.host(referrer) == host


REDACTED = [
    ("Contact jane.doe@example.com now", "Contact [email] now"),
    ("jane%2540x.com", "[email]"),
    ("jane &#64; x.com", "[email]"),
    ("jane (at) example (dot) com", "[email]"),
    ("call 415-555-1234", "call [phone]"),
    ("call (415) 555-1234", "call [phone]"),
    ("tel +44 20 7946 0958 now", "tel [phone] now"),
    ("４１５５５５１２３４", "[phone]"),
    ("SSN 123-45-6789", "SSN [ssn]"),
    ("card 4111 1111 1111 1111", "card [card]"),
    ("DE89 3704 0044 0532 0130 00 transfer", "[iban] transfer"),
    ("GB29NWBK60161331926819", "[iban]"),
    ("born 01/02/1980", "born [date]"),
    ("acct 12345 balance", "acct [number] balance"),
    ("account 123456789 | Bank", "account [number] | Bank"),
    ("my pin is 4821", "my pin is [number]"),
    ("see https://x.example/a?b=c", "see [url]"),
    ("host 10.0.0.1", "host [ip]"),
    ("token eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.abc", "token [token]"),
    ("550e8400-e29b-41d4-a716-446655440000", "[token]"),
    ("", None),
    ("  ", None),
]

KEPT = [
    "Mortgage 30-year 6.5% APR from $1,250",
    "Rates 2023-2024",
    "Save 100% off, 20% more",
    "1099-INT forms 2024",
    "401(k) rollover to a 5/1 ARM",
    "Opens at 12:30:45",
    "26 oz Double Wall Insulated Bottle",
    "Certificates of deposit | Example Bank",
    "Frais bancaires à l'étranger",
]


@pytest.mark.parametrize(("text", "clean"), REDACTED)
def test_redaction(text: str, clean: str | None) -> None:
    assert privacy.redact(text) == clean


@pytest.mark.parametrize("text", KEPT)
def test_words_and_prices_stay(text: str) -> None:
    assert privacy.redact(text) == text


def _grouped(digits: str, sizes: list[int], separator: str) -> str:
    groups, at = [], 0
    for size in sizes:
        groups.append(digits[at : at + size])
        at += size
    return separator.join(groups)


DIGITS = st.text("0123456789", min_size=16, max_size=16)
WORDS = st.sampled_from(["", "transfer to", "my balance", "pay", "loan rates for", "Karte", "¿cuánto?"])
EMAILS = st.emails()
NUMBERS = st.one_of(
    st.builds(_grouped, DIGITS, st.just([4, 4, 4, 4]), st.sampled_from(["", " ", "-", "."])),  # card
    st.builds(_grouped, DIGITS, st.just([3, 2, 4]), st.sampled_from(["", " ", "-"])),  # social security
    st.builds(_grouped, DIGITS, st.just([3, 3, 4]), st.sampled_from(["", " ", "-", "."])),  # phone
    st.text("0123456789", min_size=7, max_size=20),
)


def _encode(text: str, times: int) -> str:
    for _ in range(times):
        text = quote(text, safe="")
    return text


@settings(max_examples=300)
@given(WORDS, NUMBERS, WORDS, st.integers(0, 3))
def test_planted_numbers_never_survive(before: str, planted: str, after: str, encoded: int) -> None:
    clean = privacy.redact(f"{before} {_encode(planted, encoded)} {after}") or ""
    digits = re.sub(r"\D", "", clean)
    assert len(digits) < 6
    page = paths.template(f"/pay/{_encode(planted, encoded)}/x", ("n",), ())
    assert page == ("/pay/{id}/x", None)
    page = paths.template(f"/pay?n={_encode(planted, encoded)}", ("n",), ())
    assert page == ("/pay?n={id}", None)


@settings(max_examples=300)
@given(WORDS, EMAILS, WORDS, st.integers(0, 3))
def test_planted_addresses_never_survive(before: str, planted: str, after: str, encoded: int) -> None:
    clean = privacy.redact(f"{before} {_encode(planted, encoded)} {after}") or ""
    assert "@" not in clean
    assert planted.rsplit("@", 1)[1].lower() not in clean.lower()
    if not re.search(r'[/?#";]', planted):  # those would end the path
        page = paths.template(f"/to/{_encode(planted, encoded)}/x", (), ())
        assert page == ("/to/{id}/x", None)


@given(st.text(max_size=60))
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = privacy.redact(text)
    assert privacy.redact(once) == once
    assert "@" not in (once or "")
    assert not re.search(r"\d{6,}", once or "")
