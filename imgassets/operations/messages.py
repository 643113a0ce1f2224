"""What commands print: errors as messages for the user, and tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.table import Table

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


def console_for(table: Table) -> Console:
    """A console that is at least as wide as a table.

    Rich would cut slugs to the width of the terminal, which is 80 in a pipe.
    """
    console = Console()
    wide = console.options.update(max_width=10_000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    return console
