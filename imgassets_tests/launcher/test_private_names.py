"""docs/upgrading-dagster.md lists exactly the private names of Dagster that the code uses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from imgassets.folders import project_root

PRIVATE = re.compile(r"dagster\w*(\.\w+)*\._\w+(\.\w+)*")
FILES = {
    "imgassets/launcher/celery_app.py",
    "imgassets/launcher/run_launcher.py",
    "imgassets/launcher/server.py",
    "imgassets_tests/launcher/test_run_launcher.py",
}


def private_names(file: Path) -> Iterator[str]:
    """Yield the private names of Dagster in imports and in strings that are nothing but a name."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]
        yield from filter(PRIVATE.fullmatch, names)


def test_the_document_lists_the_private_names_of_dagster_and_their_files() -> None:
    root = project_root()
    used = {
        str(file.relative_to(root)): names
        for folder in ("imgassets", "imgassets_tests", "benchmarks")
        for file in (root / folder).rglob("*.py")
        if (names := {*private_names(file)})
    }
    assert used.keys() == FILES
    document = (root / "docs" / "upgrading-dagster.md").read_text("utf-8")
    listed = {name for name in re.findall(r"`([\w.]+)`", document) if PRIVATE.fullmatch(name)}
    assert listed == set().union(*used.values())


def test_the_document_names_tests_that_exist() -> None:
    root = project_root() / "imgassets_tests"
    document = (root.parent / "docs" / "upgrading-dagster.md").read_text("utf-8")
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", document)
    tests = [(path, name) for path, name in named if "test_" in path or name]
    assert len(tests) > 5
    for path, name in tests:
        if path.startswith("imgassets_tests/"):
            file = root.parent / path
        else:
            file = root / path if "/" in path else root / "launcher" / path
        assert f"def {name}" in file.read_text("utf-8"), (path, name)
