"""Lineage says nothing of datasets that its reader may not read."""

import pytest

from dataset_registry import Registry, Version
from dataset_registry.model.records import InputVersion, Provenance
from tests.permissions.support import acting


def read(version: Version) -> InputVersion:
    return InputVersion(version.dataset, version.number, version.digest, "main")


@pytest.fixture
def line(owner: Registry) -> Registry:
    """secret/a -> public/b -> secret/c; `bob` reads under `public/`."""
    owner.create_user("bob")
    owner.grant("bob", "write", "public/")
    a = owner.create_dataset("secret/a").commit({"data": b"a"})
    b = owner.create_dataset("public/b").commit({"data": b"b"}, provenance=Provenance("run-1", inputs=(read(a),)))
    owner.create_dataset("secret/c").commit({"data": b"c"}, provenance=Provenance("run-2", inputs=(read(b), read(a))))
    return owner


def test_neither_inputs_nor_consumers_name_what_one_may_not_read(line: Registry) -> None:
    with acting(line, "bob") as bob:
        version = bob.version("public/b")
        assert version.consumers == []
        assert (version.provenance.run_id, version.provenance.inputs) == ("run-1", ())
        line.grant("bob", "read", "secret/c")
        assert version.consumers == [("secret/c", 1)]
        (production,) = bob.version("secret/c").productions
        assert [found.dataset for found in production.provenance.inputs] == ["public/b"]
        line.grant("bob", "read", "secret/")
        assert [found.dataset for found in version.provenance.inputs] == ["secret/a"]


def test_naming_a_version_as_an_input_does_not_tell_whether_there_is_one(line: Registry) -> None:
    """The claim is kept as a claim: it does not link to the version, and is not shown as one that does."""
    secret = line.version("secret/a")
    with acting(line, "bob") as bob:
        made = [
            bob.create_dataset(f"public/{name}").commit({"data": b"x"}, provenance=Provenance("run", inputs=(claim,)))
            for name, claim in (("d", read(secret)), ("e", InputVersion("secret/none", 1, secret.digest, "main")))
        ]
        assert [version.provenance.inputs for version in made] == [(), ()]
    assert [name for name, _ in secret.consumers] == ["public/b", "secret/c"]


def test_a_read_is_noted_of_what_one_may_read(line: Registry) -> None:
    with acting(line, "bob") as bob:
        bob.version("public/b").note_read("run-9")
