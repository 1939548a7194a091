"""What the package imports is what its distribution declares, for each extra."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "dataset_registry/server": "server",
    "dataset_registry/remote": "remote",
    "dataset_registry/tabular/sql_lineage.py": "lineage",
    "dataset_registry/engines/filesystem.py": "fsspec",
    "dataset_registry/engines/ray.py": "ray",
    "dataset_registry/table_formats/iceberg": "iceberg",
}
"""Modules of these folders are imported with this extra only."""
NOT_IMPORTED = {
    "fastapi-swagger": "files of /docs, read as resources",
    "psycopg": "SQLAlchemy's driver",
    "python-multipart": "FastAPI's parser of forms",
}
"""What is needed without an import of ours."""
NOT_DECLARED = {"dataset_registry/engines/spark.py": "pyspark-client"}
"""What the engine that imports a module brings: pyspark, which is in the way of pyspark-client."""


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def _declared() -> dict[str, set[str]]:
    """The distributions that are required without an extra (""), and with each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: {_name(text) for text in texts} for extra, texts in extras.items() if extra not in ("demo", "dev")}


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The top-level names that a module imports from elsewhere, and whether it does so when it is imported itself."""
    tree = ast.parse(path.read_text())
    lazy = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [str(node.module)]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top != "dataset_registry":
                yield name if top == "backports" else top, node not in lazy


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _distribution(name: str) -> str:
    if name in ("backports.zstd", "compression"):  # `compression` is in the standard library since Python 3.14
        return "backports-zstd"
    return _name(_distributions()[name][0])


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def _found() -> Iterator[tuple[str, str, bool]]:
    """Each import of the package and its migrations: the module's path, the distribution, whether it is at the top."""
    for folder in ("dataset_registry", "migrations"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name, is_eager in _imports(path):
                yield path.relative_to(ROOT).as_posix(), _distribution(name), is_eager


def test_every_import_is_declared() -> None:
    declared = _declared()
    undeclared = []
    for path, distribution, is_eager in _found():
        extra = next((extra for folder, extra in FOLDERS.items() if path.startswith(folder)), "")
        # An import inside a function happens when somebody uses what an extra is for; one at the top, always.
        allowed = declared[""] | declared[extra] if is_eager else set().union(*declared.values())
        if distribution not in allowed and NOT_DECLARED.get(path) != distribution:
            undeclared.append(f"{path} imports {distribution}")
    assert undeclared == []


def test_every_declared_dependency_is_used() -> None:
    used = {distribution for _, distribution, _ in _found()} | set(NOT_IMPORTED)
    assert set().union(*_declared().values()) - used == set()


def test_the_readme_of_the_index_has_no_link_into_the_repository() -> None:
    """An index has no `docs/` beside the README."""
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    readme = (ROOT / "README.md").read_text()
    for substitution in hook["fancy-pypi-readme"]["substitutions"]:
        readme = re.sub(substitution["pattern"], substitution["replacement"], readme)
    assert "Concepts (`docs/concepts.md`)" in readme
    assert re.findall(r"\]\((?!https?:)", readme) == []
