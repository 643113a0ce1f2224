"""Keep the limits per host over all processes that name the same Redis.

A request needs a slot of its host, which Redis grants in the order in which processes asked. Which
URL of a process is next, and what happens while its host has no free slot, is in `schedule`.

The libraries for rate limits (limits 5.8, pyrate-limiter 4.5) do not limit concurrency, and both
limits must be checked in one step: hence a Lua script, which Redis runs atomically.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from urllib.parse import urlsplit

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from imgassets.errors import SettingsError, SharedLimitsError

_LEASE_S = 15
"""Seconds after which the slots of a process that was killed are free; it renews them three times
as often."""
_PATIENCE_S = 60
"""Seconds for which a run waits for a Redis that does not answer."""
_TIMEOUT_S = 5
_RETRY_S = 1

# Times are in microseconds, on Redis' clock. A ticket is "limit interval id". `slots` has the
# tickets with a request in flight, by the time at which they expire; `queue` those that wait, by
# the time at which they first asked. `times` has the time of the last grant, and until when a
# waiting ticket keeps its place without asking again.
#
# Those ahead in the queue get their slots first, and their limits count: otherwise a process with
# lower limits would never get a slot beside one with higher ones.
_ACQUIRE = """
local slots, queue, times = KEYS[1], KEYS[2], KEYS[3]
local ticket, limit, interval = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local lease, poll, max_poll, grace = 1000000 * ARGV[4], 10000, 1000000, 2000000
local day_ms = 86400000  -- the maximum of download.crawl_delay_max_s
local function text(number) return string.format('%.0f', number) end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

redis.call('ZREMRANGEBYSCORE', slots, '-inf', text(now))
if redis.call('ZSCORE', slots, ticket) then return 0 end  -- granted before; the reply was lost
redis.call('ZADD', queue, 'NX', text(now), ticket)
local ahead = 0
for _, other in ipairs(redis.call('ZRANGE', queue, 0, -1)) do
  if other == ticket then break end
  if tonumber(redis.call('HGET', times, other) or 0) < now then
    redis.call('ZREM', queue, other)
    redis.call('HDEL', times, other)
  else
    local other_limit, other_interval = string.match(other, '^(%d+) (%d+) ')
    ahead = ahead + 1
    limit = math.min(limit, tonumber(other_limit))
    interval = math.max(interval, tonumber(other_interval))
  end
end

local wait = 0
if redis.call('ZCARD', slots) + ahead >= limit then
  -- Seldom if slots are seldom free: at most a tenth is lost.
  local waited = now - redis.call('ZSCORE', queue, ticket)
  wait = math.min(math.max(poll * (ahead + 1), math.floor(waited / 10)), max_poll)
end
if interval > 0 then
  local last = tonumber(redis.call('HGET', times, 'last') or 0)
  wait = math.max(wait, last + interval * (ahead + 1) - now)
end
if wait > 0 then
  redis.call('HSET', times, ticket, text(now + wait + grace))
else
  redis.call('ZREM', queue, ticket)
  redis.call('HDEL', times, ticket)
  redis.call('ZADD', slots, text(now + lease), ticket)
  redis.call('HSET', times, 'last', text(now))
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, day_ms) end
return wait
"""

_RENEW = """
local clock = redis.call('TIME')
local expiry = string.format('%.0f', clock[1] * 1000000 + clock[2] + 1000000 * ARGV[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], expiry, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], 86400000)
"""


class SharedLimits:
    """The slots of this process; a context manager that frees them on exit. Thread-safe."""

    def __init__(
        self,
        url: str,
        *,
        max_concurrent: int,
        log: Callable[[str], None],
        lease_s: float = _LEASE_S,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """Create the limits. Nothing is sent yet.

        Args:
            url: Address of Redis: redis, rediss or unix.
            max_concurrent: Maximum number of concurrent requests per host.
            log: Receives a line if Redis does not answer, and one if it does again.
            lease_s: Seconds after which the slots of a process that was killed are free.
            patience_s: Seconds without an answer after which `acquire` gives up.

        Raises:
            SettingsError: The address is not valid.
        """
        try:
            self._redis = Redis.from_url(
                url,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                # Once, at once: the server may have closed a connection that was idle.
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError as error:
            raise SettingsError(
                f"download.shared_limits is not the address of a Redis server ({error}); write it "
                "as redis://host:6379/0"
            ) from error
        self._acquire_script = self._redis.register_script(_ACQUIRE)
        self._renew_script = self._redis.register_script(_RENEW)
        # Without the password.
        parts = urlsplit(url)
        self._name = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
        self._max_concurrent = max_concurrent
        self._log = log
        self._lease_s = lease_s
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._waiting: dict[str, str] = {}
        self._held: defaultdict[str, list[str]] = defaultdict(list)
        # By host: `time.monotonic()` before which Redis would grant nothing.
        self._not_before: dict[str, float] = {}
        self._away_since: float | None = None
        self._resume_at = 0.0
        self._closing = threading.Event()
        self._renewer = threading.Thread(target=self._keep, name="shared-limits", daemon=True)

    def __enter__(self) -> SharedLimits:
        self._renewer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._renewer.join()
        with self._lock, contextlib.suppress(RedisError):
            if self._away_since is None:
                for host, tickets in self._held.items():
                    if tickets:
                        self._redis.zrem(_key(host, "slots"), *tickets)
                for host, ticket in self._waiting.items():
                    self._redis.zrem(_key(host, "queue"), ticket)
                    self._redis.hdel(_key(host, "times"), ticket)
            self._redis.close()

    def acquire(self, host: str, interval_s: float) -> float:
        """Ask for a slot of a host.

        Args:
            host: Origin of the host.
            interval_s: Minimum seconds between two requests to it, over all processes.

        Returns:
            0 if the request may be sent, which needs a `release`; otherwise the seconds to wait
            before asking again.

        Raises:
            SharedLimitsError: Redis has not answered for `patience_s`.
        """
        with self._lock:
            now = time.monotonic()
            resume_at = max(self._not_before.get(host, 0), self._resume_at)
            if now < resume_at:
                return resume_at - now
            if self._closing.is_set():
                return _RETRY_S
            try:
                if self._away_since is not None:
                    return self._resume(now)
                wait_s = self._ask(host, interval_s)
            except RedisError as error:
                return self._note_failure(error, now)
            if wait_s:
                self._not_before[host] = now + wait_s
            else:
                self._held[host].append(self._waiting.pop(host))
            return wait_s

    def release(self, host: str) -> None:
        """Free a slot of a host. If Redis does not answer, the slot expires."""
        with self._lock:
            ticket = self._held[host].pop()
            if self._away_since is None:
                try:
                    self._redis.zrem(_key(host, "slots"), ticket)
                except RedisError as error:
                    with contextlib.suppress(SharedLimitsError):
                        self._note_failure(error, time.monotonic())

    def _ask(self, host: str, interval_s: float) -> float:
        interval_us = math.ceil(interval_s * 1_000_000)
        # Kept until it is granted: it is the place in the queue.
        ticket = self._waiting.setdefault(
            host, f"{self._max_concurrent} {interval_us} {uuid.uuid4().hex}"
        )
        keys = [_key(host, "slots"), _key(host, "queue"), _key(host, "times")]
        arguments = (ticket, self._max_concurrent, interval_us, self._lease_s)
        return int(self._acquire_script(keys, arguments)) / 1_000_000

    def _keep(self) -> None:
        """Renew the slots until the end."""
        while not self._closing.wait(self._lease_s / 3):
            with self._lock:
                if self._away_since is None:
                    with contextlib.suppress(RedisError):
                        self._renew()

    def _renew(self) -> None:
        for host, tickets in self._held.items():
            if tickets:
                self._renew_script([_key(host, "slots")], [self._lease_s, *tickets])

    def _note_failure(self, error: RedisError, now: float) -> float:
        reason = str(error).rstrip(".")
        if self._away_since is None:
            self._away_since = now
            self._log(
                f"Redis at {self._name} (download.shared_limits) does not answer ({reason}); no "
                f"request is sent until it does, for at most {self._patience_s:g} s"
            )
        elif now - self._away_since >= self._patience_s:
            raise SharedLimitsError(
                f"Redis at {self._name} (download.shared_limits) has not answered for "
                f"{self._patience_s:g} s ({reason}), so no request may be sent; what was "
                "downloaded is kept: start Redis, or correct the address, and materialize the "
                "partition again"
            ) from error
        self._resume_at = time.monotonic() + _RETRY_S
        return _RETRY_S

    def _resume(self, now: float) -> float:
        """Continue after Redis was away, once all processes have renewed their slots.

        Redis may have lost them, or they have expired, while the requests are still in flight.
        """
        self._redis.ping()
        self._renew()
        self._away_since = None
        wait_s = self._lease_s / 3 + _RETRY_S
        self._resume_at = now + wait_s
        self._log(f"Redis at {self._name} answers again; requests continue in {wait_s:g} s")
        return wait_s


def _key(host: str, name: str) -> str:
    # The braces keep the keys of a host on one node of a Redis Cluster.
    return f"imgassets:{{{host}}}:{name}"
