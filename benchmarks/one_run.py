"""One run of a code location's assets in a process of its own: where its CPU goes.

`partition_cost` starts it as `python -m benchmarks.one_run MODULE JOB PARTITION_KEY`, with a
DAGSTER_HOME that knows the retailer; afresh, or forked from the fork server. CPU is that of the
process, and of children when they have ended; it is sampled, and read at the times of Dagster's
events.
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
    """CPU seconds of this process and its children, at any time since the start."""

    def __init__(self) -> None:
        # Where this is forked, so is the imaging process, as a child of the server.
        server = psutil.Process(os.getppid()) if inherited_connection() else None
        self._others = (lambda: _of_children(server)) if server else lambda: 0.0
        self._before = self._others()
        self._moments: list[float] = []
        self._cpu: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def at(self, moment: float) -> float:
        """CPU seconds at that time (since 1970)."""
        place = bisect.bisect(self._moments, moment)
        return self._cpu[min(place, len(self._cpu) - 1)]

    def stop(self) -> None:
        """Sample no more."""
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(_EVERY_S):
            children = os.times()
            spent = time.process_time() + children.children_user + children.children_system
            spent += self._others() - self._before
            self._moments.append(time.time())
            self._cpu.append(spent)


def _of_children(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.children_user + times.children_system)


class _Collector:
    """Time that Python's garbage collector takes."""

    seconds = 0.0
    _began = 0.0

    def __call__(self, phase: str, _: object) -> None:
        """Called by Python before and after each collection."""
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.seconds += time.perf_counter() - self._began


def main() -> None:
    """Run the partition and print the table."""
    module, job_name, partition = sys.argv[1:]
    with (Path(os.environ["DAGSTER_HOME"]) / "one_run.log").open("a") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())  # what Dagster logs
    clock, collector = _Clock(), _Collector()
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
            spans.append(("Dagster, between steps", record.timestamp))
        elif event is not None and (event.is_step_success or event.is_step_failure):
            spans.append((f"step {event.step_key}", record.timestamp))
    spans.append(("Dagster, between steps", ended))

    spent: dict[str, float] = {}
    moment = 0.0
    for what, until in spans:
        spent[what] = spent.get(what, 0.0) + clock.at(until) - (clock.at(moment) if moment else 0)
        moment = until
    print(f"| one run of {module} | CPU s |\n|---|---|")
    for what, seconds in spent.items():
        print(f"| {what} | {seconds:.2f} |")
    whole = clock.at(ended)
    print(f"| **all**; {ended - last:.1f} s from the run's start to its end | {whole:.2f} |")
    print(f"| of which the garbage collector | {collector.seconds:.2f} |")
    print(f"\n{len(records)} entries in the event log\n", flush=True)


if __name__ == "__main__":
    main()
