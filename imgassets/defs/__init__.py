"""Everything that imports Dagster: assets, checks, jobs, schedules, sensors and their resources.

`build.build_defs` puts them together from a `Settings` object. What they do is in the plain
libraries beside this package (`sources`, `download`, `imaging`, `checks`, `review`); keep that code
out of here. Modules here import those libraries inside functions: Dagster loads the definitions for
every run, and each import costs start-up time.
"""
