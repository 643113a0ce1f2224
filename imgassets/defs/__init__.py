"""Everything that imports Dagster: assets, checks, jobs, schedules, sensors and their resources.

`build.build_defs` builds them from a `Settings` object. Keep code that does the work out of here:
it is in the libraries beside this package (`sources`, `download`, `imaging`, `checks`, `review`),
which do not import Dagster. Modules here import those libraries inside functions, because Dagster
loads the definitions for every run and each import adds to the start-up time.
"""
