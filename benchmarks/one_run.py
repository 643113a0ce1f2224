"""Execute one run of a code location, and print how much CPU each part of it takes.

    python -m benchmarks.one_run MODULE JOB PARTITION_KEY

`partition_cost` starts it in a new interpreter or forked from the fork server, with a DAGSTER_HOME
in which the retailer is registered. CPU is sampled every 2 ms and attributed to the steps by the
times of Dagster's events. It includes child processes once they have ended.
"""

from __future__ import annotations

import bisect
import gc
import importlib
import os
import sys
import threading
import time
from pathlib import Path

import psutil

from imgassets.launcher.client import inherited_connection

_EVERY_S = 0.002


class _Clock:
    """Samples the CPU seconds of this process and its children."""

    def __init__(self) -> None:
        # In a forked run, the imaging worker is also forked: a child of the fork server.
        server = psutil.Process(os.getppid()) if inherited_connection() else None
        self._server_children = (lambda: _children_cpu(server)) if server else lambda: 0.0
        self._before = self._server_children()
        self._times: list[float] = []
        self._cpu: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def at(self, time_: float) -> float:
        """CPU seconds spent until a time, in seconds since 1970."""
        index = bisect.bisect(self._times, time_)
        return self._cpu[min(index, len(self._cpu) - 1)]

    def stop(self) -> None:
        """Stop sampling."""
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(_EVERY_S):
            children = os.times()
            spent = time.process_time() + children.children_user + children.children_system
            spent += self._server_children() - self._before
            self._times.append(time.time())
            self._cpu.append(spent)


def _children_cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.children_user + times.children_system)


class _GarbageCollectorTimer:
    """Measures the seconds that Python's garbage collector takes."""

    seconds = 0.0
    _began = 0.0

    def __call__(self, phase: str, _: object) -> None:
        """Start or stop the timer; Python calls this before and after each collection."""
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.seconds += time.perf_counter() - self._began


def main() -> None:
    """Execute the run and print the table."""
    module, job_name, partition = sys.argv[1:]
    with (Path(os.environ["DAGSTER_HOME"]) / "one_run.log").open("a") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())  # Dagster logs to stderr
    clock, collector = _Clock(), _GarbageCollectorTimer()
    gc.callbacks.append(collector)
    spans = [("interpreter", time.time())]
    import dagster as dg

    spans.append(("import dagster", time.time()))
    defs = importlib.import_module(module).defs
    spans.append((f"import {module}", time.time()))
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def(job_name)
        spans.append(("open the instance, resolve the job", time.time()))
        result = job.execute_in_process(partition_key=partition, instance=instance)
        ended = time.time()
        clock.stop()
        records = instance.all_logs(result.run_id)
    last = spans[-1][1]
    for record in records:
        event = record.dagster_event
        if event is not None and event.is_step_start:
            spans.append(("Dagster between steps", record.timestamp))
        elif event is not None and (event.is_step_success or event.is_step_failure):
            spans.append((f"step {event.step_key}", record.timestamp))
    spans.append(("Dagster between steps", ended))

    spent: dict[str, float] = {}
    previous = 0.0
    for part, until in spans:
        before = clock.at(previous) if previous else 0
        spent[part] = spent.get(part, 0.0) + clock.at(until) - before
        previous = until
    print(f"| one run of {module} | CPU s |\n|---|---|")
    for part, seconds in spent.items():
        print(f"| {part} | {seconds:.2f} |")
    total = clock.at(ended)
    print(f"| **total**; {ended - last:.1f} s from the run's start to its end | {total:.2f} |")
    print(f"| of which the garbage collector | {collector.seconds:.2f} |")
    print(f"\n{len(records)} entries in the event log\n", flush=True)


if __name__ == "__main__":
    main()
