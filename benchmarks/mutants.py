"""Mutation testing: insert small faults into a module, and count those that its tests catch.

    make mutants                                   # all modules: about an hour on two cores
    make mutants MODULES="imaging/faces manifests"

mutmut generates the mutants and runs the tests, in a copy of this checkout per module below
`.imgassets/mutants`. This script selects the tests, excludes equivalent mutants, which no test can
catch (`equivalent_mutants.toml`, each with its reason), and prints the score of each module and the
mutants that survived.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgassets.folders import home, project_root

_IMAGING = "imgassets_tests/imaging"
_DOWNLOAD = "imgassets_tests/download"
_SOURCES = "imgassets_tests/sources"
_EXCHANGES = tuple(
    f"{_DOWNLOAD}/test_{name}.py"
    for name in (
        "exchange",
        "politeness",
        "server_behaviour",
        "guards",
        "request_headers",
        "incremental",
    )
)
_PARTITIONS = tuple(
    f"{_DOWNLOAD}/test_{name}.py" for name in ("partition", "incremental", "reuse", "state")
)
NEAREST: Mapping[str, Sequence[str]] = {
    "imaging/pipeline": (f"{_IMAGING}/test_pipeline.py", f"{_IMAGING}/test_steps.py"),
    "imaging/removal": (f"{_IMAGING}/test_removal.py", f"{_IMAGING}/test_pipeline.py"),
    "imaging/faces": (
        f"{_IMAGING}/test_faces.py",
        f"{_IMAGING}/test_hard_faces.py",
        f"{_IMAGING}/test_pipeline.py",
    ),
    "imaging/prints": (f"{_IMAGING}/test_prints.py", f"{_IMAGING}/test_removal.py"),
    "imaging/trim": (f"{_IMAGING}/test_trim.py", f"{_IMAGING}/test_pipeline.py"),
    "imaging/background": (f"{_IMAGING}/test_background.py", f"{_IMAGING}/test_trim.py"),
    "imaging/decode": (f"{_IMAGING}/test_decode.py", f"{_IMAGING}/test_pipeline.py"),
    "imaging/bmp": (f"{_IMAGING}/test_rare_formats.py",),
    "imaging/declared_colour": (f"{_IMAGING}/test_declared_colour.py",),
    "imaging/jpeg": (f"{_IMAGING}/test_jpeg.py",),
    "imaging/optional_formats": (f"{_IMAGING}/test_rare_formats.py",),
    "imaging/png": (f"{_IMAGING}/test_png.py", f"{_IMAGING}/test_declared_colour.py"),
    "imaging/image": (f"{_IMAGING}/test_image.py", f"{_IMAGING}/test_pipeline.py"),
    "download/schedule": (f"{_DOWNLOAD}/test_schedule.py", *_EXCHANGES),
    "download/exchange": _EXCHANGES,
    "download/partition": _PARTITIONS,
    "download/state": _PARTITIONS,
    "download/opt_outs": (f"{_DOWNLOAD}/test_opt_outs.py", f"{_DOWNLOAD}/test_politeness.py"),
    "download/robots": (f"{_DOWNLOAD}/test_robots.py", f"{_DOWNLOAD}/test_politeness.py"),
    "download/addresses": (f"{_DOWNLOAD}/test_addresses.py",),
    "download/urls": (f"{_DOWNLOAD}/test_urls.py",),
    "sources/listing": (f"{_SOURCES}/test_listing.py", f"{_SOURCES}/test_table.py"),
    "sources/mongodb": (f"{_SOURCES}/test_mongodb.py",),
    "manifests": ("imgassets_tests/test_manifests.py",),
    "storage": ("imgassets_tests/test_storage.py",),
    "settings": ("imgassets_tests/test_settings.py",),
    "configuration": ("imgassets_tests/test_configuration.py",),
}
"""The test modules that should catch the faults of a module."""

_CAUGHT = {"killed", "timeout", "segfault", "suspicious"}
_FOLDERS = ("imgassets", "imgassets_tests", "benchmarks", "config")


@dataclass(frozen=True)
class Mutant:
    """A mutant that no test caught.

    Attributes:
        function: the function or method that was changed.
        line: the changed code, without indentation.
        diff: the change.
    """

    function: str
    line: str
    diff: str


@dataclass(frozen=True)
class Score:
    """The result of a module.

    Attributes:
        mutants: number of generated mutants.
        equivalent: number of them that are listed as equivalent.
        survived: the mutants that no test caught and that are not listed.
    """

    mutants: int
    equivalent: int
    survived: list[Mutant]

    @property
    def share(self) -> float:
        """Caught mutants / mutants that are not equivalent."""
        catchable = self.mutants - self.equivalent
        return (catchable - len(self.survived)) / catchable if catchable else 1.0


def measure(module: str, *, again: bool, processes: int) -> Score:
    """Generate and run a module's mutants.

    Args:
        module: a key of `NEAREST`.
        again: whether to run only the mutants that survived last time, with the current tests.
        processes: number of mutants that run in parallel.

    Raises:
        subprocess.CalledProcessError: mutmut failed, for example because a test fails without
            mutants.
    """
    folder = home() / "mutants" / module.replace("/", "-")
    names: list[str] = []
    if again and folder.exists():
        names = [name for name, status in _results(folder).items() if status not in _CAUGHT]
        # Makes mutmut measure again which test reaches which function.
        (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
        if not names:
            return _score(module, folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    _prepare(module, folder)
    _mutmut(folder, "run", "--max-children", str(processes), *names, show=True)
    return _score(module, folder)


def _prepare(module: str, folder: Path) -> None:
    for name in _FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(project_root() / name, folder / name, dirs_exist_ok=True, ignore=ignore)
    for file in project_root().iterdir():
        if file.is_file() and file.suffix in (".toml", ".yaml", ".md"):
            shutil.copy2(file, folder)
    tests = [path for path in NEAREST[module] if (project_root() / path).exists()]
    others = [path.name for path in folder.iterdir() if path.name not in ("imgassets", "mutants")]
    with (folder / "pyproject.toml").open("a") as config:
        config.write(
            f"\n[tool.mutmut]\nsource_paths = ['imgassets']\n"
            f"only_mutate = ['imgassets/{module}.py']\n"
            f"also_copy = {others}\n"
            f"pytest_add_cli_args_test_selection = {tests}\n"
            "use_git_change_detection = false\n"
        )


def _mutmut(folder: Path, *arguments: str, show: bool = False) -> str:
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]
    output = None if show else subprocess.PIPE
    done = subprocess.run(command, cwd=folder, check=True, stdout=output, text=True)
    return done.stdout or ""


def _results(folder: Path) -> dict[str, str]:
    lines = _mutmut(folder, "results", "--all", "true").splitlines()
    return dict(line.strip().rsplit(": ", 1) for line in lines if ": " in line)


def _score(module: str, folder: Path) -> Score:
    results = _results(folder)
    left = [name for name, status in results.items() if status not in _CAUGHT]
    known = _equivalents()[module]
    survived = [mutant for mutant in _mutants(folder, left) if mutant not in known]
    return Score(len(results), len(left) - len(survived), survived)


def _mutants(folder: Path, names: Sequence[str]) -> Iterator[Mutant]:
    for name in names:
        diff = _mutmut(folder, "show", name)
        added = re.findall(r"^\+(?!\+\+ )\s*(.*)$", diff, flags=re.MULTILINE)
        function = re.sub(r"^xǁ|^x_|__mutmut_\d+$", "", name.rsplit(".", 1)[-1]).replace("ǁ", ".")
        yield Mutant(function, " ".join(added), diff)


class _Known:
    """The equivalent mutants of a module."""

    def __init__(self, mutants: Sequence[Mapping[str, str]]) -> None:
        self._mutants = {(mutant["function"], mutant["line"]) for mutant in mutants}

    def __contains__(self, mutant: Mutant) -> bool:
        return (mutant.function, mutant.line) in self._mutants


def _equivalents() -> defaultdict[str, _Known]:
    path = Path(__file__).with_name("equivalent_mutants.toml")
    found = tomllib.loads(path.read_text("utf-8"))
    known = {module: _Known(mutants) for module, mutants in found.items()}
    return defaultdict(lambda: _Known([]), known)


def main() -> None:
    """Measure the modules named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "modules",
        nargs="*",
        default=list(NEAREST),
        help=f"one or more of {list(NEAREST)}; default: all",
    )
    parser.add_argument(
        "--again", action="store_true", help="run only the mutants that survived last time"
    )
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    if unknown := set(arguments.modules) - set(NEAREST):
        parser.error(f"unknown modules: {', '.join(sorted(unknown))}; use {list(NEAREST)}")
    rows = []
    for module in arguments.modules:
        score = measure(module, again=arguments.again, processes=arguments.processes)
        for mutant in score.survived:
            print(f"\n{module}: {mutant.function}\n{mutant.diff}")
        rows.append(
            f"| {module} | {score.mutants} | {score.equivalent} "
            f"| {len(score.survived)} | {score.share:.1%} |"
        )
    print("\n| module | mutants | equivalent | survived | caught |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
