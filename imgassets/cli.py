"""The command `imgassets`: set-up, checks, removal of images, and the demo.

`report`, `status` and `backfill` are in `operations.commands`.

Errors that a user can cause end with one message and exit code 1, without a traceback.
"""

from __future__ import annotations

import datetime as dt
import getpass
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from dotenv import load_dotenv
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imgassets import __version__
from imgassets.configuration import load_settings
from imgassets.demo.mongod import EmbeddedMongo
from imgassets.folders import checkout, home
from imgassets.operations.commands import backfill, report, status
from imgassets.operations.messages import console_for, errors_as_click_exceptions
from imgassets.project import write_project
from imgassets.sources.factory import mongodb_address, open_source
from imgassets.wording import counted

if TYPE_CHECKING:
    from imgassets.forget import Forgotten
    from imgassets.garbage import RetailerGarbage
    from imgassets.storage import PartitionFiles, Storage


def main() -> None:
    """Run the command line; like Dagster, it reads `.env` in the current folder."""
    load_dotenv(Path.cwd() / ".env")
    cli(prog_name="imgassets")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Turn product documents (MongoDB, files, a function) into image datasets with Dagster."""


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
    source = checkout()
    if source is not None and folder.resolve() != source:
        click.echo(
            f"\nWarning: this `imgassets` runs from the checkout {source} and reads the settings "
            "there, not in this folder. Either run `imgassets init` in the checkout, or install "
            f"the package into another environment: pip install {source}",
            err=True,
        )
    click.echo(
        "\nNext: edit config/imgassets.yaml, put MONGODB_URI into .env (see .env.example), then\n"
        '  export DAGSTER_HOME="$PWD/.imgassets/dagster_home"\n'
        "  imgassets doctor && imgassets sync\n"
        "  dagster dev -w workspace.yaml"
    )


@cli.command()
def sync() -> None:
    """Register the retailers of the source as partitions.

    Creates DAGSTER_HOME if it does not exist.
    Retailers that are no longer in the source keep their partitions and images.
    """
    with errors_as_click_exceptions():
        settings = load_settings()
        from imgassets.defs.instance import dagster_home, open_instance
        from imgassets.defs.partitions import RETAILERS
        from imgassets.defs.sync import register_retailers
        from imgassets.sources.listing import anomaly_notes, spellings_note

        inventory = open_source(settings, mongodb_address).inventory()
        is_new = not dagster_home().is_dir()
        with open_instance(create=True) as instance:
            synced = register_retailers(inventory, instance, RETAILERS)

    table = Table("retailer", "partition", "first day", "last day", "days", "documents", "")
    for slug, name in sorted(inventory.names.items()):
        days = {day: n for (found, day), n in inventory.documents.items() if found == slug}
        table.add_row(
            escape(name),
            slug,
            min(days, default=""),
            max(days, default=""),
            str(len(days)),
            str(sum(days.values())),
            "new" if slug in synced.new else "",
        )
    console = console_for(table)
    if inventory.names:
        console.print(table)
    else:
        console.print("the source has no document with a retailer; `imgassets doctor` says more")
    if is_new:
        console.print(f"created DAGSTER_HOME, {dagster_home()}", soft_wrap=True, markup=False)
    console.print(f"{len(synced.new)} new, {len(synced.known)} known before")
    if synced.absent:
        console.print(f"registered, but not in the source: {', '.join(synced.absent)}")
    notes = [spellings_note(slug, names) for slug, names in inventory.spellings.items()]
    for note in (*anomaly_notes(inventory.report), *notes, *inventory.warnings):
        console.print(note, markup=False, soft_wrap=True)


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
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@click.option(
    "--grace-hours",
    type=click.FloatRange(min=0),
    default=24,
    show_default=True,
    help="Keep files that were written less than this time ago; 0 only if nothing runs.",
)
def gc(*, dry_run: bool, grace_hours: float) -> None:
    """Remove image files that no manifest references.

    Works beside running partitions. Also removes contact sheets of partitions without a manifest,
    and temporary files of killed runs. A retailer with a broken manifest is skipped; the exit code
    is 1 then.
    """
    with errors_as_click_exceptions():
        from imgassets.garbage import remove_garbage
        from imgassets.storage import open_storage

        grace = dt.timedelta(hours=grace_hours)
        garbage = remove_garbage(open_storage(load_settings()), grace, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    for found in garbage.retailers:
        click.echo(_garbage_line(found, verb), err=found.error is not None)
    files = sum(found.files for found in garbage.retailers)
    size = sum(found.bytes for found in garbage.retailers)
    click.echo(
        f"{verb} {_files_text(files, size)}, and temporary files of killed runs: "
        f"{_files_text(garbage.temporaries, garbage.temporary_bytes)}"
    )
    if any(found.error for found in garbage.retailers):
        sys.exit(1)


def _garbage_line(found: RetailerGarbage, verb: str) -> str:
    if found.error is not None:
        return f"Error: {found.retailer}: skipped, nothing removed: {found.error}"
    recent = f", {found.recent:,} of them not referenced, but recent" if found.recent else ""
    return (
        f"{found.retailer}: {verb} {_files_text(found.files, found.bytes)}; "
        f"kept {found.kept:,}{recent}"
    )


def _files_text(number: int, size: int) -> str:
    return f"{counted(number, 'file')} ({counted(size, 'byte')})"


@cli.command()
@click.option("--retailer", help="Slug of the retailer; alone, everything of it is taken down.")
@click.option("--product", help="Id of a product, as in the manifests.")
@click.option("--url", help="URL of an image.")
@click.option("--sha256", help="SHA-256 of a served file, as in raw_images.")
@click.option(
    "--everywhere",
    is_flag=True,
    help="Also take down other URLs, of any retailer, that have the same images.",
)
@click.option("--reason", required=True, help="Why, for the record of the take-down.")
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
def forget(
    *,
    retailer: str | None,
    product: str | None,
    url: str | None,
    sha256: str | None,
    everywhere: bool,
    reason: str,
    dry_run: bool,
) -> None:
    """Take images down for good: files, URLs, contact sheets and journals.

    Select with --product, --url or --sha256, or with --retailer, which also narrows the others. The
    images are never requested again, even if the source still lists them. If it is interrupted, run
    it again.
    """
    if not reason.strip():
        raise click.UsageError("--reason must not be empty")
    with errors_as_click_exceptions():
        from imgassets.defs.instance import DAGSTER_HOME_VARIABLE, check_dagster_home
        from imgassets.forget import Selection
        from imgassets.forget import forget as take_down
        from imgassets.storage import open_storage

        selection = Selection(
            retailer=retailer,
            product_id=product,
            url=url,
            sha256=None if sha256 is None else sha256.lower(),
            everywhere=everywhere,
        )
        if os.environ.get(DAGSTER_HOME_VARIABLE, "").strip():
            check_dagster_home()  # before anything is removed: its runs are looked up at the end
        storage = open_storage(load_settings())
        done = take_down(
            storage, selection, reason=reason.strip(), removed_by=_user(), dry_run=dry_run
        )
    for line in _forget_lines(storage, done, dry_run=dry_run):
        click.echo(line)
    if done.partitions:
        _print_runs(done.partitions)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a user may have no name
        return f"user {os.getuid()}"


def _forget_lines(storage: Storage, done: Forgotten, *, dry_run: bool) -> Iterator[str]:
    for path in done.resumed:
        verb = "would first complete" if dry_run else "completed"
        yield f"{verb} an interrupted take-down: {storage.address(path)}"
    if not done.is_new:
        yield "nothing to remove: it is not stored, or was taken down before"
    else:
        verb = "would remove" if dry_run else "removed"
        record = done.record
        if not record.files and not any(done.rows.values()):
            yield "nothing of it is stored; future runs will not request it"
        yield f"{verb} {_files_text(record.files, record.bytes)}"
        rows = ", ".join(f"{number:,} in {name}" for name, number in done.rows.items())
        yield f"{verb} the URLs of rows: {rows}"
    if done.kept_files:
        yield (
            f"kept {_files_text(done.kept_files, done.kept_bytes)} that other rows share; "
            "--everywhere takes them down, too"
        )
    if done.is_new and done.partitions:
        yield (
            f"{'would remove' if dry_run else 'removed'} the contact sheets and plots of "
            f"{counted(len(done.partitions), 'partition')}; "
            "materialize processed_images to draw them again"
        )
    if done.active:
        names = ", ".join(f"{each.date}|{each.retailer}" for each in done.active)
        yield (
            f"runs are working or were killed in: {names}; a run that is working may store an "
            "image again that it had requested before: run imgassets gc --grace-hours 0 when "
            "nothing runs"
        )
    if done.path is not None:
        yield f"record: {storage.address(done.path)}"


def _print_runs(partitions: Sequence[PartitionFiles]) -> None:
    """Print which runs of the partitions are in Dagster's event log."""
    from imgassets.defs.instance import DAGSTER_HOME_VARIABLE, open_instance

    if not os.environ.get(DAGSTER_HOME_VARIABLE, "").strip():
        click.echo(
            "DAGSTER_HOME is not set, so Dagster's runs were not looked up: those of the "
            f"{counted(len(partitions), 'partition')} may still have thumbnails and URLs in "
            "the event log"
        )
        return
    from imgassets.defs.event_log import runs_of_partitions

    keys = [f"{each.date}|{each.retailer}" for each in partitions]
    try:
        with open_instance() as instance:
            runs = runs_of_partitions(instance, keys)
    except Exception as error:  # noqa: BLE001  (databases raise many types; the rest is done)
        click.echo(f"Dagster's runs could not be looked up: {error}", err=True)
        return
    if not runs:
        click.echo("no run in Dagster's event log has thumbnails or URLs of these partitions")
        return
    click.echo(
        "These runs of Dagster may still have thumbnails and URLs in the event log. Detected faces "
        "are pixelated in them, undetected ones are not. To delete them:"
    )
    for run in runs:
        click.echo(f"  dagster run delete {run}")


@cli.command()
@click.option("--ui", is_flag=True, help="Start the Dagster UI with the results of the demo.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=3000,
    show_default=True,
    help="Port of the Dagster UI.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address that the Dagster UI listens on; it has no login.",
)
@click.option(
    "--mongodb",
    metavar="URI",
    help="Use this MongoDB, database imgassets_demo, instead of the embedded one.",
)
def demo(*, ui: bool, port: int, host: str, mongodb: str | None) -> None:
    """Download and process a sample catalogue.

    Prints a summary of the results.
    """
    from imgassets.demo.run import run_demo, run_ui

    with errors_as_click_exceptions():
        if ui:
            sys.exit(run_ui(port, host, mongodb))
        if not run_demo(mongodb):
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


@db.command("status")
def db_status() -> None:
    """Show whether the server is running, and its address."""
    with errors_as_click_exceptions():
        state = _embedded_mongo().status()
        click.echo(f"running at {state.uri}, process {state.pid}" if state.uri else "not running")


def _embedded_mongo() -> EmbeddedMongo:
    return EmbeddedMongo(home() / "mongodb")


cli.add_command(report)
cli.add_command(status)
cli.add_command(backfill)


if __name__ == "__main__":
    main()
