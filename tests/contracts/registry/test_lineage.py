"""Lineage."""

from datetime import timedelta

from dataset_registry import InputVersion, Provenance, Registry
from tests.contracts.scenarios import (
    everywhere,
)


@everywhere
def test_a_version_knows_what_it_was_made_from_and_what_was_made_from_it(any_registry: Registry, prefix: str) -> None:
    source, result = (any_registry.create_dataset(prefix + name) for name in ("source", "result"))
    read_version = source.commit({"data": b"1"})
    used = InputVersion(
        *(source.name, 1, read_version.digest, "main"), components=("2024-01-01",), fallback="main", label="orders"
    )
    made = Provenance(
        run_id="run-1",
        step="load",
        asset_key="a/b",
        partition="2024-01-01",
        code_version="7",
        inputs=(used,),
        metadata={"job": "nightly", "rows": 3, "nested": {"größe": [None, 1.5]}},
    )
    version = result.commit({"data": b"2"}, provenance=made)
    assert version.provenance == made
    assert read_version.consumers == [(result.name, 1)]
    again = Provenance(run_id="run-2", inputs=(used,))
    result.commit({"data": b"2"}, provenance=again)
    found = result.version().productions
    assert [(p.version, p.branch, p.unchanged, p.created_by) for p in found] == [
        *[(1, "main", False, "admin"), (1, "main", True, "admin")]
    ]
    assert [p.provenance for p in found] == [made, again]
    assert found[0].created_at <= found[1].created_at
    assert found[0].created_at.utcoffset() == timedelta(0)
    plain = source.version()
    assert (plain.provenance, plain.productions[0].provenance) == (Provenance(), Provenance())
    assert version.consumers == []
