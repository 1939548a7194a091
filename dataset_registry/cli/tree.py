"""Files and folders on the command line: their component names and read options."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset_registry.cli.output import say
from dataset_registry.errors import InputError

_LEFT_OUT = ".git"


def named_files(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """The component name and the path of each file in the arguments: files, folders, `name=path`, `-`.

    A single file is named `data`. The files of a single folder are named by their path in it; with several arguments,
    by the path as typed, or relative to the common folder if some are absolute. Raises `InputError` for a duplicate
    name.
    """
    found: list[tuple[str, str]] = []
    plain = [text for text in arguments if _given_name(text) is None and text != "-"]
    base = _base(plain)
    for text in arguments:
        given = _given_name(text)
        if text == "-":
            found.append(("data", text))
        elif given is not None:
            name, path = given
            found += [(name, path)] if not os.path.isdir(path) else _below(path, path, f"{name}/")
        elif os.path.isdir(text):
            found += _below(text, text if len(arguments) == 1 else base, "")
        else:
            found.append(("data" if len(arguments) == 1 else os.path.relpath(text, base).replace(os.sep, "/"), text))
    for name, _ in found:
        if (stored := unicodedata.normalize("NFC", name)) != name:
            say(f"note: {name!a} is stored as {stored!a}, Unicode's normal form", err=True)
    owners: dict[str, str] = {}
    for name, path in found:
        if (other := owners.setdefault(name, path)) != path:
            raise InputError(
                f"{other} and {path} would both be the component {name!r}. Name one of them: {name}-2={path}"
            )
    return found


def _given_name(text: str) -> tuple[str, str] | None:
    name, equals, path = text.partition("=")
    return (name, path) if equals and not os.path.exists(text) else None


def _base(paths: Sequence[str]) -> str:
    """The folder that names are relative to: the working directory, or the common folder if some paths are outside."""
    if all(not os.path.isabs(path) and ".." not in Path(path).parts for path in paths):
        return "."
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])


def _below(folder: str, base: str, prefix: str) -> list[tuple[str, str]]:
    """Every file below a folder, in order."""
    found = []
    for parent, folders, files in os.walk(folder):
        if _LEFT_OUT in folders:
            folders.remove(_LEFT_OUT)
            say(f"note: {os.path.join(parent, _LEFT_OUT)} is left out", err=True)
        for name in [name for name in folders if os.path.islink(os.path.join(parent, name))]:
            say(f"note: {os.path.join(parent, name)} is a link to a folder, and left out", err=True)
        if not folders and not files:
            say(f"note: {parent} is empty, and left out", err=True)
        folders.sort()
        for name in sorted(files):
            path = os.path.join(parent, name)
            found.append((prefix + os.path.relpath(path, base).replace(os.sep, "/"), path))
    if not found:
        raise InputError(f"{folder} has no files. Pass a folder with files.", path=folder)
    return found


def read_options(given: Sequence[str] | None) -> dict[str, Any] | None:
    """Parse read options: `types.zip=string`, `header=false`, `null_values=NA,-`; `none` for none."""
    if not given:
        return None
    if list(given) == ["none"]:
        return {}
    found: dict[str, Any] = {}
    for text in given:
        option, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"Invalid read option {text!r}: write OPTION=VALUE, such as types.zip=string.")
        name, dot, column = option.partition(".")
        if dot:
            found.setdefault(name, {})[column] = value
        elif option == "header":
            found[option] = {"true": True, "false": False}.get(value.lower(), value)
        elif option == "skip_rows":
            found[option] = int(value) if value.isdigit() else value
        elif option == "null_values":
            found[option] = value.split(",")
        else:
            found[option] = {"\\t": "\t", "tab": "\t"}.get(value, value) if option == "delimiter" else value
    return found
