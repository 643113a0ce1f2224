"""Starts Dagster runs by forking a process that has already imported their libraries.

`run_launcher` is the launcher that `dagster.yaml` names, `server` the process that forks, `client`
starts and calls it, `programs` starts worker processes from a run, `processes` identifies a process
after its pid may have been reused. docs/how-a-run-starts.md shows how they work together. Nothing
here imports the rest of imgassets.
"""
