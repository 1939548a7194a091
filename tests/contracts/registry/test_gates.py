"""Results of checks, taints, and the ways on which tainted content could reach a protected branch."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from dataset_registry import Dataset, Policy, Registry, Rule
from dataset_registry.errors import InputError, InUse, NotFound, Tainted
from dataset_registry.model.records import Provenance
from dataset_registry.version import Version
from tests.contracts.scenarios import error_of, everywhere


def table(*values: int) -> pa.Table:
    return pa.table({"id": list(range(len(values))), "v": list(values)})


def put(dataset: Dataset, branch: str, run: str | None = None, **components: pa.Table) -> Version:
    with dataset.draft(branch, provenance=Provenance(run_id=run), overwrite=True) as draft:
        for name, value in components.items():
            draft.add(name, value, key="id")
    return draft.version


@pytest.fixture
def guarded(flights: Dataset, any_registry: Registry) -> Dataset:
    """A dataset in two components with a protected main, and a branch `pr` that starts there."""
    put(flights, "main", a=table(1, 1), b=table(1, 1))
    flights.create_branch("pr")
    any_registry.protect(flights.name, "main")
    return flights


def refused(verb: Callable[[], object]) -> str:
    error = error_of(verb)
    assert isinstance(error, Tainted), repr(error)
    assert error.fields["taints"]
    return str(error)


# --- results of checks ---------------------------------------------------------------------------------------------


@everywhere
def test_results_of_checks_are_on_the_version_that_was_checked(guarded: Dataset) -> None:
    version = guarded.version()
    assert version.checks == []
    version.record_check("rows", True, metadata={"expected": 2, "got": 2}, run_id="r1")
    version.record_check("fresh", False, severity="warn", blocking=True, description="2 days old")
    later = put(guarded, "main", a=table(2, 2))
    first, second = guarded.version(f"v{version.number}").checks
    assert (first.name, first.passed, first.metadata, first.run_id) == ("rows", True, {"expected": 2, "got": 2}, "r1")
    assert first.version == version.number
    assert (second.is_blocking, second.severity, second.description) == (True, "warn", "2 days old")
    assert later.checks == []
    assert version.taints == [], "a warning taints nothing"
    assert str(second) == "fresh failed (warn, blocking): 2 days old"


@everywhere
def test_a_blocking_check_that_failed_taints_the_version_until_it_passes(guarded: Dataset) -> None:
    version = put(guarded, "pr", a=table(2, 2))
    version.record_check("no_gaps", False)
    assert version.taints == [], "it does not block"
    version.record_check("no_gaps", False, blocking=True)
    version.record_check("unique", False, blocking=True)
    assert [t.reason for t in version.taints] == [f"the check {name} failed on v2" for name in ("no_gaps", "unique")]
    text = refused(lambda: guarded.merge("pr"))
    assert "v2: the check no_gaps failed on v2" in text
    assert "absolve" in text
    version.record_check("no_gaps", True, blocking=True)
    assert [t.reason for t in version.taints] == ["the check unique failed on v2"]
    version.record_check("unique", True, blocking=True)
    assert guarded.merge("pr") == version


@everywhere
@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("", {}, "name of a check"),
        ("x" * 256, {}, "name of a check"),
        ("a\nb", {}, "control character"),
        ("x", {"severity": "fatal"}, "severity|fatal"),
        ("x", {"partition": "nowhere"}, "no partition"),
    ],
)
def test_a_result_that_cannot_be_recorded_is_refused(
    guarded: Dataset, name: str, options: dict[str, object], match: str
) -> None:
    error = error_of(lambda: guarded.version().record_check(name, False, **options))  # type: ignore[arg-type]
    assert isinstance(error, InputError | NotFound)
    assert guarded.version().checks == []


# --- runs ----------------------------------------------------------------------------------------------------------


@everywhere
def test_what_a_failed_run_wrote_is_tainted_until_the_run_succeeds(guarded: Dataset, any_registry: Registry) -> None:
    run = f"{guarded.name}-run"
    put(guarded, "pr", run, a=table(2, 2))
    (taint,) = any_registry.finish_run(run, succeeded=False)
    assert (taint.dataset, taint.version, taint.reason) == (guarded.name, 2, f"the run {run} failed")
    refused(lambda: guarded.merge("pr"))
    put(guarded, "pr", run, b=table(3, 3))
    assert any_registry.finish_run(run, succeeded=True) == []
    guarded.merge("pr")
    assert isinstance(error_of(lambda: any_registry.finish_run(f"{run}-nothing", succeeded=True)), NotFound)


# --- every way to a protected branch -------------------------------------------------------------------------------


@pytest.fixture
def tainted(guarded: Dataset) -> Version:
    """A version on `pr` whose component `a` is tainted."""
    version = put(guarded, "pr", a=table(2, 2))
    version.record_check("good", False, blocking=True)
    return version


@everywhere
def test_tainted_content_does_not_reach_a_protected_branch_as_it_is(
    guarded: Dataset, tainted: Version, any_registry: Registry
) -> None:
    v = f"v{tainted.number}"
    refused(lambda: guarded.merge("pr"))
    refused(lambda: guarded.merge("pr", fast_forward=False))
    refused(lambda: guarded.move_branch("main", v))
    refused(lambda: guarded.cherry_pick("pr"))
    refused(lambda: any_registry.publish("pr", datasets=guarded.name))
    guarded.create_branch("fork", v)
    refused(lambda: guarded.merge("fork"))
    assert guarded.version().number == 1


@everywhere
def test_a_protected_branch_cannot_start_with_tainted_content(
    guarded: Dataset, tainted: Version, any_registry: Registry
) -> None:
    any_registry.protect(guarded.name, "release")
    refused(lambda: guarded.create_branch("release", "pr"))
    refused(lambda: guarded.merge("pr", into="release"))
    with guarded.draft("release", fallback="pr") as draft:
        draft.add("a", table(4, 4), key="id")
    assert draft.version.taints == [], "it replaced what was tainted"
    any_registry.protect(guarded.name, "other")

    def started() -> None:
        with guarded.draft("other", fallback="pr") as draft:
            draft.add("b", table(4, 4), key="id")

    refused(started)
    assert {branch.name for branch in guarded.branches()} == {"main", "pr", "release"}


@everywhere
def test_content_stays_tainted_on_every_way_round(guarded: Dataset, tainted: Version) -> None:
    guarded.create_branch("picked", "v1")
    guarded.cherry_pick("pr", "picked")
    refused(lambda: guarded.merge("picked"))
    guarded.create_branch("merged", "v1")
    put(guarded, "merged", b=table(5, 5))
    guarded.merge("pr", into="merged")
    put(guarded, "merged", b=table(6, 6))
    refused(lambda: guarded.merge("merged"))
    guarded.create_branch("edited", "pr")
    guarded.upsert(pa.table({"id": [7], "v": [7]}), component="a", branch="edited")
    refused(lambda: guarded.merge("edited"))
    assert guarded.version().number == 1
    clean = put(guarded, "pr", a=table(8, 8))
    assert guarded.merge("pr") == clean
    refused(lambda: guarded.revert("main"))
    guarded.revert("pr", "pr")
    refused(lambda: guarded.merge("pr"))


@everywhere
def test_rows_merged_into_a_tainted_table_stay_tainted(guarded: Dataset, tainted: Version) -> None:
    guarded.upsert(pa.table({"id": [1], "v": [9]}), component="a", branch="main")
    put(guarded, "pr", a=table(2, 1))
    guarded.version("pr").record_check("good", False, blocking=True)
    guarded.merge("main", into="pr")
    assert guarded.version("pr").to_arrow("a")["v"].to_pylist() == [2, 9]
    refused(lambda: guarded.merge("pr"))


@everywhere
def test_content_that_was_replaced_is_not_tainted_any_longer(guarded: Dataset, tainted: Version) -> None:
    put(guarded, "pr", b=table(3, 3))
    assert [t.version for t in guarded.version("pr").taints] == [tainted.number]
    refused(lambda: guarded.merge("pr"))
    put(guarded, "pr", a=table(4, 4))
    assert guarded.version("pr").taints == []
    guarded.merge("pr")
    assert guarded.version().to_arrow("a")["v"].to_pylist() == [4, 4]


@everywhere
def test_a_check_of_one_partition_taints_that_partition(guarded: Dataset) -> None:
    put(guarded, "pr", a=table(2, 2))
    put(guarded, "pr", b=table(2, 2))
    guarded.version("pr").record_check("good", False, blocking=True, partition="a")
    assert guarded.version("v2").taints, "the partition is as it was there"
    refused(lambda: guarded.move_branch("main", "v2"))
    put(guarded, "pr", a=table(3, 3))
    guarded.merge("pr")


@everywhere
def test_what_a_protected_branch_has_already_can_be_built_on(guarded: Dataset) -> None:
    version = put(guarded, "main", a=table(2, 2))
    version.record_check("late", False, blocking=True)
    put(guarded, "main", b=table(2, 2))
    guarded.create_branch("later")
    put(guarded, "later", b=table(3, 3))
    guarded.merge("later")
    guarded.move_branch("main", "v1")
    refused(lambda: guarded.move_branch("main", f"v{version.number}"))


@everywhere
def test_an_unprotected_branch_takes_anything_but_a_publication(guarded: Dataset, any_registry: Registry) -> None:
    put(guarded, "pr", a=table(2, 2)).record_check("good", False, blocking=True)
    guarded.create_branch("free", "v1")
    refused(lambda: any_registry.publish("pr", into="free", datasets=guarded.name))
    assert guarded.merge("pr", into="free").number == 2


@everywhere
def test_a_tainted_version_is_absolved_with_a_reason(
    guarded: Dataset, tainted: Version, any_registry: Registry
) -> None:
    put(guarded, "pr", b=table(3, 3))
    assert isinstance(error_of(lambda: guarded.absolve("pr", " ")), InputError)
    assert isinstance(error_of(lambda: guarded.absolve("main", "why not")), InputError)
    (taint,) = guarded.absolve("pr", "the gap is a holiday")
    assert taint.version == tainted.number
    assert guarded.version("pr").taints == []
    guarded.merge("pr")
    (entry,) = any_registry.audit(action="absolve", dataset=guarded.name)
    assert entry.details["because"] == "the gap is a holiday"


# --- deletion ------------------------------------------------------------------------------------------------------


@everywhere
def test_a_tainted_version_stays_while_others_have_its_content(guarded: Dataset, tainted: Version) -> None:
    guarded.create_branch("picked", "v1")
    guarded.cherry_pick("pr", "picked")
    guarded.move_branch("pr", "v1")
    assert isinstance(error_of(lambda: guarded.delete_version(f"v{tainted.number}")), InUse)
    guarded.absolve("picked", "it is fine")
    guarded.delete_version(f"v{tainted.number}")


def test_an_expiry_does_not_forget_a_taint(embedded: Registry) -> None:
    dataset = embedded.create_dataset("raw/expiring")
    put(dataset, "main", a=table(1, 1), b=table(1, 1))
    embedded.protect("raw/expiring", "main")
    dataset.create_branch("pr")
    put(dataset, "pr", a=table(2, 2)).record_check("good", False, blocking=True)
    guardeds = [put(dataset, "pr", b=table(i, i)) for i in range(3, 6)]
    plan = embedded.expire(Policy((Rule(last=1),)), dry_run=True, live_runs=[])
    (planned,) = [found for found in plan.datasets if found.dataset.name == "raw/expiring"]
    assert planned.kept[2] == "tainted, and others have its content"
    embedded.apply(plan, live_runs=[])
    assert guardeds[-1].taints
    refused(lambda: dataset.merge("pr"))


# --- copies --------------------------------------------------------------------------------------------------------


def test_a_copy_brings_checks_and_taints_and_keeps_its_protected_branches(embedded: Registry, tmp_path: Path) -> None:
    dataset = embedded.create_dataset("raw/copied")
    put(dataset, "main", a=table(1, 1), b=table(1, 1))
    put(dataset, "main", a=table(2, 2))
    dataset.create_branch("picked", "v1")
    with Registry.open(tmp_path / "copy") as other:
        embedded.copy_to(other, datasets=["raw/copied"])
        other.protect("raw/copied", "main")
        put(dataset, "main", b=table(3, 3)).record_check("good", False, blocking=True)
        dataset.cherry_pick("main", "picked")
        done = embedded.copy_to(other, datasets=["raw/copied"])
        assert any("the check good failed on v3" in note for note in done.notes)
        copied = other.dataset("raw/copied")
        assert copied.version().number == 2
        assert [check.name for check in copied.version("v3").checks] == ["good"]
        refused(lambda: copied.merge("picked"))
        copied.absolve("v3", "it is fine")
        embedded.copy_to(other, datasets=["raw/copied"])
        assert copied.version().number == 3
        assert len(copied.version("v3").checks) == 1
