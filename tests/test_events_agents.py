"""Robots that name themselves are recognised; browsers are not."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import crawleruseragents
import pytest

from clickintent.events.agents import declared_bot

_CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) {}/126.0.0.0 Safari/537.36"
BOTS = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (X11; Linux x86_64) " + _CHROME.format("HeadlessChrome"),
    "python-requests/2.31.0",
    "curl/8.5.0",
    "Wget/1.21",
    "Go-http-client/1.1",
    "Java/17.0.2",
    "PostmanRuntime/7.36.0",
    "Ruby",
    "Scrapy/2.11 (+https://scrapy.org)",
    "Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)",
    "Mozilla/5.0 (compatible; BeetleBot; )",
    "SomebodysCrawler 1.0",
]
PEOPLE = [
    "",
    "-",
    "Mozilla/5.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + _CHROME.format("Chrome"),
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + _CHROME.format("Chrome") + " Edg/126.0.0.0",
    "Mozilla/5.0 (Linux; Android 9; CUBOT X19) " + _CHROME.format("Chrome"),
    "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1",
    "Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UD1A)",
]


@pytest.mark.parametrize("agent", BOTS)
def test_robots_name_themselves(agent: str) -> None:
    assert declared_bot(agent)


@pytest.mark.parametrize("agent", PEOPLE)
def test_browsers_and_nothing_name_no_robot(agent: str) -> None:
    assert not declared_bot(agent)


def test_every_agent_that_the_list_knows_is_found() -> None:
    known = [
        agent for crawler in crawleruseragents.CRAWLER_USER_AGENTS_DATA for agent in crawler["instances"]
    ]
    assert len(known) > 1000
    assert [agent for agent in known if crawleruseragents.is_crawler(agent) > declared_bot(agent)] == []


def test_agents_of_a_real_log(real_data: Path) -> None:
    log = real_data / "apache_access_log_elastic" / "apache_logs"
    agents = Counter(line.rsplit('"', 2)[1] for line in log.read_text().splitlines() if line.count('"') >= 6)
    bots = {agent for agent in agents if declared_bot(agent)}
    for name in ("Googlebot/", "bingbot/", "Baiduspider", "YandexBot", "msnbot", "AhrefsBot", "EasouSpider"):
        named = {agent for agent in agents if name in agent}
        assert named
        assert named <= bots
    browser = re.compile(
        r"Mozilla/5\.0 \((?:Windows NT|Macintosh; Intel|X11; (?:Ubuntu; )?Linux|iPad; CPU)[^()]*\) "
        r"(?:Gecko/[\d.]+ Firefox/[\d.]+"
        r"|AppleWebKit/[\d.]+ \(KHTML, like Gecko\) (?:Chrome|Version)/[\w./ ]+)"
    )
    people = {agent for agent in agents if browser.fullmatch(agent)}
    assert len(people) > 150
    assert not people & bots
    # all that agree with the list but for those that call themselves a bot and are not on it
    more = {agent for agent in bots if not crawleruseragents.is_crawler(agent)}
    assert all(re.search("(?i)bot|spider|ruby", agent) for agent in more)
    assert {agent for agent in agents if crawleruseragents.is_crawler(agent)} <= bots
    assert 0.15 < sum(agents[agent] for agent in bots) / sum(agents.values()) < 0.3
