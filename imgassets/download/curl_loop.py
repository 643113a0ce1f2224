"""Run all libcurl transfers in one thread, for many threads that wait for them.

This is an event loop on libcurl's multi-socket interface
(https://curl.se/libcurl/c/libcurl-multi.html). Request options and the meaning of responses belong
in `curl_client`.

libcurl calls Python for each header line and each 16 kB. If every thread ran its own transfer, each
of these calls would compete for Python's GIL, and half of the time would go into passing it on.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import threading
import time
from collections import deque

import pycurl  # type: ignore[import-untyped]

from imgassets.errors import FetchAbortedError

_CHECK_INTERVAL_S = 0.2
"""Seconds between two looks for stalled requests; one may exceed its time limit by this much."""
_EVENTS = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}


class CurlTransfer:
    """A libcurl handle and the thread that waits for it; one request at a time.

    Attributes:
        curl: The libcurl handle.
        read_s: Maximum seconds without a received byte, once the request is sent.
        error: libcurl's error code and message for the last request; None if it succeeded.
    """

    def __init__(self, curl: pycurl.Curl) -> None:
        self.curl = curl
        self.read_s = math.inf
        self.error: tuple[int, str] | None = None
        self._received = 0
        self._received_at = 0.0
        self._exception: Exception | None = None
        self._finished = threading.Lock()
        self._finished.acquire()

    def is_stalled(self, now: float) -> bool:
        """Whether no byte was received for `read_s` seconds until `now` (`time.monotonic()`)."""
        curl = self.curl
        # Opening the connection has a time limit of its own.
        if curl.getinfo(pycurl.PRETRANSFER_TIME):
            received = curl.getinfo(pycurl.SIZE_DOWNLOAD_T) + curl.getinfo(pycurl.HEADER_SIZE)
            if received == self._received:
                return now - self._received_at > self.read_s
            self._received = received
        self._received_at = now
        return False

    def start(self, now: float) -> None:
        """Begin a request at `now` (`time.monotonic()`)."""
        self._received, self._received_at = 0, now

    def finish(self, error: tuple[int, str] | None, exception: Exception | None = None) -> None:
        """Wake the waiting thread.

        Args:
            error: libcurl's error code and message; None on success.
            exception: The exception that `wait` raises, if any.
        """
        self.error = error
        self._exception = exception
        self._finished.release()

    def wait(self) -> None:
        """Wait for the end of the request.

        Raises:
            FetchAbortedError: The loop was stopped.
            RuntimeError: The loop ended because of a bug.
        """
        self._finished.acquire()
        if self._exception is not None:
            raise self._exception


class CurlLoop:
    """The event loop; its thread starts with the first request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[CurlTransfer] = deque()
        self._stopped = False
        self._bug: str | None = None
        self._idle = False
        self._active: dict[pycurl.Curl, CurlTransfer] = {}
        self._timer_due: float | None = None
        self._check_due = 0.0
        self._multi = pycurl.CurlMulti()
        # No HTTP/2 multiplexing: a broken connection then fails only one request.
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_NOTHING)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="download-curl", daemon=True)
        self._started = False

    def perform(self, transfer: CurlTransfer) -> None:
        """Send the transfer's request and wait until it has ended.

        Raises:
            FetchAbortedError: The loop is stopped.
            RuntimeError: The loop ended because of a bug.
        """
        with self._lock:
            if self._stopped:
                raise self._stop_reason()
            self._queue.append(transfer)
            if not self._started:
                self._started = True
                self._thread.start()
        # The loop sets `_idle` before it checks the queue a last time, so no request is missed.
        if self._idle:
            self._wake()
        transfer.wait()

    def stop(self) -> None:
        """Cancel all requests in flight and refuse new ones."""
        with self._lock:
            self._stopped = True
        self._wake()

    def close(self) -> None:
        """Stop the loop and free libcurl's resources."""
        self.stop()
        if self._started:
            self._thread.join()
        self._multi.close()
        self._selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()

    def _stop_reason(self) -> Exception:
        return FetchAbortedError() if self._bug is None else RuntimeError(self._bug)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_sender.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._start_queued()
                self._handle_events(self._wait_for_events())
                self._finish_done()
                self._finish_stalled()
        except Exception as error:  # noqa: BLE001  (otherwise waiting threads would hang)
            self._bug = f"the event loop of libcurl failed: {type(error).__name__}: {error}"
        with self._lock:
            self._stopped = True
        # Remove all handles before waking any thread: it may reconfigure its handle at once.
        for curl in self._active:
            with contextlib.suppress(pycurl.error):
                self._multi.remove_handle(curl)
        for transfer in [*self._active.values(), *self._queue]:
            transfer.finish(None, self._stop_reason())

    def _start_queued(self) -> None:
        while self._queue:
            transfer = self._queue.popleft()
            transfer.start(time.monotonic())
            self._active[transfer.curl] = transfer
            self._multi.add_handle(transfer.curl)

    def _wait_for_events(self) -> list[tuple[selectors.SelectorKey, int]]:
        self._idle = True
        try:
            if self._queue or self._stopped:
                return []
            due = self._timer_due
            if self._active and (due is None or self._check_due < due):
                due = self._check_due
            timeout_s = None if due is None else max(due - time.monotonic(), 0)
            return self._selector.select(timeout_s)
        finally:
            self._idle = False

    def _handle_events(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, events in ready:
            if key.fileobj is self._wake_receiver:
                with contextlib.suppress(BlockingIOError):
                    self._wake_receiver.recv(4096)
                continue
            bits = pycurl.CSELECT_IN if events & selectors.EVENT_READ else 0
            if events & selectors.EVENT_WRITE:
                bits |= pycurl.CSELECT_OUT
            self._multi.socket_action(key.fd, bits)
        if self._timer_due is not None and self._timer_due <= time.monotonic():
            self._timer_due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _finish_done(self) -> None:
        remaining = 1
        while remaining:
            remaining, done, failed = self._multi.info_read()
            for curl in done:
                self._finish(curl, None)
            for curl, code, message in failed:
                self._finish(curl, (code, message))

    def _finish_stalled(self) -> None:
        """End the requests that receive nothing.

        libcurl's own limit (CURLOPT_LOW_SPEED_TIME) waits for the time limit of connecting, too, if
        several requests hang at once: libcurl 8.23 drops its timer on the multi-socket interface.
        """
        now = time.monotonic()
        if now < self._check_due:
            return
        self._check_due = now + _CHECK_INTERVAL_S
        for transfer in [*self._active.values()]:
            if transfer.is_stalled(now):
                message = f"no data received for {transfer.read_s:g} s"
                self._finish(transfer.curl, (pycurl.E_OPERATION_TIMEDOUT, message))

    def _finish(self, curl: pycurl.Curl, error: tuple[int, str] | None) -> None:
        self._multi.remove_handle(curl)
        self._active.pop(curl).finish(error)

    def _watch_socket(self, what: int, descriptor: int, _multi: object, _data: object) -> None:
        registered = descriptor in self._selector.get_map()
        if what == pycurl.POLL_REMOVE:
            if registered:
                self._selector.unregister(descriptor)
        elif registered:
            self._selector.modify(descriptor, _EVENTS[what])
        else:
            self._selector.register(descriptor, _EVENTS[what])

    def _set_timer(self, milliseconds: int) -> None:
        self._timer_due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000
