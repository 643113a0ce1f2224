"""The asset `raw_images` on servers that misbehave: ten URLs of each, in one partition.

The details of each behaviour are tested in `imgassets_tests/download`.
"""

from __future__ import annotations

import codecs
import gzip
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count

import dagster as dg
import pytest

from imgassets.manifests import Outcome, RawRow, UrlRow, from_table, to_table
from imgassets.storage import Storage
from imgassets_tests.download.images import image_bytes, png_of
from imgassets_tests.download.server import (
    Answer,
    Handler,
    Server,
    answer,
    body_until_close,
    chunked,
    endless,
    hang,
    in_turn,
    redirect,
    reset,
    reset_halfway,
    running,
    wrong_content_length,
)
from imgassets_tests.project import project_defs
from imgassets_tests.rows import PARTITION, url_row

URLS = 10


@dataclass(frozen=True)
class Behaviour:
    """What a server does, and what becomes of its ten URLs.

    Attributes:
        image: Makes the answer for the image of a number, 0 to 9.
        outcomes: The outcomes that the rows may have.
        error: Pattern that the rows' errors contain; None for rows without an error.
        others: Answers at further paths.
        requests: Most requests that the server may get, with those for robots.txt and tdmrep.json.
    """

    image: Callable[[int], Answer]
    outcomes: set[Outcome]
    error: str | None = None
    others: Mapping[str, Answer] = field(default_factory=dict)
    requests: int = 2 + URLS


def always(response: Answer) -> Callable[[int], Answer]:
    return lambda _: response


def first(response: Answer, images: int = URLS) -> Callable[[int], Answer]:
    """Answer the first request of these images so, and all other requests with the image."""
    image = answer(JPEG)
    return lambda number: in_turn(response, image) if number < images else image


def with_header(name: str, value: str) -> Callable[[int], Answer]:
    return always(answer(JPEG, headers={name: value}))


def raw(data: bytes) -> Answer:
    """Send these bytes and close the connection."""

    def respond(handler: Handler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return respond


def close_kept_connection(handler: Handler) -> None:
    """Send the image as if the connection stayed open, and close it."""
    handler.reply(JPEG)
    handler.close_connection = True


def endless_error(handler: Handler) -> None:
    handler.head(404, {"Connection": "close"})
    while not handler.server.closing.is_set():
        handler.wfile.write(bytes(65_536))


def robots(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Return a server whose images are fine, with this robots.txt, which allows them."""
    others = {"/robots.txt": answer(body, status, headers)}
    return Behaviour(always(answer(JPEG)), {Outcome.OK}, others=others)


def disallowed(body: bytes, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Return a server whose robots.txt forbids its images."""
    return replace(
        robots(body, headers=headers),
        outcomes={Outcome.DISALLOWED},
        error=r"/robots.txt disallows this URL",
        requests=1,
    )


def forbidding_header(name: str, value: str, switch: str) -> Behaviour:
    """Return a server that opts out with a header of its images."""
    return Behaviour(
        always(answer(JPEG, headers={name: value})),
        {Outcome.DISALLOWED},
        rf"(?i){name}.*download\.opt_outs: {switch}",
    )


JPEG = image_bytes()
PIXEL = png_of(1, 1) + bytes(200)
TWICE = 2 + 2 * URLS
DENY = "User-agent: *\nDisallow: /\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(JPEG)

BEHAVIOURS = {
    "sends images": Behaviour(always(answer(JPEG)), {Outcome.OK}),
    "sends chunks": Behaviour(always(chunked(JPEG)), {Outcome.OK}),
    "sends no length": Behaviour(always(body_until_close(JPEG)), {Outcome.OK}),
    "closes kept connections": Behaviour(always(close_kept_connection), {Outcome.OK}),
    "compresses images": Behaviour(
        always(answer(gzip.compress(JPEG, mtime=0), headers={"Content-Encoding": "gzip"})),
        {Outcome.OK},
    ),
    "sends early hints": Behaviour(
        always(raw(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + HEAD + b"\r\n" + JPEG)),
        {Outcome.OK},
    ),
    "is processing": Behaviour(
        always(raw(b"HTTP/1.1 102 Processing\r\n\r\n" + HEAD + b"\r\n" + JPEG)), {Outcome.OK}
    ),
    "redirects": Behaviour(
        always(redirect("/there.jpg")),
        {Outcome.OK},
        others={"/there.jpg": answer(JPEG)},
        requests=TWICE,
    ),
    "redirects to a page": Behaviour(
        always(redirect("/there.jpg")),
        {Outcome.NOT_AN_IMAGE},
        r"/there\.jpg",
        others={"/there.jpg": answer(b"<!doctype html><title>gone</title>")},
        requests=TWICE,
    ),
    "redirects in a circle": Behaviour(
        always(redirect("/there.jpg")),
        {Outcome.TOO_MANY_REDIRECTS},
        r"max_redirects",
        others={"/there.jpg": redirect("/there.jpg")},
        requests=2 + URLS * 6,
    ),
    "redirects to two places": Behaviour(
        always(raw(b"HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: /b\r\n\r\n")),
        {Outcome.INVALID_URL},
        r"different Location headers",
    ),
    "has no images": Behaviour(always(answer(b"gone", 404)), {Outcome.HTTP_ERROR}, r"404"),
    "has endless error pages": Behaviour(always(endless_error), {Outcome.HTTP_ERROR}, r"404"),
    "is overloaded once": Behaviour(
        first(answer(b"", 503), images=3), {Outcome.OK}, requests=TWICE
    ),
    "is overloaded": Behaviour(
        always(answer(b"", 503)), {Outcome.HTTP_ERROR, Outcome.HOST_DOWN}, r"503", requests=TWICE
    ),
    "limits the rate": Behaviour(
        first(answer(b"", 429, {"Retry-After": "0"}), images=3), {Outcome.OK}, requests=TWICE
    ),
    "limits the rate in its own way": Behaviour(
        first(answer(b"", 430), images=3), {Outcome.OK}, requests=TWICE
    ),
    "asks to return in 8,000 years": Behaviour(
        first(answer(b"", 503, {"Retry-After": "Fri, 31 Dec 9999 23:59:59 -9999"}), images=3),
        {Outcome.OK},
        requests=TWICE,
    ),
    # After the fifth answer, only requests in flight are completed.
    "refuses": Behaviour(
        always(answer(b"", 403)), {Outcome.HTTP_ERROR, Outcome.HOST_DOWN}, r"403", requests=9
    ),
    "does not answer": Behaviour(
        always(hang), {Outcome.TIMEOUT, Outcome.HOST_DOWN}, r"read_timeout_s", requests=TWICE
    ),
    # libcurl itself repeats a request whose kept-alive connection is reset.
    "resets connections": Behaviour(
        always(reset),
        {Outcome.CONNECTION_ERROR, Outcome.HOST_DOWN},
        r"reset|closed",
        requests=TWICE + 1,
    ),
    "resets connections once": Behaviour(first(reset, images=3), {Outcome.OK}, requests=TWICE),
    "resets connections halfway": Behaviour(
        always(reset_halfway(JPEG)),
        {Outcome.CONNECTION_ERROR, Outcome.HOST_DOWN},
        r"\w",
        requests=TWICE,
    ),
    "does not speak HTTP": Behaviour(
        always(raw(b"220 ftp.example ready\r\n")),
        {Outcome.CONNECTION_ERROR, Outcome.HOST_DOWN},
        r"\w",
        requests=TWICE,
    ),
    "contradicts itself": Behaviour(
        always(raw(HEAD + b"Content-Length: 5\r\n\r\n" + JPEG)),
        {Outcome.CONNECTION_ERROR, Outcome.HOST_DOWN},
        r"(?i)content.length",
        requests=TWICE,
    ),
    "sends less than it says": Behaviour(
        always(wrong_content_length(JPEG, len(JPEG) + 1)),
        {Outcome.CONNECTION_ERROR, Outcome.HOST_DOWN},
        r"\w",
        requests=TWICE,
    ),
    "cuts images that have no length": Behaviour(
        always(body_until_close(JPEG[:-2000])),
        {Outcome.CORRUPT},
        r"\w",
        requests=TWICE,
    ),
    "cuts images once": Behaviour(
        first(body_until_close(JPEG[:-2000])), {Outcome.OK}, requests=TWICE
    ),
    "sends half of the images": Behaviour(always(answer(JPEG[:-2000])), {Outcome.CORRUPT}, r"\w"),
    "sends pages": Behaviour(
        always(answer(b"<html>", headers={"Content-Type": "image/jpeg"})),
        {Outcome.NOT_AN_IMAGE},
        r"HTML",
    ),
    "sends nothing": Behaviour(always(answer(b"")), {Outcome.EMPTY}, r"\w"),
    "sends without an end": Behaviour(always(endless), {Outcome.TOO_LARGE}, r"max_bytes"),
    "sends single pixels": Behaviour(always(answer(PIXEL)), {Outcome.TOO_SMALL}, r"min_pixels"),
    "compresses without being asked": Behaviour(
        with_header("Content-Encoding", "x-unknown"), {Outcome.OK}
    ),
    "has no robots.txt": robots(b"no", 404),
    "has a robots.txt of a megabyte": robots(b"# long\n" * 150_000),
    "has an absurd crawl-delay": robots(b"User-agent: *\nCrawl-delay: 1e300\n"),
    "cannot read its robots.txt": Behaviour(
        always(answer(JPEG)),
        {Outcome.HTTP_ERROR},
        r"robots.txt cannot be read: .*500",
        others={"/robots.txt": answer(b"", 500)},
        requests=2,
    ),
    "forbids": disallowed(DENY.encode()),
    "forbids after a byte-order mark": disallowed(codecs.BOM_UTF8 + DENY.encode()),
    "forbids in UTF-16": disallowed(DENY.encode("utf-16")),
    "forbids in gzip": disallowed(
        gzip.compress(DENY.encode(), mtime=0), {"Content-Encoding": "gzip"}
    ),
    "wants no training": forbidding_header("X-Robots-Tag", "noai", "noai"),
    "wants no index": forbidding_header("X-Robots-Tag", "none", "noindex"),
    "reserves its rights": forbidding_header("TDM-Reservation", "1", "tdm-reservation"),
    "states its preferences": forbidding_header("Content-Usage", "train-ai=n", "content-usage"),
    "reserves its rights in a file": replace(
        robots(b"no", 404),
        outcomes={Outcome.DISALLOWED},
        error=r"tdmrep\.json.*tdm-reservation",
        others={
            "/.well-known/tdmrep.json": answer(b'[{"location": "/", "tdm-reservation": 1}]'),
        },
        requests=2,
    ),
    "states its preferences in robots.txt": replace(
        disallowed(b"User-agent: *\nContent-Usage: train-ai=n\nAllow: /\n"),
        error=r"robots\.txt.*content-usage",
        requests=2,
    ),
}


@pytest.mark.parametrize("client", ["curl", "requests"])
def test_ten_urls_of_each_server_end_as_they_should(client: str, storage: Storage) -> None:
    with ExitStack() as stack, dg.DagsterInstance.ephemeral() as instance:
        servers = {name: stack.enter_context(running()) for name in BEHAVIOURS}
        rows = run(client, storage, instance, list_urls(servers))
    assert len(rows) == URLS * len(BEHAVIOURS)
    wrong = [
        problem
        for (name, behaviour), start in zip(BEHAVIOURS.items(), count(0, URLS))
        for problem in problems(name, behaviour, rows[start : start + URLS], servers[name])
    ]
    assert not wrong, "\n".join(wrong)


def list_urls(servers: Mapping[str, Server]) -> list[UrlRow]:
    urls = []
    for name, server in servers.items():
        behaviour = BEHAVIOURS[name]
        for path, response in behaviour.others.items():
            server.add(path, response)
        urls += [server.add(f"/{number}.jpg", behaviour.image(number)) for number in range(URLS)]
    return [url_row(number, url=url) for number, url in enumerate(urls)]


def run(
    client: str, storage: Storage, instance: dg.DagsterInstance, urls: list[UrlRow]
) -> list[RawRow]:
    """Materialize `raw_images`, and return the rows of its manifest."""
    files = storage.partition(*PARTITION)
    files.write_manifest("url_list", to_table(urls, UrlRow))
    instance.add_dynamic_partitions("retailer", [PARTITION.retailer])
    job = dg.define_asset_job("job", selection=["raw_images"])
    defs = dg.Definitions.merge(project_defs(), dg.Definitions(jobs=[job]))
    download = {
        "client": client,
        "allow_private_addresses": True,
        "per_host": 4,
        "breaker_cooldown_s": 0.05,
        "read_timeout_s": 2,
        "retries": 1,
        "backoff_s": 0.01,
        "retry_after_max_s": 0.1,
        "crawl_delay_max_s": 0.01,
        "max_bytes": 200_000,
        "max_refusals": 5,
        "threads": 64,
    }
    settings = {"config": {"overrides": {"download": download}}}
    result = defs.resolve_job_def("job").execute_in_process(
        instance=instance,
        partition_key=PARTITION.key,
        run_config={"resources": {"imgassets_settings": settings}},
    )
    assert result.success
    return from_table(files.read_manifest("raw_images"), RawRow)


def problems(
    name: str, behaviour: Behaviour, rows: Sequence[RawRow], server: Server
) -> Iterator[str]:
    """Yield what is wrong with the rows of a server, and with its number of requests."""
    outcomes = {row.outcome for row in rows}
    if not outcomes <= behaviour.outcomes:
        yield f"{name}: {outcomes}, for example {rows[-1].error}"
    for row in rows:
        wrong = row.error if behaviour.error is None else None
        if behaviour.error is not None and not re.search(behaviour.error, row.error or ""):
            wrong = f"no {behaviour.error!r} in {row.error!r}"
        if wrong:
            yield f"{name}: {wrong}"
            break
    if server.hits.total() > behaviour.requests:
        yield f"{name}: {server.hits.total()} requests"
