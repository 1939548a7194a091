"""Keeping house is tested on objects that can be counted, one a file; on packs and recipes in tests/content."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dataset_registry import Registry
from tests import fresh

COUNTED = ("test_collection", "test_restore", "test_retention", "test_verify")


@pytest.fixture(autouse=True)
def _unpacked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.module.__name__.rpartition(".")[2] in COUNTED:
        monkeypatch.setattr("dataset_registry.content.pack.MANY", 1 << 30)


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Callable[..., Registry]]:
    """Opens further embedded registries."""
    with ExitStack() as stack:

        def open_one(**options: Any) -> Registry:
            folder = tmp_path / f"beside-{uuid4().hex}"
            return stack.enter_context(Registry.open(fresh.folder(folder), **options))

        yield open_one
