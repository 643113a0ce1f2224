"""What robots.txt and X-Robots-Tag allow, and to whom."""

from __future__ import annotations

import pytest

from imgassets.download import robots

US = "imgassets/0.1 (me@example.org)"
PAGE = "http://h.example/a.jpg"


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("imgassets/0.1 (me@example.org)", "imgassets"),
        ("imgassets", "imgassets"),
        ("IMGASSETS/0.1", "imgassets"),
        ("Shop-Images_2 Mozilla/5.0", "shop-images_2"),
        ("(ImgAssets)", "(imgassets)"),
    ],
)
def test_a_host_knows_us_by_the_first_word_of_the_user_agent(user_agent: str, name: str) -> None:
    assert robots.agent_of(user_agent) == name


@pytest.mark.parametrize("group", ["imgassets", "ImgAssets", "IMGASSETS"])
@pytest.mark.parametrize("user_agent", [US, "ImgAssets/0.1", "IMGASSETS", "imgassets-eu/1"])
def test_our_own_group_holds_however_names_are_written(group: str, user_agent: str) -> None:
    text = f"User-agent: *\nDisallow: /\n\nUser-agent: {group}\nDisallow: /private/\n".encode()
    rules = robots.rules(text, user_agent)
    assert rules.allow(PAGE)
    assert not rules.allow("http://h.example/private/a.jpg")


@pytest.mark.parametrize("other", ["googlebot", "Mozilla", "0.1"])
def test_the_group_of_another_does_not_hold_for_us(other: str) -> None:
    text = f"User-agent: {other}\nDisallow: /\nCrawl-delay: 9\n".encode()
    rules = robots.rules(text, f"{US} Mozilla/5.0")
    assert rules.allow(PAGE)
    assert rules.interval_s == 0


def test_the_group_of_all_holds_for_whoever_has_none() -> None:
    text = b"User-agent: googlebot\nAllow: /\n\nUser-agent: *\nDisallow: /*.jpg\nCrawl-delay: 2\n"
    rules = robots.rules(text, US)
    assert not rules.allow(PAGE)
    assert rules.allow("http://h.example/a.png")
    assert rules.interval_s == 2


def test_a_rule_may_name_a_query() -> None:
    rules = robots.rules(b"User-agent: *\nDisallow: /*?size=\n", US)
    assert rules.allow(PAGE)
    assert not rules.allow(f"{PAGE}?size=9")


@pytest.mark.parametrize("user_agent", [US, "IMGASSETS/0.1"])
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("User-agent: *\nCrawl-delay: 9\n\nUser-agent: imgassets\nCrawl-delay: 0.25\n", 0.25),
        ("User-agent: ImgAssets\nCrawl-delay: 3\n\nUser-agent: *\nCrawl-delay: 9\n", 3),
        ("User-agent: imgassets\nDisallow: /x\n\nUser-agent: *\nCrawl-delay: 9\n", 0),
        ("User-agent: *\nCrawl-delay: 0\n", 0),
        ("User-agent: *\nCrawl-delay: soon\n", 0),
        ("User-agent: *\nDisallow: /x\n", 0),
    ],
)
def test_a_crawl_delay_is_that_of_our_group(user_agent: str, text: str, seconds: float) -> None:
    assert robots.rules(text.encode(), user_agent).interval_s == seconds


@pytest.mark.parametrize("text", [b"", b"\n", b" \r\n\t "])
def test_an_empty_robots_txt_allows_all_at_any_speed(text: bytes) -> None:
    rules = robots.rules(text, US)
    assert rules.allow(PAGE)
    assert rules.interval_s == 0


def test_bytes_that_are_no_utf_8_spoil_only_their_own_line() -> None:
    text = b"# caf\xe9\nUser-agent: *\nDisallow: /\xff\nDisallow: /kl\xc3\xa4der/\n"
    rules = robots.rules(text, US)
    assert rules.allow(PAGE)
    assert not rules.allow("http://h.example/kl%C3%A4der/a.jpg")


@pytest.mark.parametrize(
    ("tag", "rule"),
    [
        ("noai", "noai"),
        ("noimageai", "noimageai"),
        ("NoAI", "noai"),
        (" noindex ,NOIMAGEAI ", "noimageai"),
        ("noindex, noai, noimageai", "noai"),
        ("*: noai", "noai"),
        ("imgassets: noai", "noai"),
        (" ImgAssets : noimageai", "noimageai"),
        ("imgassets: noindex, noai", "noai"),
        ("otherbot: noai, imgassets: noimageai", "noimageai"),
        ("otherbot: noai\nnoimageai", "noimageai"),
        ("noindex\nimgassets: noai", "noai"),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST, noai", "noai"),
        ("max-snippet: 5, noai", "noai"),
        ("max-image-preview: large, noai", "noai"),
        ("max-video-preview: -1, noai", "noai"),
        ("imgassets: nofollow, max-snippet: 5, noai", "noai"),
        ("Max-Snippet : 5, noai", "noai"),
    ],
)
@pytest.mark.parametrize("user_agent", [US, "IMGASSETS/0.1"])
def test_a_tag_that_opts_out_for_all_or_for_us_names_its_rule(
    tag: str, rule: str, user_agent: str
) -> None:
    assert robots.opt_out(tag, user_agent) == rule


@pytest.mark.parametrize(
    "tag",
    [
        "",
        "all",
        "noindex",
        "none",
        "noaix",
        "no ai",
        "max-snippet: 5",
        "max-snippet: noai",
        "otherbot: noai",
        "otherbot: nofollow, noai",
        "imgassets: nofollow, otherbot: noai",
        "otherbot: max-snippet: 5, noai",
        "imgassets-eu: noai",
        "img: noai",
        "imgassets: noai-ever",
        "otherbot: noai\nimgassets: noindex",
        "noai: noindex",
    ],
)
def test_a_tag_that_is_not_for_us_or_says_something_else_forbids_nothing(tag: str) -> None:
    assert robots.opt_out(tag, US) is None
