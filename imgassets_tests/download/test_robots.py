"""Parse robots.txt: which rules apply to this crawler, and what they allow."""

from __future__ import annotations

import pytest

from imgassets.download import robots

USER_AGENT = "imgassets/0.2 (me@example.org)"
PAGE = "http://h.example/a.jpg"


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("imgassets/0.2 (me@example.org)", "imgassets"),
        ("imgassets", "imgassets"),
        ("IMGASSETS/0.1", "imgassets"),
        ("Shop-Images_2 Mozilla/5.0", "shop-images_2"),
        ("(ImgAssets)", "(imgassets)"),
    ],
)
def test_the_product_token_is_the_first_word_of_the_user_agent(user_agent: str, name: str) -> None:
    assert robots.product_token(user_agent) == name


@pytest.mark.parametrize("group", ["imgassets", "ImgAssets", "IMGASSETS"])
@pytest.mark.parametrize("user_agent", [USER_AGENT, "ImgAssets/0.1", "IMGASSETS", "imgassets-eu/1"])
def test_our_own_group_applies_whatever_its_case(group: str, user_agent: str) -> None:
    text = f"User-agent: *\nDisallow: /\n\nUser-agent: {group}\nDisallow: /private/\n".encode()
    rules = robots.parse_robots_txt(text, user_agent)
    assert rules.allow(PAGE)
    assert not rules.allow("http://h.example/private/a.jpg")


@pytest.mark.parametrize("other", ["googlebot", "Mozilla", "0.1"])
def test_the_group_of_another_crawler_does_not_apply(other: str) -> None:
    text = f"User-agent: {other}\nDisallow: /\nCrawl-delay: 9\n".encode()
    rules = robots.parse_robots_txt(text, f"{USER_AGENT} Mozilla/5.0")
    assert rules.allow(PAGE)
    assert rules.interval_s == 0


def test_the_default_group_applies_without_a_group_of_our_own() -> None:
    text = b"User-agent: googlebot\nAllow: /\n\nUser-agent: *\nDisallow: /*.jpg\nCrawl-delay: 2\n"
    rules = robots.parse_robots_txt(text, USER_AGENT)
    assert not rules.allow(PAGE)
    assert rules.allow("http://h.example/a.png")
    assert rules.interval_s == 2


def test_a_rule_may_match_the_query() -> None:
    rules = robots.parse_robots_txt(b"User-agent: *\nDisallow: /*?size=\n", USER_AGENT)
    assert rules.allow(PAGE)
    assert not rules.allow(f"{PAGE}?size=9")


@pytest.mark.parametrize("user_agent", [USER_AGENT, "IMGASSETS/0.1"])
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
def test_the_crawl_delay_is_that_of_our_group(user_agent: str, text: str, seconds: float) -> None:
    assert robots.parse_robots_txt(text.encode(), user_agent).interval_s == seconds


@pytest.mark.parametrize("text", [b"", b"\n", b" \r\n\t "])
def test_an_empty_robots_txt_allows_everything_without_delay(text: bytes) -> None:
    rules = robots.parse_robots_txt(text, USER_AGENT)
    assert rules.allow(PAGE)
    assert rules.interval_s == 0


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_rules_in_utf_8_and_utf_16_apply_with_and_without_a_byte_order_mark(
    encoding: str, start: str, newline: str
) -> None:
    lines = ["User-agent: *", "Disallow: /private/", "Disallow: /kl\u00e4der/", ""]
    rules = robots.parse_robots_txt((start + newline.join(lines)).encode(encoding), USER_AGENT)
    assert rules.allow(PAGE)
    assert not rules.allow("http://h.example/private/a.jpg")
    assert not rules.allow("http://h.example/kl%C3%A4der/a.jpg")


@pytest.mark.parametrize(("encoding", "width"), [("utf-8", 1), ("utf-16-le", 2)])
def test_a_line_that_is_cut_at_the_maximum_size_is_ignored(encoding: str, width: int) -> None:
    rules = "User-agent: *\nDisallow: /private/\n"
    padding = "#" * (robots.MAX_BYTES // width - len(rules) - len("\nDisallow: /")) + "\n"
    text = f"{rules}{padding}Disallow: /".encode(encoding)
    assert len(text) == robots.MAX_BYTES
    parsed = robots.parse_robots_txt(text, USER_AGENT)
    assert parsed.allow(PAGE)
    assert not parsed.allow("http://h.example/private/a.jpg")


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf\xef\xbb\xbfUser-agent: *\nDisallow: /\n",
        b"# joined\n\xef\xbb\xbfUser-agent: *\nDisallow: /\n",
        "User-agent: *\nDisallow: /\n".encode("utf-32"),
        b"User-agent: *\nDisallow: /\0\n",
    ],
)
def test_repeated_byte_order_marks_and_nuls_are_ignored(text: bytes) -> None:
    assert not robots.parse_robots_txt(text, USER_AGENT).allow(PAGE)


def test_bytes_that_are_not_utf_8_affect_only_their_own_line() -> None:
    text = b"# caf\xe9\nUser-agent: *\nDisallow: /\xff\nDisallow: /kl\xc3\xa4der/\n"
    rules = robots.parse_robots_txt(text, USER_AGENT)
    assert rules.allow(PAGE)
    assert not rules.allow("http://h.example/kl%C3%A4der/a.jpg")


USAGE = """\
User-agent: otherbot
Disallow: /
User-agent: *
Allow: /
Content-Usage: train-ai=n
Content-Usage: /ai-ok/ train-ai=y
content-usage :\t/ai-ok/*.png\tai=n  # but not these
Content-Usage: /exact$ train-ai=y
Content-Usage: /both/ train-ai=y
Content-Usage: /both/ train-ai=n
Content-Usage: /unknown/ search=n
Content-Usage: /broken/ Train-AI=n
Sitemap: http://h.example/sitemap.xml
Content-Usage: /kl\u00e4der/ train-ai=y

User-agent: friend
Content-Usage: train-ai=y
User-agent: reader
Content-Usage:
"""


@pytest.mark.parametrize(
    ("path", "is_forbidden"),
    [
        ("/", True),
        ("/a.jpg?size=9", True),
        ("/ai-ok/a.jpg", False),
        ("/ai-ok/a.png", True),
        ("/exact", False),
        ("/exactly", True),
        # Of rules with one path the most restrictive counts.
        ("/both/a.jpg", True),
        # Only the longest path counts, even if it says nothing about training.
        ("/unknown/a.jpg", False),
        ("/broken/a.jpg", False),
        ("/kl%C3%A4der/a.jpg", False),
    ],
)
def test_the_content_usage_rule_with_the_longest_path_applies(
    path: str, is_forbidden: bool
) -> None:
    rules = robots.parse_robots_txt(USAGE.encode(), USER_AGENT)
    assert rules.forbid_training(f"http://h.example{path}") is is_forbidden
    assert rules.allow(f"http://h.example{path}")


def test_content_usage_rules_apply_to_the_crawlers_of_their_group() -> None:
    forbidden = {
        agent: robots.parse_robots_txt(USAGE.encode(), agent).forbid_training(PAGE)
        for agent in ("friend/1", "reader", "otherbot", "imgassets")
    }
    # A group of our own replaces the one of all crawlers, although it says nothing.
    assert forbidden == {"friend/1": False, "reader": False, "otherbot": False, "imgassets": True}


@pytest.mark.parametrize(
    ("text", "is_forbidden"),
    [
        ("User-agent: *\nContent-Usage: train-ai=n", True),
        ("User-agent: a\nDisallow: /x\nUser-agent: *\nContent-Usage: train-ai=n", True),
        # A rule ends the list of agents, also one that is not about usage.
        ("User-agent: *\nDisallow: /x\nUser-agent: a\nContent-Usage: train-ai=n", False),
        ("User-agent: *\nSitemap: /x\nUser-agent: a\nContent-Usage: train-ai=n", True),
        ("User-agent: *\n# Content-Usage: train-ai=n", False),
        ("User-agent: *\nContent-Usage: / train-ai=y\nContent-Usage: train-ai=n", False),
        ("User-agent: *\nContent-Usage: search=y\nContent-Usage: train-ai=n", True),
        ("Content-Usage: train-ai=n", False),
    ],
)
def test_content_usage_rules_follow_the_groups_of_robots_txt(text: str, is_forbidden: bool) -> None:
    rules = robots.parse_robots_txt(text.encode(), USER_AGENT)
    assert rules.forbid_training(PAGE) is is_forbidden
