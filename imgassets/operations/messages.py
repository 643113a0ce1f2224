"""Errors of commands as messages for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from imgassets.errors import (
    BackfillError,
    EmbeddedMongoError,
    ModelError,
    SettingsError,
    SourceError,
    StepError,
    StorageError,
    TakedownError,
)


@contextmanager
def errors_as_click_exceptions() -> Iterator[None]:
    """Show the message of errors that are written for the user, without a traceback.

    Raises:
        click.ClickException: One of these errors was raised inside the `with` block.
    """
    try:
        yield
    except (
        SettingsError,
        SourceError,
        StorageError,
        ModelError,
        StepError,
        EmbeddedMongoError,
        TakedownError,
        BackfillError,
    ) as error:
        raise click.ClickException(str(error)) from None
