"""Which MongoDB is meant: the one that `MONGODB_URI` names, or else the embedded one.

The address holds a password, so it is read from the environment when it is needed, and is no
setting and no configuration of a resource.
"""

from __future__ import annotations

import os

from imgassets.demo.mongod import EmbeddedMongo
from imgassets.folders import home

VARIABLE = "MONGODB_URI"


def embedded_mongo() -> EmbeddedMongo:
    """The embedded server of this project."""
    return EmbeddedMongo(home() / "mongodb")


def mongodb_address() -> str:
    """The address of a server; starts the embedded one if it is wanted and not running.

    Raises:
        EmbeddedMongoError: there is no `mongod` to start, or it does not start.
    """
    return os.environ.get(VARIABLE, "").strip() or embedded_mongo().ensure_running()
