"""Tests Retry-After, rate limits, robots.txt, X-Robots-Tag and the circuit breaker."""

from __future__ import annotations

import gzip
import time

import pytest

from imgassets.manifests import Outcome
from imgassets.settings import OPT_OUTS
from imgassets_tests.download.conftest import HEADER_OPT_OUTS, Partition
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import (
    Answer,
    Handler,
    Server,
    answer,
    endless,
    hang,
    in_turn,
    redirect,
    reset,
    slow,
)

JPEG = image_bytes()
FORBIDDEN = b"User-agent: *\nDisallow: /\n"


def busy(retry_after: str, status: int = 429) -> Answer:
    return answer(b"", status, {"Retry-After": retry_after})


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_obeyed(
    partition: Partition, server: Server, status: int
) -> None:
    start = time.monotonic()
    (row,) = partition.run(server.add("/a.jpg", in_turn(busy("1", status), answer(JPEG))))
    assert (row.outcome, row.attempts) == (Outcome.OK, 2)
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize("value", ["99999", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_retry_after_is_capped(partition: Partition, server: Server, value: str) -> None:
    partition.with_settings(retry_after_max_s=0.1)
    (row,) = partition.run(server.add("/a.jpg", in_turn(busy(value), answer(JPEG))))
    assert row.outcome is Outcome.OK


@pytest.mark.parametrize("value", ["soon", "-5", "", "Fri, 31 Dec 1999 23:59:59 GMT"])
def test_an_invalid_retry_after_is_ignored(
    partition: Partition, server: Server, value: str
) -> None:
    (row,) = partition.run(server.add("/a.jpg", in_turn(busy(value), answer(JPEG))))
    assert (row.outcome, row.attempts) == (Outcome.OK, 2)


def test_retry_after_applies_to_the_whole_host(partition: Partition, server: Server) -> None:
    at: list[float] = []

    def ready(handler: Handler) -> None:
        at.append(time.monotonic())
        handler.reply(JPEG)

    def overloaded(handler: Handler) -> None:
        at.append(time.monotonic())
        busy("1")(handler)

    partition.with_settings(threads=1)
    first = server.add("/0.jpg", in_turn(overloaded, ready))
    rows = partition.run(first, *(server.add(f"/{n}.jpg", ready) for n in range(1, 6)))
    assert {row.outcome for row in rows} == {Outcome.OK}
    assert at[1] - at[0] >= 1


def test_requests_to_a_host_do_not_exceed_the_rate_limit(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(rate_per_host=20)
    start = time.monotonic()
    partition.run(*(server.add(f"/{n}.jpg", JPEG) for n in range(21)))
    assert time.monotonic() - start >= 1


@pytest.fixture
def polite(partition: Partition) -> Partition:
    return partition.with_settings(robots=True, user_agent="imgassets/0.2 (me@example.org)")


def test_robots_txt_is_requested_once_and_obeyed(polite: Partition, server: Server) -> None:
    server.add("/robots.txt", b"User-agent: *\nDisallow: /private/\nAllow: /\n")
    urls = [server.add(f"/{n}.jpg", JPEG) for n in range(20)]
    rows = polite.run(*urls, server.add("/private/a.jpg", JPEG))
    assert [row.outcome for row in rows[:-1]] == [Outcome.OK] * 20
    assert (rows[-1].outcome, rows[-1].http_status) == (Outcome.DISALLOWED, None)
    assert "robots.txt" in str(rows[-1].error)
    assert server.hits["/robots.txt"] == 1
    assert server.hits["/private/a.jpg"] == 0


def test_rules_of_robots_txt_for_our_user_agent_are_obeyed(
    polite: Partition, server: Server
) -> None:
    server.add("/robots.txt", b"User-agent: imgassets\nDisallow: /\n\nUser-agent: *\nAllow: /\n")
    (row,) = polite.run(server.add("/a.jpg", JPEG))
    assert row.outcome is Outcome.DISALLOWED
    (row,) = polite.with_settings(user_agent="other").run(server.url("/a.jpg"))
    assert row.outcome is Outcome.OK


def test_robots_txt_can_be_switched_off(polite: Partition, server: Server) -> None:
    server.add("/robots.txt", b"User-agent: *\nDisallow: /\n")
    (row,) = polite.with_settings(robots=False).run(server.add("/a.jpg", JPEG))
    assert row.outcome is Outcome.OK
    assert server.hits["/robots.txt"] == 0


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_missing_robots_txt_allows_all(polite: Partition, server: Server, status: int) -> None:
    server.add("/robots.txt", answer(b"User-agent: *\nDisallow: /", status))
    (row,) = polite.run(server.add("/a.jpg", JPEG))
    assert row.outcome is Outcome.OK


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00garbage", b"<html>", b"Disallow: /a.jpg"])
def test_an_invalid_robots_txt_allows_all(polite: Partition, server: Server, body: bytes) -> None:
    server.add("/robots.txt", body)
    (row,) = polite.run(server.add("/a.jpg", JPEG))
    assert row.outcome is Outcome.OK


def test_an_unreadable_robots_txt_disallows_all_and_the_error_says_why(
    polite: Partition, server: Server
) -> None:
    server.add("/robots.txt", answer(b"", 500))
    (row,) = polite.run(server.add("/a.jpg", JPEG))
    assert (row.outcome, row.http_status, row.attempts) == (Outcome.HTTP_ERROR, 500, 3)
    assert "robots.txt" in str(row.error)
    assert server.hits["/a.jpg"] == 0


@pytest.mark.parametrize("status", [429, 500, 503, 520])
def test_a_failing_robots_txt_is_not_requested_for_every_url(
    polite: Partition, server: Server, status: int
) -> None:
    server.add("/robots.txt", answer(b"", status))
    rows = polite.run(*(server.add(f"/{n}.jpg", JPEG) for n in range(300)))
    assert {(row.outcome, row.http_status) for row in rows} == {(Outcome.HTTP_ERROR, status)}
    assert server.hits == {"/robots.txt": 3}  # `QUICK` has two retries


def test_a_failing_robots_txt_counts_for_the_circuit_breaker(
    polite: Partition, server: Server
) -> None:
    polite.with_settings(breaker_failures=1, breaker_cooldown_s=0.01, retries=20)
    server.add("/robots.txt", answer(b"", 500))
    rows = polite.run(*(server.add(f"/{n}.jpg", JPEG) for n in range(20)))
    assert {str(row.outcome) for row in rows} == {"http_error", "host_down"}
    assert server.hits == {"/robots.txt": 4}  # one, and one after each cooldown


def test_a_robots_txt_that_times_out_is_tried_again(polite: Partition, server: Server) -> None:
    server.add("/robots.txt", in_turn(hang, answer(b"User-agent: *\nAllow: /")))
    polite.with_settings(read_timeout_s=3)
    (row,) = polite.run(server.add("/a.jpg", JPEG))
    assert (row.outcome, row.attempts) == (Outcome.OK, 2)


def test_a_redirect_of_robots_txt_is_followed(polite: Partition, server: Server) -> None:
    server.add("/robots.txt", redirect("/other.txt"))
    server.add("/other.txt", b"User-agent: *\nDisallow: /")
    (row,) = polite.run(server.add("/a.jpg", JPEG))
    assert row.outcome is Outcome.DISALLOWED


def test_the_robots_txt_of_the_target_host_of_a_redirect_is_obeyed(
    polite: Partition, server: Server
) -> None:
    def rules(handler: Handler) -> None:
        other = str(handler.headers["Host"]).startswith("localhost")
        handler.reply(b"User-agent: *\nDisallow: /" if other else b"")

    server.add("/robots.txt", rules)
    server.add("/b.jpg", JPEG)
    (row,) = polite.run(server.add("/a.jpg", redirect(server.url("/b.jpg", host="localhost"))))
    assert row.outcome is Outcome.DISALLOWED
    assert server.hits["/b.jpg"] == 0


def test_a_crawl_delay_is_obeyed(polite: Partition, server: Server) -> None:
    server.add("/robots.txt", b"User-agent: *\nCrawl-delay: 0.2\n")
    start = time.monotonic()
    polite.run(*(server.add(f"/{n}.jpg", JPEG) for n in range(6)))
    assert time.monotonic() - start >= 0.8


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\xef\xbb\xbf" + FORBIDDEN, {}),
        (FORBIDDEN.decode().encode("utf-16"), {}),
        (FORBIDDEN.decode().encode("utf-16-be"), {"Content-Type": "text/plain; charset=utf-16"}),
        (gzip.compress(FORBIDDEN, mtime=0), {"Content-Encoding": "gzip"}),
        (gzip.compress(FORBIDDEN, mtime=0), {}),
        (gzip.compress(b"# our rules\n", mtime=0) + gzip.compress(FORBIDDEN, mtime=0), {}),
        (gzip.compress(FORBIDDEN + b"#" * 5_000_000, mtime=0), {"Content-Encoding": "gzip"}),
    ],
    ids=[
        "utf-8 mark",
        "utf-16 mark",
        "utf-16",
        "gzip",
        "gzip without header",
        "two gzip members",
        "large gzip",
    ],
)
def test_rules_apply_whatever_the_encoding_of_robots_txt(
    polite: Partition, server: Server, body: bytes, headers: dict[str, str]
) -> None:
    server.add("/robots.txt", answer(body, headers=headers))
    (row,) = polite.run(server.add("/a.jpg", JPEG))
    assert (row.outcome, row.http_status) == (Outcome.DISALLOWED, None)


@pytest.mark.parametrize("delay", ["86400", "1e300"])
def test_a_long_crawl_delay_is_capped_and_the_progress_line_says_so(
    polite: Partition, server: Server, delay: str
) -> None:
    polite.with_settings(crawl_delay_max_s=0.05)
    server.add("/robots.txt", f"User-agent: *\nCrawl-delay: {delay}\n".encode())
    rows = polite.run(*(server.add(f"/{n}.jpg", JPEG) for n in range(3)))
    assert {row.outcome for row in rows} == {Outcome.OK}
    assert polite.log[-1].endswith(
        f"; crawl-delay of {server.url('')}: 0.05 s (download.crawl_delay_max_s) instead of "
        f"{float(delay):g} s"
    )


RESERVED = b'[{"location": "/", "tdm-reservation": 1}]'
TDM_FILE = "/.well-known/tdmrep.json"


@pytest.mark.parametrize(
    ("header", "opt_out"),
    [
        ("X-Robots-Tag: IMGASSETS: nofollow, NoAI", "noai"),
        ("X-Robots-Tag: googlebot: nofollow\nX-Robots-Tag: noimageai", "noimageai"),
        ("X-Robots-Tag: unavailable_after: 25 Jun 2030 15:00:00 PST, noml", "noml"),
        ("X-Robots-Tag: none", "noindex"),
        ("X-Robots-Tag: noimageindex", "noimageindex"),
        ("tdm-reservation: 1", "tdm-reservation"),
        ("Content-Usage: search=y\nContent-Usage: train-ai=n", "content-usage"),
    ],
)
def test_a_header_that_opts_out_is_obeyed_unless_its_switch_is_off(
    polite: Partition, server: Server, header: str, opt_out: str
) -> None:
    def found(handler: Handler) -> None:
        handler.send_response(200)
        for line in header.splitlines():
            handler.send_header(*line.split(": ", 1))
        handler.send_header("Content-Length", str(len(JPEG)))
        handler.end_headers()
        handler.wfile.write(JPEG)

    polite.with_settings(opt_outs=OPT_OUTS)
    (row,) = polite.run(server.add("/a.jpg", found))
    assert (row.outcome, row.http_status) == (Outcome.DISALLOWED, 200)
    assert str(row.error).startswith(f"the {header.splitlines()[-1].split(':')[0]} header says ")
    assert str(row.error).endswith(f"(download.opt_outs: {opt_out})")
    assert polite.files == {}
    others = [name for name in OPT_OUTS if name != opt_out]
    (row,) = polite.with_settings(opt_outs=others).run(server.url("/a.jpg"))
    assert row.outcome is Outcome.OK


def test_tdmrep_json_is_requested_once_after_robots_txt_and_obeyed(
    polite: Partition, server: Server
) -> None:
    polite.with_settings(opt_outs=OPT_OUTS)
    server.add("/robots.txt", b"User-agent: *\nDisallow: /.well-known/\nDisallow: /private/\n")
    rules = b'[{"location": "/ours/", "tdm-reservation": 1}]'
    server.add(TDM_FILE, redirect("/tdm.json"))
    server.add("/tdm.json", slow(0.2, answer(rules)))
    server.otherwise = answer(JPEG)
    # The first URLs are disallowed, so that their host is known before its tdmrep.json is.
    paths = ["private", "private", *["ours", "free"] * 10]
    rows = polite.run(*(server.url(f"/{path}/{n}.jpg") for n, path in enumerate(paths)))
    reserved = f"{server.url(TDM_FILE)} reserves /ours/ (download.opt_outs: tdm-reservation)"
    for row, path in zip(rows, paths, strict=True):
        assert row.outcome is (Outcome.OK if path == "free" else Outcome.DISALLOWED)
        if path == "ours":
            assert (row.error, row.http_status) == (reserved, None)
    assert server.hits["/robots.txt"] == server.hits[TDM_FILE] == server.hits["/tdm.json"] == 1
    assert not any(path.startswith(("/ours", "/private")) for path in server.hits)


@pytest.mark.parametrize(
    "response",
    [
        answer(RESERVED, 404),
        answer(RESERVED, 500),
        answer(RESERVED, 503, {"Retry-After": "60"}),
        answer(RESERVED, 401),
        answer(b"<html>" + b"x" * 600_000, headers={"Content-Type": "text/html"}),
        answer(b'["' + b"x" * 600_000 + b'"]'),
        redirect(TDM_FILE),
        redirect("ftp://shop.example/tdmrep.json"),
        hang,
        reset,
        endless,
    ],
    ids=["404", "500", "503", "401", "page", "large", "loop", "ftp", "hang", "reset", "endless"],
)
def test_a_tdmrep_json_that_cannot_be_read_loses_no_image(
    polite: Partition, server: Server, response: Answer
) -> None:
    polite.with_settings(opt_outs=OPT_OUTS, read_timeout_s=0.2, breaker_failures=1, max_refusals=1)
    server.add(TDM_FILE, response)
    rows = polite.run(*(server.add(f"/{n}.jpg", JPEG) for n in range(10)))
    assert {(row.outcome, row.attempts) for row in rows} == {(Outcome.OK, 1)}
    # One, five redirects, or one that libcurl sends again on a new connection.
    assert server.hits[TDM_FILE] <= 6


def test_a_crawl_delay_is_kept_after_tdmrep_json(polite: Partition, server: Server) -> None:
    at: dict[str, float] = {}

    def found(handler: Handler) -> None:
        at[handler.path] = time.monotonic()
        handler.reply(JPEG)

    polite.with_settings(opt_outs=OPT_OUTS)
    server.add("/robots.txt", b"User-agent: *\nCrawl-delay: 0.3\n")
    server.add(TDM_FILE, found)
    (row,) = polite.run(server.add("/a.jpg", found))
    assert (row.outcome, row.attempts) == (Outcome.OK, 1)
    assert at["/a.jpg"] - at[TDM_FILE] >= 0.3


def test_tdmrep_json_is_not_requested_if_it_is_switched_off_but_without_robots_txt(
    polite: Partition, server: Server
) -> None:
    server.add(TDM_FILE, RESERVED)
    url = server.add("/a.jpg", JPEG)
    (row,) = polite.with_settings(opt_outs=HEADER_OPT_OUTS).run(url)
    assert (row.outcome, server.hits[TDM_FILE]) == (Outcome.OK, 0)
    (row,) = polite.with_settings(opt_outs=OPT_OUTS, robots=False).run(server.add("/b.jpg", JPEG))
    assert (row.outcome, server.hits["/b.jpg"]) == (Outcome.DISALLOWED, 0)


def test_content_usage_in_robots_txt_is_obeyed_unless_its_switch_is_off(
    polite: Partition, server: Server
) -> None:
    text = b"User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /free/ train-ai=y\n"
    server.add("/robots.txt", text)
    urls = [server.add(path, JPEG) for path in ("/a.jpg", "/free/a.jpg")]
    reserved, free = polite.run(*urls)
    assert (reserved.outcome, free.outcome) == (Outcome.DISALLOWED, Outcome.OK)
    assert reserved.error == (
        f"Content-Usage in {server.url('/robots.txt')} says that this URL is not for AI training "
        "(download.opt_outs: content-usage)"
    )
    assert server.hits["/a.jpg"] == 0
    rows = polite.with_settings(opt_outs=[]).run(*urls)
    assert {row.outcome for row in rows} == {Outcome.OK}


def test_a_host_that_keeps_failing_is_down_after_a_few_requests(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(breaker_failures=4, breaker_cooldown_s=0.1, threads=4, retries=0)
    server.otherwise = answer(b"", 503)
    rows = partition.run(*(server.url(f"/{n}.jpg") for n in range(200)))
    outcomes = {str(row.outcome) for row in rows}
    assert outcomes == {"http_error", "host_down"}
    assert server.hits.total() < 50
    down = [row for row in rows if row.outcome is Outcome.HOST_DOWN]
    assert all(row.attempts == 0 and "status 503" in str(row.error) for row in down)


def test_a_url_that_was_tried_before_its_host_was_down_keeps_its_own_error(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(breaker_failures=2, breaker_cooldown_s=0.05, threads=2, retries=5)
    server.otherwise = answer(b"", 503)
    rows = partition.run(*(server.url(f"/{n}.jpg") for n in range(2)))
    assert {row.outcome for row in rows} == {Outcome.HTTP_ERROR}
    assert all(row.attempts < 6 for row in rows)


def test_all_urls_of_a_host_that_recovers_after_a_cooldown_are_fetched(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(breaker_failures=3, breaker_cooldown_s=0.2, threads=3, retries=3)
    server.otherwise = in_turn(*[answer(b"", 503)] * 4, answer(JPEG))
    rows = partition.run(*(server.url(f"/{n}.jpg") for n in range(20)))
    assert {row.outcome for row in rows} == {Outcome.OK}
    assert server.hits.total() == 24


def test_a_host_that_is_down_does_not_affect_another(partition: Partition, server: Server) -> None:
    partition.with_settings(breaker_failures=2, breaker_cooldown_s=0.3, threads=2, retries=0)
    server.otherwise = answer(b"", 503)
    good = [server.add(f"/good{n}.jpg", JPEG) for n in range(10)]
    bad = [server.url(f"/bad{n}.jpg", host="localhost") for n in range(10)]
    rows = partition.run(*bad, *good)
    assert {row.outcome for row in rows[10:]} == {Outcome.OK}
    assert {str(row.outcome) for row in rows[:10]} == {"http_error", "host_down"}


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_host_that_refuses_every_request_is_left_alone(
    partition: Partition, server: Server, status: int
) -> None:
    partition.with_settings(max_refusals=20, retries=0, threads=4, breaker_failures=0)
    server.otherwise = answer(b"", status)
    image = server.add("/good.jpg", JPEG).replace("127.0.0.1", "localhost")
    rows = partition.run(*(server.url(f"/{n}.jpg") for n in range(300)), image)
    assert rows[-1].outcome is Outcome.OK
    refused = [row for row in rows if row.outcome is Outcome.HTTP_ERROR]
    down = [row for row in rows if row.outcome is Outcome.HOST_DOWN]
    # Those in flight when the limit is reached are answered too.
    assert 20 <= len(refused) <= 23
    assert len(down) == 300 - len(refused)
    reason = (
        f"{server.url('')} refused 20 requests without a success in between "
        "(download.max_refusals), so its other URLs are not requested in this run; last answer: "
        f"the server answered with status {status}"
    )
    assert {(row.error, row.http_status, row.attempts) for row in down} == {(reason, None, 0)}
    assert partition.log.count(reason) == 1


@pytest.mark.parametrize("max_refusals", [0, 9])
def test_refusals_with_a_success_in_between_or_without_a_limit_end_nothing(
    partition: Partition, server: Server, max_refusals: int
) -> None:
    partition.with_settings(max_refusals=max_refusals, threads=1, retries=0)
    server.otherwise = answer(b"", 403)
    urls = [server.url(f"/{n}.jpg") for n in range(40)]
    if max_refusals:
        for n in range(8, 40, 9):
            server.add(f"/{n}.jpg", JPEG)
    outcomes = {str(row.outcome) for row in partition.run(*urls)}
    assert outcomes == ({"http_error", "ok"} if max_refusals else {"http_error"})


def test_neither_a_404_nor_a_page_nor_a_redirect_is_a_success(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(max_refusals=9, threads=1, retries=0)
    server.otherwise = answer(b"", 403)
    urls = [server.url(f"/{n}.jpg") for n in range(40)]
    server.add("/3.jpg", answer(b"", 404))
    server.add("/4.jpg", b"<html>blocked</html>")
    server.add("/5.jpg", redirect("/blocked"))
    rows = partition.run(*urls)
    assert server.hits.total() == 12
    assert sum(row.outcome is Outcome.HOST_DOWN for row in rows) == 29


def test_404_does_not_count_as_a_failure_of_the_host(partition: Partition, server: Server) -> None:
    partition.with_settings(breaker_failures=2, retries=0)
    server.otherwise = answer(b"", 404)
    rows = partition.run(*(server.url(f"/{n}.jpg") for n in range(30)))
    assert {row.outcome for row in rows} == {Outcome.HTTP_ERROR}


@pytest.mark.parametrize("robots", [True, False])
def test_an_unreachable_host_is_down_after_a_few_requests(polite: Partition, robots: bool) -> None:
    polite.with_settings(breaker_cooldown_s=0.05, robots=robots, opt_outs=OPT_OUTS)
    rows = polite.run(*(f"http://127.0.0.1:9/{n}.jpg" for n in range(100)))
    assert {str(row.outcome) for row in rows} == {"connection_error", "host_down"}
    assert sum(row.outcome is Outcome.HOST_DOWN for row in rows) > 80
