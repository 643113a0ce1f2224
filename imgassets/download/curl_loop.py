"""One thread that drives all of libcurl's transfers, for many threads that wait for them.

Here lives libcurl's event loop (its multi-socket interface,
https://curl.se/libcurl/c/libcurl-multi.html). What is asked and what an answer means is in
`curl_client`. libcurl calls Python for each header line and each 16 kB: where every thread drives
a transfer of its own, each of these calls competes for Python's lock, and half of the time goes
into handing it round.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque

import pycurl  # type: ignore[import-untyped]

from imgassets.errors import FetchAbortedError

_CLOSE_S = 1.0
"""Seconds that the loop gets to end: libcurl may have to wait for a name lookup."""
_EVENTS = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}


class Transfer:
    """A libcurl handle, and the thread that waits for it; one request at a time.

    Attributes:
        error: libcurl's code and message of the last request; none where an answer came.
    """

    def __init__(self, curl: pycurl.Curl) -> None:
        self.curl = curl
        self.error: tuple[int, str] | None = None
        self._broken: Exception | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def end(self, error: tuple[int, str] | None, broken: Exception | None = None) -> None:
        """Wake the thread that waits; it raises `broken`, if there is one."""
        self.error = error
        self._broken = broken
        self._ended.release()

    def wait(self) -> None:
        """Wait for the end of the request.

        Raises:
            FetchAbortedError: the loop was stopped.
            RuntimeError: the loop ended by a bug.
        """
        self._ended.acquire()
        if self._broken is not None:
            raise self._broken


class Loop:
    """The thread; it starts with the first request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inbox: deque[Transfer] = deque()
        self._stopped = False
        self._bug: str | None = None
        self._idle = False
        self._running: dict[pycurl.Curl, Transfer] = {}
        self._due: float | None = None
        self._multi = pycurl.CurlMulti()
        # A connection that breaks takes one request with it, in HTTP/2 too.
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_NOTHING)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._selector = selectors.DefaultSelector()
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._work, name="download-curl", daemon=True)
        self._started = False

    def perform(self, transfer: Transfer) -> None:
        """Send the transfer's request and wait for its end.

        Raises:
            FetchAbortedError: the loop is stopped.
            RuntimeError: the loop ended by a bug.
        """
        with self._lock:
            if self._stopped:
                raise self._refusal()
            self._inbox.append(transfer)
            if not self._started:
                self._started = True
                self._thread.start()
        # Set before the loop looks into the inbox for the last time: no request is left lying.
        if self._idle:
            self._ring()
        transfer.wait()

    def stop(self) -> None:
        """Break off all requests on their way, and refuse new ones."""
        with self._lock:
            self._stopped = True
        self._ring()

    def close(self) -> bool:
        """Stop, and free what libcurl holds; false where it is still busy with a name lookup."""
        self.stop()
        if self._started:
            self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            return False
        self._multi.close()
        self._selector.close()
        self._bell.close()
        self._button.close()
        return True

    def _refusal(self) -> Exception:
        return FetchAbortedError() if self._bug is None else RuntimeError(self._bug)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._button.send(b"\0")

    def _work(self) -> None:
        try:
            while not self._stopped:
                self._begin()
                self._move(self._wait())
                self._end()
        except Exception as error:  # noqa: BLE001  (or the threads would wait for ever)
            self._bug = f"the loop of libcurl broke: {type(error).__name__}: {error}"
        with self._lock:
            self._stopped = True
        # First, since a thread that wakes sets its handle up for the next request.
        for curl in self._running:
            with contextlib.suppress(pycurl.error):
                self._multi.remove_handle(curl)
        for transfer in [*self._running.values(), *self._inbox]:
            transfer.end(None, self._refusal())

    def _begin(self) -> None:
        while self._inbox:
            transfer = self._inbox.popleft()
            self._running[transfer.curl] = transfer
            self._multi.add_handle(transfer.curl)

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        self._idle = True
        try:
            if self._inbox or self._stopped:
                return []
            wait = None if self._due is None else max(self._due - time.monotonic(), 0)
            return self._selector.select(wait)
        finally:
            self._idle = False

    def _move(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, events in ready:
            if key.fileobj is self._bell:
                with contextlib.suppress(BlockingIOError):
                    self._bell.recv(4096)
                continue
            bits = pycurl.CSELECT_IN if events & selectors.EVENT_READ else 0
            if events & selectors.EVENT_WRITE:
                bits |= pycurl.CSELECT_OUT
            self._multi.socket_action(key.fd, bits)
        if self._due is not None and self._due <= time.monotonic():
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _end(self) -> None:
        more = 1
        while more:
            more, done, failed = self._multi.info_read()
            for curl in done:
                self._hand_back(curl, None)
            for curl, code, message in failed:
                self._hand_back(curl, (code, message))

    def _hand_back(self, curl: pycurl.Curl, error: tuple[int, str] | None) -> None:
        self._multi.remove_handle(curl)
        self._running.pop(curl).end(error)

    def _watch(self, what: int, descriptor: int, _multi: object, _data: object) -> None:
        known = descriptor in self._selector.get_map()
        if what == pycurl.POLL_REMOVE:
            if known:
                self._selector.unregister(descriptor)
        elif known:
            self._selector.modify(descriptor, _EVENTS[what])
        else:
            self._selector.register(descriptor, _EVENTS[what])

    def _set_timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000
