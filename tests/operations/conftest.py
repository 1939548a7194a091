"""Keeping house is tested on objects that can be counted, one a file; on packs and recipes in tests/content."""

import pytest

COUNTED = ("test_collection", "test_restore", "test_retention", "test_verify")


@pytest.fixture(autouse=True)
def _unpacked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.module.__name__.rpartition(".")[2] in COUNTED:
        monkeypatch.setattr("dataset_registry.content.pack.MANY", 1 << 30)
