"""Validates OpenLineage events against the published JSON schemas: `python -m tests.openlineage_spec FOLDER`.

FOLDER is `spec` of the OpenLineage repository. The events are those of a pipeline with nested columns, column lineage and checks.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
import jsonschema
from referencing import Registry, Resource

from tests.dagster_io.conftest import World
from tests.dagster_io.test_openlineage import run


def schemas(folder: Path) -> Registry[Any]:
    """The published schemas, by their addresses."""
    found = [
        json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) + sorted(folder.glob("facets/*.json"))
    ]
    return Registry().with_resources([(schema["$id"], Resource.from_contents(schema)) for schema in found])


def violations(event: dict[str, Any], known: Registry[Any]) -> tuple[int, list[str]]:
    """The number of things of an event that were validated, and what is wrong with them: the event, and each facet against the
    schema that it names."""
    checked: list[tuple[str, Any, str]] = [("event", event, event["schemaURL"])]

    def walk(value: Any, at: str) -> None:
        if isinstance(value, dict):
            if "_schemaURL" in value:
                checked.append((at, {at.rpartition(".")[2]: value}, value["_schemaURL"].partition("#")[0]))
            for name, inner in value.items():
                walk(inner, f"{at}.{name}")
        elif isinstance(value, list):
            for i, inner in enumerate(value):
                walk(inner, f"{at}[{i}]")

    walk(event, "event")
    wrong = []
    for at, value, address in checked:
        validator = jsonschema.Draft202012Validator({"$ref": address}, registry=known)
        wrong += [f"{at}: {error.message}" for error in validator.iter_errors(value)]
    return len(checked), wrong


def main() -> None:
    """Print what is wrong; exit with 1 if anything is."""
    known = schemas(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        found = [violations(event, known) for event in run(World(Path(folder), instance))]
    wrong = [text for _, texts in found for text in texts]
    print(*wrong, sep="\n")
    print(f"{len(found)} events, {sum(count for count, _ in found)} schemas, {len(wrong)} violations")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
