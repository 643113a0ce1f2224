"""The definitions that Dagster's command line loads: those of this project's settings."""

import dagster as dg

from imgassets.configuration import load_settings
from imgassets.defs.build import build_defs

# In-process: one process per step costs more than most steps (44 s against 1 s per run).
defs = build_defs(load_settings(), executor=dg.in_process_executor)
