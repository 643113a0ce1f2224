"""`imgassets`: what Dagster's own command line does not do.

Here lives what a person types and reads. Every error that a user can cause ends in one sentence
and exit code 1, never in a stack trace.
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
from imgassets.demo.mongod import EmbeddedMongo, EmbeddedMongoError
from imgassets.folders import home
from imgassets.project import write_project
from imgassets.settings import SettingsError
from imgassets.sources.opening import mongodb_address, open_source


def main() -> None:
    """Run the command line; reads `.env` of the current folder, as Dagster does."""
    load_dotenv(Path.cwd() / ".env")
    cli(prog_name="imgassets")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Turn product documents in MongoDB into clean image datasets, with Dagster."""


@cli.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--postgres", is_flag=True, help="Keep Dagster's runs and events in Postgres.")
def init(folder: Path, *, postgres: bool) -> None:
    """Write a project: settings, workspace.yaml, dagster.yaml and an example of .env.

    Files that exist are left as they are.
    """
    for file in write_project(folder, postgres=postgres):
        click.echo(f"{'wrote' if file.new else 'kept '} {file.path}")
    click.echo(
        "\nNext: edit config/imgassets.yaml, put MONGODB_URI into .env (see .env.example), then\n"
        '  export DAGSTER_HOME="$PWD/.imgassets/dagster_home"\n'
        "  imgassets doctor && imgassets sync\n"
        "  dagster dev -w workspace.yaml"
    )


@cli.command()
def sync() -> None:
    """Register the retailers of the source as partitions.

    Retailers that have gone from the source keep their partitions and pictures.
    """
    with _told():
        settings = load_settings()
        from imgassets.defs.instance import open_instance
        from imgassets.defs.partitions import RETAILERS
        from imgassets.defs.sync import register_retailers
        from imgassets.sources.listing import conflict

        survey = open_source(settings, mongodb_address).survey()
        with open_instance() as instance:
            synced = register_retailers(survey, instance, RETAILERS)

    table = Table("retailer", "partition", "first day", "last day", "days", "documents", "")
    for slug, name in sorted(survey.names.items()):
        days = {day: n for (found, day), n in survey.documents.items() if found == slug}
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
        console.print(f"registered, but no longer in the source: {', '.join(synced.absent)}")
    for oddity, count in survey.account.counts.items():
        console.print(f"{count} documents belong to no partition: {oddity}")
    for slug, names in survey.conflicts.items():
        click.echo(f"Error: {conflict(slug, names)}", err=True)
    if survey.conflicts:
        sys.exit(1)


@cli.command()
def doctor() -> None:
    """Check settings, database, storage and face model; say what is wrong and what to do."""
    from imgassets.doctor import examine

    signs = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[red]error[/]"}
    console = Console(soft_wrap=True)
    failed = False
    for finding in examine(mongodb_address):
        failed |= finding.verdict == "error"
        console.print(f"{signs[finding.verdict]} {finding.what}: ", end="")
        console.print(finding.sentence, markup=False, highlight=False)
    if failed:
        sys.exit(1)


@cli.command()
@click.option("--ui", is_flag=True, help="Open the Dagster UI on the demo's state.")
@click.option("--port", default=3000, show_default=True, help="Of the Dagster UI.")
def demo(*, ui: bool, port: int) -> None:
    """Send a sample catalogue through the assets, and print what became of it."""
    from imgassets.demo.run import run_demo, run_ui

    with _told():
        if ui:
            sys.exit(run_ui(port))
        if not run_demo():
            sys.exit(1)


@cli.group()
def db() -> None:
    """An embedded MongoDB for trying things out; it has no passwords."""


@db.command()
def start() -> None:
    """Start it, if it is not running, and print the address to export."""
    with _told():
        click.echo(f"export MONGODB_URI='{_embedded_mongo().ensure_running()}'")


@db.command()
def stop() -> None:
    """Stop it; its data stay."""
    with _told():
        click.echo("stopped" if _embedded_mongo().stop() else "was not running")


@db.command()
def status() -> None:
    """Say whether it runs, and where."""
    with _told():
        state = _embedded_mongo().status()
        click.echo(f"running at {state.uri}, process {state.pid}" if state.uri else "not running")


def _embedded_mongo() -> EmbeddedMongo:
    return EmbeddedMongo(home() / "mongodb")


@contextmanager
def _told() -> Iterator[None]:
    """Show an error that was written for the user as its one sentence."""
    from imgassets.imaging.models import ModelError
    from imgassets.sources.listing import SourceError
    from imgassets.storage import StorageError

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
