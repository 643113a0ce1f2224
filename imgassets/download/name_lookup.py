"""Look up host names in threads of their own, for both HTTP clients.

A lookup cannot be interrupted: while a DNS server does not answer, `socket.getaddrinfo` blocks for
up to a minute. libcurl looks up at most 20 names at a time, so that 20 dead names would delay all
others beyond their time limit.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from concurrent.futures import CancelledError, Future

from imgassets.download.client import timeout_error
from imgassets.errors import FetchAbortedError, FetchError
from imgassets.manifests import Outcome

_MAX_THREADS = 256
"""A thread waits for one dead name at a time, and only while somebody may still need it."""


class NameLookup:
    """Looks up the addresses of host names. Thread-safe; answers are not cached."""

    def __init__(self, *, max_threads: int = _MAX_THREADS) -> None:
        """Create a lookup; threads start on demand and end when there is nothing to do.

        Args:
            max_threads: Maximum number of names that are looked up at a time.
        """
        self._max_threads = max_threads
        self._lock = threading.Lock()
        self._threads = 0
        self._queue: deque[str] = deque()
        # The addresses, or why there are none.
        self._pending: dict[str, Future[list[str] | str]] = {}
        self._aborted = False

    def addresses(self, name: str, timeout_s: float) -> list[str]:
        """Return the IP addresses of a host; threads that ask for the same name share a lookup.

        Args:
            name: The host name, or an IP address without brackets.
            timeout_s: Maximum seconds to wait. The lookup itself goes on.

        Returns:
            The IPv4 and IPv6 addresses, the preferred one first.

        Raises:
            FetchError: The name has no address, or there was no answer in time.
            FetchAbortedError: `abort` was called.
        """
        try:
            found = self._start(name).result(timeout_s)
        except CancelledError:
            raise FetchAbortedError from None
        except TimeoutError:
            raise timeout_error(
                f"the host name {name} was not resolved within {timeout_s:.3g} s"
            ) from None
        if isinstance(found, str):
            message = f"the host name {name} cannot be resolved: {found}"
            raise FetchError(Outcome.CONNECTION_ERROR, message, retryable=True)
        return found

    def abort(self) -> None:
        """Wake all waiting threads and refuse new lookups; running ones are left to end."""
        with self._lock:
            self._aborted = True
            self._queue.clear()
            pending = list(self._pending.values())
        for future in pending:
            future.cancel()

    def _start(self, name: str) -> Future[list[str] | str]:
        with self._lock:
            if self._aborted:
                raise FetchAbortedError
            future = self._pending.get(name)
            if future is None:
                future = self._pending[name] = Future()
                self._queue.append(name)
                if self._threads < self._max_threads:
                    self._threads += 1
                    threading.Thread(target=self._work, name="download-dns", daemon=True).start()
            return future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._threads -= 1
                    return
                name = self._queue.popleft()
            found = _look_up(name)
            with self._lock:
                future = self._pending.pop(name)
            if future.set_running_or_notify_cancel():
                future.set_result(found)


def _look_up(name: str) -> list[str] | str:
    try:
        infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeError:
        return "a part of it is empty or has more than 63 characters"
    found = [str(sockaddr[0]) for *_, sockaddr in infos]
    # Addresses with a zone (`fe80::1%eth0`) are link-local; libcurl does not accept them.
    return [address for address in found if "%" not in address] or "it has no usable address"
