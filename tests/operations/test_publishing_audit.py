"""What publications and merges leave behind is what the audit log says."""

from pathlib import Path

import pyarrow as pa

from dataset_registry import Registry
from dataset_registry.model.records import Provenance


def test_merges_publications_and_reverts_are_in_the_audit_log_and_verify(tmp_path: Path) -> None:
    with Registry.open(tmp_path / "registry") as registry:
        for name in ("raw/a", "raw/b"):
            dataset = registry.create_dataset(name)
            dataset.commit({"data": pa.table({"id": [1, 2], "v": [0, 0]})}, key="id")
            dataset.create_branch("pr")
            with registry.draft(name, "pr", provenance=Provenance(run_id="run-1")) as draft:
                draft.upsert("data", pa.table({"id": [1], "v": [1]}))
        registry.dataset("raw/b").upsert(pa.table({"id": [2], "v": [2]}))
        registry.publish("pr")
        registry.publish("main", into="release")
        registry.dataset("raw/a").revert("main")
        registry.revert_run("run-1", "pr")
        actions = [entry.action for entry in registry.audit()]
        assert actions.count("publish") == 2
        assert actions.count("run.revert") == 1
        assert actions.count("branch.create") == 4, "two by hand, two by the publication into a new branch"
        assert registry.check_audit().problems == ()
        assert registry.verify(deep=True).findings == ()
        assert registry.dataset("raw/b").version("release").to_arrow().column("v").to_pylist() == [1, 2]
