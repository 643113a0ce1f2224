"""Dagster's storage in SQLite, which does not start from nothing for every event.

Here lives what it keeps between two uses of a database. Dagster's own makes a new engine for each,
and SQLAlchemy keeps the statements that it has compiled with the engine: of a run of twenty
pictures, which stores 72 events, that was a fifth of the CPU. Databases are opened and closed for
each use, as before. When this storage is used is in `dagster_instance`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool


class _EventLog(SqliteEventLogStorage):
    """One engine for the databases of all runs, which have the same tables."""

    _file = ""

    @cached_property
    def _engine(self) -> Engine:
        return create_engine("sqlite://", poolclass=NullPool, creator=self._open)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._file, timeout=SQLITE_BUSY_TIMEOUT_SECONDS)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        # The lock is Dagster's, and held as long: one database is open at a time.
        with self._db_lock:
            self._file = self.path_for_shard(shard)
            if shard not in self._initialized_dbs:
                self._initdb(self._engine)
                self._initialized_dbs.add(shard)
            with self._engine.connect() as connection, connection.begin():
                yield connection


class _Runs(SqliteRunStorage):
    @cached_property
    def _engine(self) -> Engine:
        return create_engine(self._conn_string, poolclass=NullPool)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """See Dagster's own."""
        with self._engine.connect() as connection, connection.begin():
            yield connection


class SqliteStorage(DagsterSqliteStorage):
    """Dagster's own, in the same files."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        # Past Dagster's own, which would open all databases a first time.
        super(DagsterSqliteStorage, self).__init__()  # type: ignore[no-untyped-call]
        self.base_dir, self._inst_data = base_dir, inst_data
        history = Path(base_dir) / "history"
        self._run_storage = _Runs.from_local(str(history))
        self._event_log_storage = _EventLog(str(history / "runs"))
        self._schedule_storage = SqliteScheduleStorage.from_local(str(Path(base_dir) / "schedules"))

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> SqliteStorage:
        """Open the storage."""
        return cls.from_local(inst_data=inst_data, **config_value)
