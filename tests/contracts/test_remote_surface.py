"""What an embedded registry can do, a served one can: nothing reaches past the server by accident."""

import inspect

import pytest

from dataset_registry import Dataset, Draft, Registry, Version
from dataset_registry.remote.dataset import RemoteDataset, RemoteDraft, RemoteVersion
from dataset_registry.remote.registry import RemoteRegistry


@pytest.mark.parametrize(
    ("embedded", "remote"),
    [(Registry, RemoteRegistry), (Dataset, RemoteDataset), (Version, RemoteVersion), (Draft, RemoteDraft)],
)
def test_every_method_that_needs_the_catalog_is_a_request_over_rest(embedded: type, remote: type) -> None:
    missing = []
    for name, member in vars(embedded).items():
        function = member.fget if isinstance(member, property) else member
        if not inspect.isfunction(function) or (name in ("open", "__eq__") and embedded is Registry):
            continue
        if "self.access" in inspect.getsource(function) and name not in vars(remote):
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize(
    ("embedded", "remote"),
    [(Registry, RemoteRegistry), (Dataset, RemoteDataset), (Version, RemoteVersion)],
)
def test_requests_take_what_the_embedded_methods_take(embedded: type, remote: type) -> None:
    for name, member in vars(remote).items():
        if name.startswith("_") or not inspect.isfunction(member) or not hasattr(embedded, name):
            continue
        if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(member).parameters.values()):
            continue  # handed on as they are
        wanted = [(p.name, p.default) for p in inspect.signature(getattr(embedded, name)).parameters.values()]
        assert [(p.name, p.default) for p in inspect.signature(member).parameters.values()] == wanted, name
