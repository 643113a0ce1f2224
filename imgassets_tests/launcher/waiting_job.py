"""A code location with a job that waits until a file named `go` appears."""

import time
from pathlib import Path

import dagster as dg


@dg.op(config_schema={"folder": str})
def waits(context: dg.OpExecutionContext) -> None:
    folder = Path(context.op_config["folder"])
    (folder / "began").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)


@dg.job(executor_def=dg.in_process_executor)
def waiting() -> None:
    waits()


defs = dg.Definitions(jobs=[waiting])
