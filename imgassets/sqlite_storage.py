"""Dagster's storage in SQLite, which does not start from nothing for every event and every run.

Here lives what it keeps between two uses of a database, and what it does not do again. Dagster's
own makes a new engine for each use, and SQLAlchemy keeps the statements that it has compiled with
the engine; and each process reads all migrations that there ever were, four times, to see that its
databases have their tables. Of a run of twenty pictures, which stores 72 events, that was a fifth
of the CPU. The files are the same. They are opened and closed for each use, as before, while one
connection more keeps SQLite from tidying them up each time. When this storage is used is in
`dagster_instance`.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sql import get_alembic_config
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS, create_db_conn_string
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

# The database that all runs share, and that of the run at hand.
_KEPT_OPEN = 2


def _is_made(file: Path, *tables: str) -> bool:
    """Whether a database has its tables, and what version they are of; no version is too old.

    Dagster, too, asks no more when it opens one, and leaves the rest to `dagster instance migrate`.
    """
    if not file.is_file():
        return False
    try:
        with closing(sqlite3.connect(file, timeout=SQLITE_BUSY_TIMEOUT_SECONDS)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            return names.issuperset(tables) and bool(
                connection.execute("SELECT version_num FROM alembic_version").fetchone()
            )
    except sqlite3.Error:
        return False


def _held_open(file: str | Path) -> sqlite3.Connection:
    """A connection for nothing: whoever closes the last one has SQLite tidy up its files."""
    connection = sqlite3.connect(file, check_same_thread=False)
    connection.execute("SELECT 1 FROM alembic_version").fetchall()  # from here on it is in use
    return connection


@cache
def _migrations() -> ScriptDirectory:
    return ScriptDirectory.from_config(get_alembic_config(sqlite_event_log.__file__))


class _EventLog(SqliteEventLogStorage):
    """One engine for the databases of all runs, which have the same tables."""

    _file = ""

    @cached_property
    def _engine(self) -> Engine:
        return create_engine("sqlite://", poolclass=NullPool, creator=self._open)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._file, timeout=SQLITE_BUSY_TIMEOUT_SECONDS)

    @cached_property
    def _kept(self) -> OrderedDict[str, sqlite3.Connection]:
        return OrderedDict()

    def _keep_open(self) -> None:
        if self._file in self._kept:
            self._kept.move_to_end(self._file)
            return
        self._kept[self._file] = _held_open(self._file)
        if len(self._kept) > _KEPT_OPEN:
            self._kept.popitem(last=False)[1].close()

    def dispose(self) -> None:
        """See Dagster's own."""
        with self._db_lock:
            while self._kept:
                self._kept.popitem()[1].close()
        super().dispose()

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        # The lock is Dagster's, and held as long: one database is open at a time.
        with self._db_lock:
            self._file = self.path_for_shard(shard)
            if shard not in self._initialized_dbs:
                if not _is_made(Path(self._file)):
                    self._make()
                self._initialized_dbs.add(shard)
            self._keep_open()
            with self._engine.connect() as connection, connection.begin():
                yield connection

    def _make(self) -> None:
        """Make the tables of a run's database, as Dagster does."""
        try:
            SqlEventLogStorageMetadata.create_all(self._engine)
            with self._engine.connect() as connection:
                connection.execute(text("PRAGMA journal_mode=WAL"))
                MigrationContext.configure(connection).stamp(_migrations(), "head")
                connection.commit()
        except DatabaseError:  # another process makes it, too: Dagster's own way tries again
            self._initdb(self._engine)


class _Runs(SqliteRunStorage):
    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(conn_string, inst_data)
        self._kept = _held_open(str(self._engine.url.database))

    @classmethod
    def from_local(cls, base_dir: str, inst_data: ConfigurableClassData | None = None) -> _Runs:
        """See Dagster's own."""
        if _is_made(Path(base_dir, "runs.db"), "runs", "instance_info"):
            return cls(create_db_conn_string(base_dir, "runs"), inst_data)
        return super().from_local(base_dir, inst_data)

    def dispose(self) -> None:
        """See Dagster's own."""
        self._kept.close()
        super().dispose()

    @cached_property
    def _engine(self) -> Engine:
        return create_engine(self._conn_string, poolclass=NullPool)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """See Dagster's own."""
        with self._engine.connect() as connection, connection.begin():
            yield connection


def _schedules(folder: Path) -> SqliteScheduleStorage:
    if _is_made(folder / "schedules.db", "job_ticks"):
        return SqliteScheduleStorage(create_db_conn_string(str(folder), "schedules"))
    return SqliteScheduleStorage.from_local(str(folder))


class SqliteStorage(DagsterSqliteStorage):
    """Dagster's own, in the same files."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        # Past Dagster's own, which would open all databases a first time.
        super(DagsterSqliteStorage, self).__init__()  # type: ignore[no-untyped-call]
        self.base_dir, self._inst_data = base_dir, inst_data
        history = Path(base_dir) / "history"
        self._run_storage = _Runs.from_local(str(history))
        self._event_log_storage = _EventLog(str(history / "runs"))
        self._schedule_storage = _schedules(Path(base_dir) / "schedules")

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> SqliteStorage:
        """Open the storage."""
        return cls.from_local(inst_data=inst_data, **config_value)
