"""The matrix: every operation, asked for by everybody, at every door.

What is expected follows from the table of operations and the facts about the subjects, not from the code. Who may not read
something is told that it is not there, who may read it and not do this is denied, and neither leaves a trace.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest
import typer.main

from dataset_registry import Dataset, Registry, Version, cli
from dataset_registry.dataset import Draft
from dataset_registry.errors import NotFound, PermissionDenied, RegistryError
from dataset_registry.server.app import create_app
from dataset_registry.server.settings import Settings
from tests.permissions import operations
from tests.permissions.operations import OPERATIONS, Operation
from tests.permissions.subjects import DATASET, OWNER, PERSONS, TOKENS, ByName, Need, On, Subject, Verdict
from tests.permissions.world import Template, World

AT_THE_CLI = ("stranger", "reader", "group writer", "keeper", "disabled", "administrator")
"""The command line decides nothing: some of each kind are enough."""

DOORS: dict[str, tuple[Subject, ...]] = {
    "python": (*PERSONS, OWNER),
    "rest": (*(s for s in PERSONS if s.name not in ("foreign reader", "foreign writer")), *TOKENS),
    "cli": tuple(subject for subject in PERSONS if subject.name in AT_THE_CLI),
}
_COMMAND = typer.main.get_command(cli.app)
_CODES: dict[Verdict, str] = {NotFound: "not_found", PermissionDenied: "permission_denied"}
_STATUS = {"not_found": 404, "permission_denied": 403, "not_authenticated": 401}


def cells(door: str, subject: Subject) -> list[Operation]:
    """What somebody is asked to do at a door."""
    return [operation for operation in OPERATIONS if getattr(operation, door) is not None]


class Judge:
    """Asks, compares with what is expected, and puts back what was changed."""

    def __init__(self, world: World, template: Template, subject: Subject) -> None:
        self._world, self._template, self._subject = world, template, subject
        self.wrong: list[str] = []
        world.subject = subject

    def ask(self, operation: Operation, ask: object, need: Need | None = None) -> None:
        before = self._template.mark()
        expected = (need or operation.need).verdict(self._subject)
        code, text = ask(operation)  # type: ignore[operator]
        wanted = None if expected is None else _CODES[expected]
        if self._subject.disabled and code == "not_authenticated":
            wanted = code
        if code != wanted:
            self._say(operation, f"{wanted or 'allowed'} expected, not {code or 'allowed'}: {text[:200]}")
        elif code is None and operation.shows is not None:
            self._compare(operation, text)
        changed = self._template.mark() != before
        if changed and wanted is not None and self._template.differs():
            self._say(operation, "refused, and something changed")
        if operation.changes and wanted is None and not changed:
            self._say(operation, "allowed, and nothing changed")
        if changed:
            self._template.restore()

    def _compare(self, operation: Operation, text: str) -> None:
        assert operation.shows is not None
        is_file = operation.name in ("list files", "ask what is stored")
        sees = self._subject.on_file() if is_file else self._subject.on(DATASET)
        if (operation.shows(self._world) in text) != bool(sees):
            self._say(operation, f"the list has {text[:200]}")

    def _say(self, operation: Operation, what: str) -> None:
        self.wrong.append(f"{operation.name}: {what}")


def _all(door: str) -> list[object]:
    return [pytest.param(subject, id=subject.name.replace(" ", "-")) for subject in DOORS[door]]


@pytest.mark.parametrize("subject", _all("python"))
def test_in_python_everybody_may_do_what_was_granted_and_nothing_else(
    world: World, template: Template, subject: Subject
) -> None:
    judge = Judge(world, template, subject)
    with world.opened(subject) as registry:

        def ask(operation: Operation) -> tuple[str | None, str]:
            assert operation.python is not None
            try:
                return None, repr(operation.python(registry, world))
            except RegistryError as error:
                return error.code, str(error)

        for operation in cells("python", subject):
            judge.ask(operation, ask)
    assert not judge.wrong


@pytest.mark.parametrize("subject", _all("rest"))
def test_over_rest_everybody_may_do_what_was_granted_and_nothing_else(
    world: World, template: Template, subject: Subject
) -> None:
    judge = Judge(world, template, subject)
    with world.client(subject) as client:

        def ask(operation: Operation) -> tuple[str | None, str]:
            assert operation.rest is not None
            method, path, how = operation.rest(world)
            answer = client.request(method, path, **how)
            if answer.is_success:
                return None, answer.text
            code = answer.json()["code"]
            assert answer.status_code == _STATUS.get(code, answer.status_code), answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            return code, answer.text

        for operation in cells("rest", subject):
            if subject.disabled:
                assert ask(operation)[0] == "not_authenticated"
            else:
                judge.ask(operation, ask)
    assert not judge.wrong


@pytest.mark.parametrize("subject", _all("cli"))
def test_at_the_command_line_everybody_may_do_what_was_granted_and_nothing_else(
    world: World, template: Template, subject: Subject
) -> None:
    judge, runner = Judge(world, template, subject), click.testing.CliRunner()
    place = ["--catalog", world.catalog, "--store", world.store]
    place += ["--as", subject.user] if subject.user else []

    def ask(operation: Operation) -> tuple[str | None, str]:
        assert operation.cli is not None
        result = runner.invoke(_COMMAND, [*operation.cli(world), *place])
        if isinstance(result.exception, RegistryError):
            exits = cli.exit_code(result.exception)
            assert exits == {"not_found": 4, "permission_denied": 6}.get(result.exception.code, exits)
            return result.exception.code, str(result.exception)
        assert result.exit_code == 0, (operation.name, result.output, result.exception)
        return None, result.stdout

    for operation in cells("cli", subject):
        assert operation.cli is not None
        by_name = operation.cli(world)[0] in ("put", "append", "upsert") and isinstance(operation.need, On)
        judge.ask(operation, ask, ByName(operation.need.level) if by_name else None)  # type: ignore[attr-defined]
    assert not judge.wrong


def test_the_matrix_has_thousands_of_cells() -> None:
    found = {door: sum(len(cells(door, subject)) for subject in subjects) for door, subjects in DOORS.items()}
    refused = sum(
        o.need.verdict(s) is not None for door, subjects in DOORS.items() for s in subjects for o in cells(door, s)
    )
    print(f"\nthe matrix: {found}, {sum(found.values())} cells, {refused} of them refused")
    assert sum(found.values()) >= 5000
    assert 0.4 < refused / sum(found.values()) < 0.8


# --- nothing is left out -------------------------------------------------------------------------------------------


def test_every_route_is_in_the_matrix(world: World, tmp_path: Path) -> None:
    Registry.open(tmp_path / "registry").close()
    app = create_app(Settings(folder=str(tmp_path / "registry")))
    described = app.openapi()["paths"]
    app.state.registry.close()
    routes = {(m.upper(), path) for path, methods in described.items() for m in methods if path.startswith("/v1/")}
    world.subject = PERSONS[0]
    asked = [operation.rest(world)[:2] for operation in OPERATIONS if operation.rest is not None]
    left = {
        (method, path)
        for method, path in routes
        if not any(
            m == method and re.fullmatch(re.sub(r"{[^}]*}", "[^/]+", path), "/v1/" + p.partition("?")[0])
            for m, p in asked
        )
    }
    assert not left


def test_every_command_is_in_the_matrix(world: World) -> None:
    def commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        if inners := getattr(command, "commands", None):
            for name, inner in inners.items():
                yield from commands(inner, (*path, name))
        else:
            yield path

    world.subject = PERSONS[0]
    asked = [tuple(operation.cli(world)) for operation in OPERATIONS if operation.cli is not None]
    found = {command for command in commands(_COMMAND) if command[0] not in ("init", "serve", "ui", "db")}
    found -= {("export", "iceberg")}  # it needs a catalog of pyiceberg: see tests/table_formats/test_iceberg_export.py
    assert not {command for command in found if not any(a[: len(command)] == command for a in asked)}


def test_every_method_is_in_the_matrix() -> None:
    names = {
        node.attr for node in ast.walk(ast.parse(inspect.getsource(operations))) if isinstance(node, ast.Attribute)
    }
    facts = {
        "open",
        "close",
        "location",
        "id",
        "name",
        "description",
        "dataset",
        "number",
        "digest",
        "depth",
        "parents",
    }
    facts |= {"message", "created_at", "created_by", "component_count", "draft", "is_owner"}
    for kind in (Registry, Dataset, Version, Draft):
        public = {name for name in vars(kind) if not name.startswith("_")}
        assert public - facts <= names, kind
