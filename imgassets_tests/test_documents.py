"""The documents name files, functions and modules that exist."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from benchmarks import scaling
from imgassets.folders import project_root

DOCUMENTS = ("architecture.md", "extending.md")
PATH = r"`((?:imgassets|imgassets_tests|config|docs)/[\w./]*|dagster\.yaml|workspace\.yaml)`"
NAMES_IN_PATH = r"((?:`[\w.]+`(?:,| and)?\s+)+)in\s+`(imgassets[\w/]*\.py)`"


def text_of(document: str) -> str:
    return (project_root() / "docs" / document).read_text("utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_in_a_document_exists(document: str) -> None:
    paths = set(re.findall(PATH, text_of(document)))
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (project_root() / path).exists()] == []


def test_the_architecture_names_every_module() -> None:
    text = text_of("architecture.md")
    (base,) = re.findall(r"base\[(.*?)\]", text, re.S)
    package = project_root() / "imgassets"
    modules = {file.relative_to(package) for file in package.rglob("*.py")}
    assert len(modules) > 100
    unnamed = {
        str(module)
        for module in modules
        if module.name != "__init__.py"
        and f"imgassets/{module}" not in text
        and f"imgassets.{module.stem}`" not in text
        and not (module.parent == Path() and re.search(rf"\b{module.stem}\b", base))
        and module.parts[0] != "demo"
    }
    assert unnamed == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_name_that_a_document_places_in_a_file_is_defined_there(document: str) -> None:
    places = re.findall(NAMES_IN_PATH, text_of(document))
    assert len(places) > 5
    for names, path in places:
        code = (project_root() / path).read_text("utf-8")
        for name in re.findall(r"`([\w.]+)`", names):
            last = name.rpartition(".")[2]
            defined = rf"^\s*(?:class|def) {last}\b|^\s*{last}\b.*[=:]|^\s+\"{last}\""
            assert re.search(defined, code, re.M), f"{name} is not in {path}"


def test_links_between_documents_lead_to_files_and_headings() -> None:
    root = project_root()
    documents = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("benchmarks/*.md")]
    assert len(documents) > 10
    for document in documents:
        text = document.read_text("utf-8")
        for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", text):
            file = document.parent / target if target else document
            assert file.exists(), f"{document.name} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.M)
                names = [
                    re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings
                ]
                assert anchor in names, f"{document.name} links to {target}#{anchor}"


def test_the_plan_for_more_images_is_what_the_figures_give() -> None:
    assert f"\n\n{scaling.table()}\n\n" in text_of("scaling.md")


def test_the_screenshots_in_docs_are_those_that_the_readme_shows() -> None:
    shown = set(
        re.findall(r"\(docs/(\w+\.(?:png|jpg))\)", (project_root() / "README.md").read_text())
    )
    assert shown == {file.name for file in (project_root() / "docs").glob("*.[pj][np]g")}


def test_the_module_of_the_readme_has_the_one_definitions_object_that_dagster_loads() -> None:
    section = (project_root() / "README.md").read_text().partition("\n## As a library\n")[2]
    module: dict[str, Any] = {}
    exec(re.findall(r"^```python\n(.*?)^```", section, re.S | re.M)[0], module)  # noqa: S102
    (defs,) = (value for value in module.values() if isinstance(value, dg.Definitions))
    keys = {key.to_user_string() for key in defs.resolve_all_asset_keys()}
    assert {"my_asset", "fashion/raw_images"} <= keys
    dg.Definitions.validate_loadable(defs)


def test_imports_of_the_examples_exist() -> None:
    blocks = re.findall(r"^ *```python\n(.*?)```", text_of("extending.md"), re.S | re.M)
    found = 0
    for block in blocks:
        for line in re.findall(r"^from imgassets.*$", textwrap.dedent(block), re.M):
            (statement,) = ast.parse(line).body
            assert isinstance(statement, ast.ImportFrom)
            if str(statement.module).endswith("large_files"):  # the module that the example adds
                continue
            module = importlib.import_module(str(statement.module))
            for alias in statement.names:
                assert hasattr(module, alias.name), line
                found += 1
    assert found >= 8
