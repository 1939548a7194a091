"""The description of the API as it was promised: `python -m tests.server.store_openapi` writes openapi.json anew.

`broken` says what of a stored description another one does not keep. Things may be added, never taken away or made stricter.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

STORED = Path(__file__).with_name("openapi.json")
Schema = dict[str, Any]


def described() -> Schema:
    """The description of the API that this package has now."""
    from dataset_registry.registry import Registry
    from dataset_registry.server.app import create_app
    from dataset_registry.server.settings import Settings

    with TemporaryDirectory() as folder:
        Registry.open(folder).close()
        app = create_app(Settings(folder=folder))
        try:
            found: Schema = json.loads(json.dumps(app.openapi()))
        finally:
            app.state.registry.close()
    return found


def broken(before: Schema, after: Schema) -> list[str]:
    """What a client of `before` cannot rely on any more in `after`."""
    found: list[str] = []
    for path, item in before["paths"].items():
        for method, operation in item.items():
            there = after["paths"].get(path, {}).get(method)
            where = f"{method.upper()} {path}"
            if there is None:
                found.append(f"{where} is gone")
            else:
                found += _operation(where, operation, there, before, after)
    return found


def _operation(where: str, old: Schema, new: Schema, before: Schema, after: Schema) -> list[str]:
    found = []
    parameters = {(p["in"], p["name"].lower()): p for p in new.get("parameters", [])}
    known = {(p["in"], p["name"].lower()): p for p in old.get("parameters", [])}
    for key, parameter in known.items():
        if key not in parameters:
            found.append(f"{where}: the parameter {key[1]} is gone")
            continue
        if parameters[key].get("required") and not parameter.get("required"):
            found.append(f"{where}: the parameter {key[1]} is required now")
        at = f"{where} {key[1]}"
        found += _schema(at, parameter["schema"], parameters[key]["schema"], before, after, is_request=True)
    found += [
        f"{where}: there is a new required parameter {key[1]}"
        for key, parameter in parameters.items()
        if key not in known and parameter.get("required")
    ]
    old_body, new_body = old.get("requestBody"), new.get("requestBody")
    if new_body and new_body.get("required") and not (old_body and old_body.get("required")):
        found.append(f"{where}: a body is required now")
    for kind, content in (old_body or {}).get("content", {}).items():
        there = (new_body or {}).get("content", {}).get(kind)
        if there is None:
            found.append(f"{where}: {kind} is not taken any more")
        else:
            at = f"{where} body"
            found += _schema(at, content["schema"], there["schema"], before, after, is_request=True)
    for status, response in old["responses"].items():
        if status not in new["responses"]:
            found.append(f"{where}: the answer {status} is gone")
            continue
        answer = _resolved(new["responses"][status], after)
        for kind, content in _resolved(response, before).get("content", {}).items():
            there = answer.get("content", {}).get(kind)
            if there is None:
                found.append(f"{where}: the answer {status} is no {kind} any more")
            elif content.get("schema"):
                at = f"{where} answer {status}"
                found += _schema(at, content["schema"], there.get("schema", {}), before, after, is_request=False)
    return found


def _schema(
    where: str, old: Schema, new: Schema, before: Schema, after: Schema, *, is_request: bool, seen: tuple[str, ...] = ()
) -> list[str]:
    name = old.get("$ref", "")
    if name in seen:
        return []
    seen = (*seen, name) if name else seen
    old, new = _resolved(old, before), _resolved(new, after)
    found = []
    for limit in ("maxLength", "maxItems", "maximum", "minLength", "minItems", "minimum", "pattern", "const"):
        if is_request and limit in new and not _is_as_wide(limit, old.get(limit), new[limit]):
            found.append(f"{where}: {limit} is {new[limit]!r} now, it was {old.get(limit)!r}")
    if "enum" in old or "enum" in new:
        was, now = set(old.get("enum", [])), set(new.get("enum", []))
        if (is_request and not now >= was) or ("enum" in old and "enum" not in new and not is_request):
            found.append(f"{where}: the values {sorted(was)} became {sorted(now)}")
    kinds, there = _kinds(old, before), _kinds(new, after)
    if (is_request and not there >= kinds) or (not is_request and not kinds >= there):
        found.append(f"{where}: the type {sorted(kinds)} became {sorted(there)}")
    properties = new.get("properties", {})
    for name, value in old.get("properties", {}).items():
        if name not in properties:
            found.append(f"{where}: the property {name} is gone")
        else:
            at = f"{where}.{name}"
            found += _schema(at, value, properties[name], before, after, is_request=is_request, seen=seen)
    required, was_required = set(new.get("required", [])), set(old.get("required", []))
    if is_request:
        found += [f"{where}: the property {name} is required now" for name in sorted(required - was_required)]
    else:
        found += [f"{where}: the property {name} may be missing now" for name in sorted(was_required - required)]
    if "items" in old:
        at = f"{where}[]"
        found += _schema(at, old["items"], new.get("items", {}), before, after, is_request=is_request, seen=seen)
    for choice in (c for c in old.get("anyOf", []) if c != {"type": "null"}):
        others = [c for c in new.get("anyOf", [new]) if _kinds(c, after) & _kinds(choice, before)]
        if others:
            found += _schema(where, choice, others[0], before, after, is_request=is_request, seen=seen)
    return found


def _is_as_wide(limit: str, old: Any, new: Any) -> bool:
    if limit in ("pattern", "const") or old is None:
        return bool(old == new)
    return bool(new >= old if limit.startswith("max") else new <= old)


def _kinds(schema: Schema, whole: Schema) -> set[str]:
    schema = _resolved(schema, whole)
    if "anyOf" in schema:
        return {kind for choice in schema["anyOf"] for kind in _kinds(choice, whole)}
    return {schema["type"]} if "type" in schema else {"anything"}


def _resolved(schema: Schema, whole: Schema) -> Schema:
    while "$ref" in schema:
        _, _, kind, name = schema["$ref"].split("/")
        schema = whole["components"][kind][name]
    return schema


if __name__ == "__main__":
    STORED.write_text(json.dumps(described(), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(f"wrote {STORED}")
