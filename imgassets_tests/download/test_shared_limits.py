"""Tests the limits over several processes, with a real Redis server and a slow HTTP server."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from imgassets.download.schedule import HostLimits, Schedule
from imgassets.download.shared_limits import SharedLimits
from imgassets.errors import SettingsError, SharedLimitsError
from imgassets.manifests import Outcome
from imgassets.storage import Storage
from imgassets_tests.download.conftest import Partition
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Handler, Server
from imgassets_tests.download.test_schedule import task

JPEG = image_bytes()
HOST = "http://shop.example"


class RedisServer:
    """A Redis server on 127.0.0.1 that keeps nothing on disk."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = f"--port {self.port} --bind 127.0.0.1 --save  --appendonly no".split(" ")
        program = str(shutil.which("redis-server"))
        self._process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        client = redis.Redis.from_url(self.url)
        for _ in range(1000):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.01)
        client.close()

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian package redis-server)")
    server = RedisServer()
    server.start()
    yield server
    server.stop()


Join = Callable[..., SharedLimits]


@pytest.fixture
def join(redis_server: RedisServer) -> Iterator[Join]:
    """Return the limits as another process would have them."""
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    client.close()
    with ExitStack() as stack:

        def enter(max_concurrent: int = 2, **options: float) -> SharedLimits:
            limits = SharedLimits(
                redis_server.url, max_concurrent=max_concurrent, log=print, **options
            )
            return stack.enter_context(limits)

        yield enter


def acquire(limits: SharedLimits, interval_s: float = 0) -> None:
    """Ask again until the slot is granted, as the schedule does."""
    for _ in range(1000):
        if not (wait_s := limits.acquire(HOST, interval_s)):
            return
        time.sleep(wait_s)
    pytest.fail("no slot was granted")


def test_a_slot_is_free_again_after_its_release_or_the_end_of_its_process(join: Join) -> None:
    one, other = join(2), join(2)
    acquire(one)
    acquire(other)
    assert one.acquire(HOST, 0) > 0
    assert one.acquire("http://other.example", 0) == 0
    other.release(HOST)
    acquire(one)
    assert other.acquire(HOST, 0) > 0
    one.__exit__()
    acquire(other)
    acquire(other)


def test_slots_are_granted_in_the_order_in_which_processes_asked(join: Join) -> None:
    one, other = join(1), join(1)
    acquire(one)
    wait_s = other.acquire(HOST, 0)
    one.release(HOST)
    assert one.acquire(HOST, 0) > 0  # a busy process does not keep all slots for itself
    time.sleep(wait_s)
    assert other.acquire(HOST, 0) == 0


def test_a_process_with_lower_limits_gets_its_turn_beside_one_with_higher_limits(
    join: Join,
) -> None:
    low, high = join(1), join(3)
    acquire(high)
    assert low.acquire(HOST, 0) > 0
    assert high.acquire(HOST, 0) > 0  # it would be free by the limit of `high`
    high.release(HOST)
    acquire(low)
    acquire(high)
    acquire(high)


def test_a_process_that_asks_no_more_does_not_hold_up_others_for_long(join: Join) -> None:
    one, gone, other = join(1), join(1), join(1)
    acquire(one)
    assert gone.acquire(HOST, 0) > 0
    assert other.acquire(HOST, 0) > 0
    one.release(HOST)
    acquire(other)


def test_a_process_that_has_waited_long_asks_less_often(join: Join) -> None:
    one, other = join(1), join(1)
    acquire(one)
    assert 0 < other.acquire(HOST, 0) <= 0.01
    time.sleep(0.5)
    assert other.acquire(HOST, 0) >= 0.05


def test_the_interval_is_kept_over_processes(join: Join) -> None:
    processes = [join(10), join(10)]
    start = time.monotonic()
    for n in range(6):
        acquire(processes[n % 2], interval_s=0.1)
    assert time.monotonic() - start >= 0.5


HOLD = """
import sys, time
from imgassets.download.shared_limits import SharedLimits
with SharedLimits(sys.argv[1], max_concurrent=2, log=print, lease_s=1) as limits:
    print(limits.acquire(sys.argv[2], 0), limits.acquire(sys.argv[2], 0), flush=True)
    time.sleep(60)
"""


def test_slots_of_a_living_process_are_renewed_and_those_of_a_killed_one_expire(
    join: Join, redis_server: RedisServer
) -> None:
    limits = join(2, lease_s=1)
    command = [sys.executable, "-c", HOLD, redis_server.url, HOST]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "0.0 0.0\n"
        time.sleep(1.5)
        assert limits.acquire(HOST, 0) > 0
        holder.kill()
    acquire(limits)
    acquire(limits)


class SlowAnswer:
    """Answers after a while, and counts. A request is counted only while it cannot have ended."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        self.times: list[float] = []

    def __call__(self, handler: Handler) -> None:
        with self._lock:
            self.times.append(time.monotonic())
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self._seconds)
        with self._lock:
            self._now -= 1
        handler.reply(JPEG)


Download = Callable[..., list[str]]


@pytest.fixture
def download(tmp_path: Path, server: Server) -> Iterator[Download]:
    """Download with two processes that start at the same time; return what each prints."""
    module = "imgassets_tests.download.run_shared"
    with ExitStack() as stack:

        def start(client: str, images: int, settings: dict[str, object]) -> subprocess.Popen[str]:
            urls = tmp_path / f"{client}.txt"
            urls.write_text("\n".join(server.url(f"/{client}/{n}.jpg") for n in range(images)))
            options = json.dumps(settings | {"client": client})
            arguments = [str(tmp_path / client), str(urls), options]
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        def run(
            images: int, at_start: Callable[[], object] = bool, **settings: object
        ) -> list[str]:
            processes = [start(client, images, settings) for client in ("curl", "requests")]
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            at_start()
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            return [process.communicate(timeout=60)[0] for process in processes]

        yield run


def test_two_processes_together_keep_the_concurrency_and_each_gets_its_share(
    download: Download, server: Server, redis_server: RedisServer
) -> None:
    server.otherwise = respond = SlowAnswer(0.05)
    for out in download(40, shared_limits=redis_server.url, per_host=4):
        assert "{'ok': 40}" in out
    assert respond.most == 4
    assert server.hits.total() == 80


def test_two_processes_together_keep_the_rate(
    download: Download, server: Server, redis_server: RedisServer, join: Join
) -> None:
    server.otherwise = respond = SlowAnswer(0.02)
    first: list[float] = []

    def send_first() -> None:
        first.append(time.monotonic())
        assert join(32).acquire(server.url(""), 1 / 40) == 0

    for out in download(20, send_first, shared_limits=redis_server.url, rate_per_host=40):
        assert "{'ok': 20}" in out
    # The request of this process and those of the others: 41 with 40 intervals.
    assert max(respond.times) - first[0] >= 1


@pytest.mark.parametrize("client", ["curl", "requests"])
def test_a_host_without_a_free_slot_does_not_hold_up_another(
    tmp_path: Path, server: Server, redis_server: RedisServer, join: Join, client: str
) -> None:
    busy = server.url("", host="localhost")
    other = join(1)
    assert other.acquire(busy, 0) == 0

    def last(handler: Handler) -> None:
        assert not any(path.startswith("/busy") for path in server.hits)
        other.release(busy)
        handler.reply(JPEG)

    urls = [server.add(f"/busy{n}.jpg", JPEG) for n in range(8)]
    urls = [url.replace("127.0.0.1", "localhost") for url in urls]
    urls += [server.add(f"/{n}.jpg", JPEG) for n in range(9)] + [server.add("/last.jpg", last)]
    partition = Partition(Storage(str(tmp_path / "data"))).with_settings(
        client=client, threads=1, per_host=1, shared_limits=redis_server.url
    )
    assert {row.outcome for row in partition.run(*urls)} == {Outcome.OK}


@pytest.mark.slow
def test_a_restart_of_redis_in_the_middle_loses_nothing_and_the_limit_is_kept(
    download: Download, server: Server, redis_server: RedisServer
) -> None:
    respond = SlowAnswer(0.1)

    def restart(handler: Handler) -> None:
        with server.lock:
            clients = [path.split("/")[1] for path in server.hits]
            both_run = min(clients.count(client) for client in ("curl", "requests")) >= 3
            if both_run:
                server.otherwise = respond
        if both_run:
            redis_server.stop()
            time.sleep(0.5)
            redis_server.start()
        respond(handler)

    server.otherwise = restart
    for out in download(30, shared_limits=redis_server.url, per_host=3, total_timeout_s=20):
        assert "{'ok': 30}" in out
        assert "(download.shared_limits) does not answer (" in out
        assert "answers again; requests continue in 6 s" in out
    assert respond.most <= 3
    assert server.hits.total() == 60


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port to which nothing can connect."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_without_redis_no_task_is_handed_out_and_the_error_says_what_to_do(
    closed_port: int,
) -> None:
    log: list[str] = []
    limits = HostLimits(
        max_concurrent=4, interval_s=0, max_failures=0, cooldown_s=1, wait_for_robots=False
    )
    url = f"redis://:s3cret@127.0.0.1:{closed_port}/0"
    with SharedLimits(url, max_concurrent=4, log=log.append, patience_s=0.5) as shared:
        schedule = Schedule([task(f"{HOST}/{n}") for n in range(8)], limits, shared)
        with pytest.raises(SharedLimitsError) as caught:
            schedule.take()
    message = str(caught.value)
    start = f"Redis at 127.0.0.1:{closed_port} (download.shared_limits) "
    assert message.startswith(f"{start}has not answered for 0.5 s (")
    assert "Connection refused" in message
    assert message.endswith(
        "start Redis, or correct the address, and materialize the partition again"
    )
    assert len(log) == 1
    assert log[0].startswith(f"{start}does not answer (")
    assert "s3cret" not in message + log[0]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("redis://127.0.0.1:port/0", "download.shared_limits is not the address of a Redis server"),
        ("redis://:${SECRET_X}@127.0.0.1", "download.shared_limits names the environment variable"),
    ],
)
def test_an_address_that_cannot_be_used_is_an_error_before_any_request(
    partition: Partition, server: Server, address: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        partition.with_settings(shared_limits=address).run(server.add("/a.jpg", JPEG))
    assert not server.hits


def test_without_the_package_redis_the_error_names_the_extra(
    partition: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imgassets.download.shared_limits", None)
    with pytest.raises(SettingsError, match=r"pip install 'imgassets\[redis\]'"):
        partition.with_settings(shared_limits="redis://a").run(server.add("/a.jpg", JPEG))
    assert not server.hits
