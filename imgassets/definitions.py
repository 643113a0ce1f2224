"""The definitions that Dagster loads: built from the settings of the project folder."""

import gc

import dagster as dg

from imgassets.configuration import load_settings
from imgassets.defs.build import build_defs
from imgassets.defs.command_line import explain_partition_errors

_settings = load_settings()
explain_partition_errors(_settings.start_date, _settings.partitions.period)

# By default in-process: a run takes 1 s, but 44 s with one process per step, because of their
# start-up time.
defs = build_defs(_settings, executor=None if _settings.executor else dg.in_process_executor)

# The garbage collector would look through Dagster's 200,000 objects while a run makes its rows, and
# once more at the exit: 0.9 CPU s with 12,000 images. The threshold is that of `launcher.server`.
gc.freeze()
gc.set_threshold(10_000)
