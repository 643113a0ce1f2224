"""The command `imgassets`: set-up, checks and the demo; runs are launched with `dagster`.

Errors that a user can cause end with one message and exit code 1, without a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from dotenv import load_dotenv
from rich.console import Console
from rich.table import Table

from imgassets import __version__
from imgassets.configuration import load_settings
from imgassets.demo.mongod import EmbeddedMongo
from imgassets.errors import (
    EmbeddedMongoError,
    ModelError,
    SettingsError,
    SourceError,
    StorageError,
)
from imgassets.folders import home
from imgassets.project import write_project
from imgassets.sources.factory import mongodb_address, open_source


def main() -> None:
    """Run the command line; like Dagster, it reads `.env` in the current folder."""
    load_dotenv(Path.cwd() / ".env")
    cli(prog_name="imgassets")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Turn product documents (MongoDB, CSV, a Python function) into image datasets with Dagster."""


@cli.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--postgres", is_flag=True, help="Store Dagster's runs and events in Postgres.")
def init(folder: Path, *, postgres: bool) -> None:
    """Write the files of a project folder.

    These are config/imgassets.yaml, workspace.yaml, dagster.yaml, .env.example and .gitignore.
    Existing files are kept.
    """
    for file in write_project(folder, postgres=postgres):
        click.echo(f"{'wrote' if file.created else 'kept '} {file.path}")
    click.echo(
        "\nNext: edit config/imgassets.yaml, put MONGODB_URI into .env (see .env.example), then\n"
        '  export DAGSTER_HOME="$PWD/.imgassets/dagster_home"\n'
        "  imgassets doctor && imgassets sync\n"
        "  dagster dev -w workspace.yaml"
    )


@cli.command()
def sync() -> None:
    """Register the retailers of the source as partitions.

    Retailers that are no longer in the source keep their partitions and images.
    """
    with errors_as_click_exceptions():
        settings = load_settings()
        from imgassets.defs.instance import open_instance
        from imgassets.defs.partitions import RETAILERS
        from imgassets.defs.sync import register_retailers
        from imgassets.sources.listing import conflict_message

        inventory = open_source(settings, mongodb_address).inventory()
        with open_instance() as instance:
            synced = register_retailers(inventory, instance, RETAILERS)

    table = Table("retailer", "partition", "first day", "last day", "days", "documents", "")
    for slug, name in sorted(inventory.names.items()):
        days = {day: n for (found, day), n in inventory.documents.items() if found == slug}
        table.add_row(
            name,
            slug,
            min(days, default=""),
            max(days, default=""),
            str(len(days)),
            str(sum(days.values())),
            "new" if slug in synced.new else "",
        )
    console = Console()
    console.print(table)
    console.print(f"{len(synced.new)} new, {len(synced.known)} known before")
    if synced.absent:
        console.print(f"registered, but not in the source: {', '.join(synced.absent)}")
    for anomaly, count in inventory.report.counts.items():
        console.print(f"{count} documents belong to no partition: {anomaly}")
    for slug, names in inventory.conflicts.items():
        click.echo(f"Error: {conflict_message(slug, names)}", err=True)
    if inventory.conflicts:
        sys.exit(1)


@cli.command()
def doctor() -> None:
    """Check the setup and explain what is wrong.

    Checks settings, source, storage, face model and DAGSTER_HOME.
    """
    from imgassets.doctor import diagnose

    labels = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[red]error[/]"}
    console = Console(soft_wrap=True)
    failed = False
    for diagnosis in diagnose(mongodb_address):
        failed |= diagnosis.status == "error"
        console.print(f"{labels[diagnosis.status]} {diagnosis.subject}: ", end="")
        console.print(diagnosis.message, markup=False, highlight=False)
    if failed:
        sys.exit(1)


@cli.command()
@click.option("--ui", is_flag=True, help="Start the Dagster UI with the results of the demo.")
@click.option("--port", default=3000, show_default=True, help="Port of the Dagster UI.")
def demo(*, ui: bool, port: int) -> None:
    """Run all assets on a sample catalogue.

    Prints a summary of the results.
    """
    from imgassets.demo.run import run_demo, run_ui

    with errors_as_click_exceptions():
        if ui:
            sys.exit(run_ui(port))
        if not run_demo():
            sys.exit(1)


@cli.group()
def db() -> None:
    """Control an embedded MongoDB for trials.

    It listens on 127.0.0.1 and has no authentication.
    """


@db.command()
def start() -> None:
    """Start the server and print the export line.

    If it is running already, only the line that exports MONGODB_URI is printed.
    """
    with errors_as_click_exceptions():
        click.echo(f"export MONGODB_URI='{_embedded_mongo().ensure_running()}'")


@db.command()
def stop() -> None:
    """Stop the server; its data is kept."""
    with errors_as_click_exceptions():
        click.echo("stopped" if _embedded_mongo().stop() else "was not running")


@db.command()
def status() -> None:
    """Show whether the server is running, and its address."""
    with errors_as_click_exceptions():
        state = _embedded_mongo().status()
        click.echo(f"running at {state.uri}, process {state.pid}" if state.uri else "not running")


def _embedded_mongo() -> EmbeddedMongo:
    return EmbeddedMongo(home() / "mongodb")


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
        EmbeddedMongoError,
    ) as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
