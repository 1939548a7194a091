"""Every operation there is: what it takes, and how to ask for it at each door."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from shutil import rmtree
from typing import Any

import pyarrow as pa

from dataset_registry import Registry
from dataset_registry.wire.maintenance import CollectPlanResponse, ExpirePlanResponse, SweepPlanResponse
from tests.permissions.subjects import (
    ADMIN,
    DATASET,
    PREFIX,
    READ,
    WRITE,
    Administrator,
    Anybody,
    Audited,
    ByName,
    Comment,
    Create,
    Need,
    Nobody,
    On,
    OnFile,
    OnPrefix,
    Open,
    Others,
    OwnToken,
    OwnUpload,
    Rename,
    Revoke,
    Writer,
)
from tests.permissions.world import POLICY, World

Request = tuple[str, str, Mapping[str, Any]]


@dataclass(frozen=True)
class Operation:
    """One thing to ask for. `shows` is what a list has exactly for those who may read the dataset, or the file."""

    name: str
    need: Need
    python: Callable[[Registry, World], object] | None = None
    rest: Callable[[World], Request] | None = None
    cli: Callable[[World], list[str]] | None = None
    changes: bool = False
    shows: Callable[[World], str] | None = None


def get(path: Callable[[World], str], **params: Any) -> Callable[[World], Request]:
    return lambda w: ("GET", path(w), {"params": {n: v(w) if callable(v) else v for n, v in params.items()}})


def post(path: Callable[[World], str], json: Callable[[World], Any] | None = None) -> Callable[[World], Request]:
    return lambda w: ("POST", path(w), {} if json is None else {"json": json(w)})


def put(method: str, path: Callable[[World], str], **how: Any) -> Callable[[World], Request]:
    return lambda w: (method, path(w), {n: v(w) if callable(v) else v for n, v in how.items()})


def there(tail: str = "") -> Callable[[World], str]:
    return lambda w: f"datasets/{w.id}" + tail


def that(tail: str = "", number: int = 2) -> Callable[[World], str]:
    return lambda w: f"datasets/{w.id}/versions/{w.ids[number]}" + tail


def at(path: str) -> Callable[[World], str]:
    return lambda w: path


def cli(*arguments: str) -> Callable[[World], list[str]]:
    return lambda w: [
        argument.format(
            resolved=w.resolved,
            rows=w.rows_file,
            hash=w.hash,
            sample=w.sample,
            out=w.out,
            copy=w.elsewhere,
            own=w.own_token,
            other=w.foreign_token,
        )
        for argument in arguments
    ]


def _new(w: World) -> dict[str, Any]:
    """A component whose content comes with the request."""
    return {"files": {"extra": ("extra.bin", b"new bytes")}, "data": {"message": "new"}}


def _draft(registry: Registry, name: str) -> object:
    with registry.draft(name) as draft:
        draft.add("extra", b"new bytes", type="metadata")
        draft.add("more", b"more bytes")
        draft.replace("more", [b"other bytes"])
        draft.remove("more")
        draft.clear_partition("2026-11-01")
        draft.clear()
        draft.add("extra", b"new bytes", replace=True)
    return draft.version, draft.result


def _restored(registry: Registry, w: World) -> object:
    version = w.v(registry)
    with registry.dataset(DATASET).draft() as draft:
        draft.remove("data")
        draft.restore(version, "data")
    return draft.version


def _concatenated(registry: Registry, w: World) -> object:
    import pyarrow as pa

    version = registry.dataset(DATASET).commit({"rows": pa.table({"x": [1]})})
    with registry.dataset(DATASET).draft() as draft:
        draft.concatenate("rows", [(version, "rows"), (version, "rows")], replace=True)
    return draft.version


def _named(name: str) -> Callable[[World], Request]:
    import json

    commit = {"dataset_name": name, "components": [{"component_name": "extra", "content": {"part": "extra"}}]}
    files = {"extra": ("extra.bin", b"new bytes")}
    return lambda w: ("POST", f"commits?dataset_name={name}", {"files": files, "data": {"commit": json.dumps(commit)}})


def _token(json: Mapping[str, Any]) -> Callable[[World], Request]:
    return post(at("tokens"), lambda w: json)


def _read_everything(r: Registry, w: World) -> object:
    version, tables = w.v(r), "table"
    found = [version.to_arrow(tables), version.to_pandas(tables), version.to_polars(tables), version.lazy(tables)]
    return [*found, version.scan(tables), version.to_duckdb(tables), version.uris("data"), version.paths("data")]


def _facts(r: Registry, w: World) -> object:
    """What a version says of itself is in the hands of who looked it up; looking anew is not."""
    version = w.v(r)
    return version.components, version.components_named(["data"]), version.schema, version.captured("data")


def _bytes(r: Registry, w: World) -> bytes:
    with w.v(r, 1).open("data") as stream:
        return stream.read()


def _file_bytes(r: Registry, w: World) -> bytes:
    with r.open_file(w.hash) as stream:
        return stream.read()


def _checkout_command(w: World) -> list[str]:
    rmtree(w.out, ignore_errors=True)
    return ["checkout", DATASET, str(w.out)]


def _export_delta_command(w: World) -> list[str]:
    rmtree(w.out, ignore_errors=True)
    return ["export", "delta", DATASET, str(w.out), "--component", "table"]


def _export_ducklake_command(w: World) -> list[str]:
    target = w.out.with_suffix(".ducklake")
    target.unlink(missing_ok=True)
    return ["export", "ducklake", str(target), "--no-keep"]


def _checkout(r: Registry, w: World) -> object:
    import shutil

    shutil.rmtree(w.out, ignore_errors=True)
    return w.v(r).checkout(w.out, component="data")


def _copy(r: Registry, w: World) -> object:
    with Registry.open(w.elsewhere) as other:
        return r.copy_to(other, datasets=[DATASET])


def _hash(w: World) -> str:
    return str(w.hash)


_SHOWN = DATASET
_MONTH = timedelta(days=30)

OPERATIONS = (
    # --- datasets ---
    Operation(
        "list datasets",
        Anybody(),
        lambda r, w: [d.name for d in r.datasets()],
        get(at("datasets"), prefix=""),
        cli("datasets"),
        shows=at(_SHOWN),
    ),
    Operation("ls", Anybody(), None, None, cli("ls"), shows=at(_SHOWN)),
    Operation("list", Anybody(), None, None, cli("list"), shows=at(_SHOWN)),
    Operation("what is here", Anybody(), None, None, cli("status")),
    Operation("find a dataset by name", On(READ), lambda r, w: r.dataset(DATASET), get(at("datasets"), name=DATASET)),
    Operation("find a dataset by id", On(READ), lambda r, w: r.dataset(w.id), get(there())),
    Operation(
        "create a dataset",
        Create("free/new"),
        lambda r, w: r.create_dataset("free/new"),
        post(at("datasets"), lambda w: {"name": "free/new"}),
        cli("dataset", "create", "free/new"),
        changes=True,
    ),
    Operation(
        "create a dataset where somebody may write",
        Create("raw/new"),
        lambda r, w: r.create_dataset("raw/new"),
        post(at("datasets"), lambda w: {"name": "raw/new"}),
        cli("dataset", "create", "raw/new"),
        changes=True,
    ),
    Operation(
        "describe",
        On(WRITE),
        lambda r, w: w.at(r).update(description="new"),
        put("PATCH", there(), json={"description": "new"}),
        cli("dataset", "describe", DATASET, "new"),
        changes=True,
    ),
    Operation(
        "rename",
        Rename("free/renamed"),
        lambda r, w: w.at(r).rename("free/renamed"),
        put("PATCH", there(), json={"name": "free/renamed"}),
        cli("dataset", "rename", DATASET, "free/renamed"),
        changes=True,
    ),
    Operation(
        "rename to where somebody may write",
        Rename("raw/renamed"),
        lambda r, w: w.at(r).rename("raw/renamed"),
        put("PATCH", there(), json={"name": "raw/renamed"}),
        cli("dataset", "rename", DATASET, "raw/renamed"),
        changes=True,
    ),
    Operation(
        "delete a dataset",
        On(ADMIN),
        lambda r, w: w.at(r).delete(),
        put("DELETE", there()),
        cli("dataset", "delete", DATASET, "--yes"),
        changes=True,
    ),
    # --- committing ---
    Operation(
        "commit",
        On(WRITE),
        lambda r, w: w.at(r).commit({"extra": b"new bytes"}),
        put("POST", there("/versions"), files=lambda w: _new(w)["files"], data=lambda w: _new(w)["data"]),
        cli("put", DATASET, "extra={sample}"),
        changes=True,
    ),
    Operation(
        "commit several files",
        On(WRITE),
        lambda r, w: w.at(r).commit({"one": b"1", "several": [b"2", b"3"]}, message="Three files"),
        put("POST", there("/versions"), files={"one": ("one.bin", b"1"), "two": ("two.bin", b"2")}),
        cli("put", DATASET, "one={sample}", "two={sample}", "--message", "two"),
        changes=True,
    ),
    Operation("restore a component", On(WRITE), _restored),
    Operation("concatenate tables", On(WRITE), _concatenated, changes=True),
    Operation("remove a component", On(WRITE), None, None, cli("rm", DATASET, "data"), changes=True),
    Operation("commit by name", ByName(WRITE), lambda r, w: _draft(r, DATASET), _named(DATASET), changes=True),
    Operation(
        "commit to a new branch",
        On(WRITE),
        lambda r, w: w.at(r).commit({"extra": b"x"}, branch="mine", fallback="main"),
        put("POST", there("/versions"), files={"extra": ("x.bin", b"x")}, data={"branch": "mine", "fallback": "main"}),
        changes=True,
    ),
    Operation("where a commit starts", On(WRITE), None, get(lambda w: "head", dataset_id=lambda w: w.id)),
    Operation("where a commit by name starts", ByName(WRITE), None, get(lambda w: "head", dataset_name=DATASET)),
    Operation(
        "commit what is stored, by its hash",
        On(WRITE),
        None,
        post(
            there("/versions"),
            lambda w: {"components": [{"component_name": "again", "content": {"content_hash": w.hash}}]},
        ),
        changes=True,
    ),
    Operation(
        "commit to a protected branch",
        On(ADMIN),
        lambda r, w: w.at(r).commit({"extra": b"x"}, branch="release"),
        put("POST", there("/versions"), files={"extra": ("x.bin", b"x")}, data={"branch": "release"}),
        cli("put", DATASET, "extra={sample}", "--branch", "release"),
        changes=True,
    ),
    Operation(
        "commit a new dataset",
        Create("free/new"),
        lambda r, w: _draft(r, "free/new"),
        _named("free/new"),
        cli("put", "free/new", "{sample}"),
        changes=True,
    ),
    Operation(
        "commit a new dataset where somebody may write",
        Create("raw/new"),
        lambda r, w: _draft(r, "raw/new"),
        _named("raw/new"),
        cli("put", "raw/new", "{sample}"),
        changes=True,
    ),
    # --- versions ---
    Operation("tree", On(READ), lambda r, w: w.at(r).tree(), get(there("/tree")), cli("log", DATASET, "--all")),
    Operation("nested tree", On(READ), None, get(there("/tree/nested")), None),
    Operation("a tag", On(READ), lambda r, w: w.at(r).branch("spare-tag"), get(there("/tags/spare-tag")), None),
    Operation("list versions", On(READ), None, get(there("/versions"))),
    Operation("log", On(READ), lambda r, w: w.at(r).log(), get(there("/log")), cli("log", DATASET)),
    Operation("find a version", On(READ), lambda r, w: w.at(r).version("main~1"), get(there("/resolve"), ref="main~1")),
    Operation("find a version by its address", On(READ), lambda r, w: r.version(f"{DATASET}@july")),
    Operation("find a version by its id", On(READ), None, get(that())),
    Operation(
        "children",
        On(READ),
        lambda r, w: w.at(r).children("v1"),
        get(that("/children", 1)),
        cli("version", "children", f"{DATASET}@v1"),
    ),
    Operation(
        "merge bases",
        On(READ),
        lambda r, w: (w.at(r).merge_bases("dev", "main"), w.at(r).merge_base("dev", "main")),
        get(there("/merge-bases"), left="dev", right="main"),
        cli("version", "merge-base", DATASET, "dev", "main"),
    ),
    Operation(
        "diff",
        On(READ),
        lambda r, w: w.at(r).diff("v1", "v2"),
        get(there("/compare"), before="v1", after="v2"),
        cli("diff", DATASET, "v1", "v2"),
    ),
    Operation(
        "count the rows that differ",
        On(READ),
        lambda r, w: w.at(r).diff_summary("v1", "v2"),
        get(there("/compare/summary"), before="v1", after="v2"),
    ),
    Operation(
        "list the rows that differ",
        On(READ),
        lambda r, w: w.at(r).diff_rows("v1", "v2", "table").read_all(),
        get(there("/compare/rows"), before="v1", after="v2", component="table"),
        cli("diff", DATASET, "v1", "v2", "--component", "table", "--format", "csv"),
    ),
    # --- merges ---
    Operation(
        "plan a merge",
        On(READ),
        lambda r, w: w.at(r).plan_merge("dev", "spare"),
        post(there("/merges/plan"), lambda w: {"ref": "dev", "branch": "spare"}),
        cli("merge", DATASET, "dev", "--into", "spare", "--dry-run"),
    ),
    Operation(
        "list rows in conflict",
        On(READ),
        lambda r, w: w.at(r).conflicts("right", "left", "table"),
        post(there("/merges/conflicts"), lambda w: {"ref": "right", "branch": "left", "component": "table"}),
        cli("conflicts", DATASET, "right", "--into", "left", "--component", "table"),
    ),
    Operation(
        "merge",
        On(WRITE),
        lambda r, w: w.at(r).merge("dev", "spare"),
        post(there("/merges"), lambda w: {"ref": "dev", "branch": "spare"}),
        cli("merge", DATASET, "dev", "--into", "spare"),
        changes=True,
    ),
    Operation(
        "merge rows",
        On(WRITE),
        lambda r, w: w.at(r).merge("right", "left", strategy="theirs"),
        post(there("/merges"), lambda w: {"ref": "right", "branch": "left", "strategies": [{"take": "theirs"}]}),
        cli("resolve", DATASET, "right", "{resolved}", "--into", "left", "--component", "table"),
        changes=True,
    ),
    Operation(
        "merge into a protected branch",
        On(ADMIN),
        lambda r, w: w.at(r).merge("dev", "release"),
        post(there("/merges"), lambda w: {"ref": "dev", "branch": "release"}),
        cli("merge", DATASET, "dev", "--into", "release"),
        changes=True,
    ),
    Operation(
        "cherry-pick",
        On(WRITE),
        lambda r, w: w.at(r).cherry_pick("v3", "spare"),
        post(there("/merges"), lambda w: {"ref": "v3", "branch": "spare", "how": "cherry-pick"}),
        cli("cherry-pick", DATASET, "v3", "--into", "spare"),
        changes=True,
    ),
    Operation(
        "revert",
        On(WRITE),
        lambda r, w: w.at(r).revert("v2"),
        post(there("/merges"), lambda w: {"ref": "v2", "how": "revert"}),
        cli("revert", DATASET, "v2"),
        changes=True,
    ),
    Operation(
        "append rows",
        On(WRITE),
        lambda r, w: w.at(r).append(pa.table({"id": [3]}), "table"),
        None,
        cli("append", DATASET, "{rows}", "--component", "table"),
        changes=True,
    ),
    Operation(
        "upsert rows",
        On(WRITE),
        lambda r, w: w.at(r).upsert(pa.table({"id": [3]}), "fresh", key="id"),
        None,
        cli("upsert", DATASET, "{rows}", "--component", "fresh", "--key", "id"),
        changes=True,
    ),
    Operation(
        "delete rows",
        On(WRITE),
        lambda r, w: w.at(r).delete_rows(where="id = 1", component="table"),
        post(
            there("/versions"),
            lambda w: {"components": [{"component_name": "table", "rows": "delete", "where": "id = 1"}]},
        ),
        cli("delete-rows", DATASET, "--where", "id = 1", "--component", "table"),
        changes=True,
    ),
    Operation(
        "plan a publication",
        On(READ),
        lambda r, w: r.plan_publish("dev", datasets=[DATASET]),
        post(at("publications/plan"), lambda w: {"branch": "dev", "datasets": [DATASET]}),
        cli("publish", "dev", "--dataset", DATASET, "--dry-run"),
    ),
    Operation(
        "publish",
        On(WRITE),
        lambda r, w: r.publish("dev", datasets=[DATASET]),
        post(at("publications"), lambda w: {"branch": "dev", "datasets": [DATASET]}),
        cli("publish", "dev", "--dataset", DATASET),
        changes=True,
    ),
    Operation(
        "create a review",
        On(WRITE),
        lambda r, w: r.create_review("left", title="More rows"),
        post(at("reviews"), lambda w: {"branch": "left", "title": "More rows"}),
        cli("review", "create", "left", "--title", "More rows"),
        changes=True,
    ),
    Operation(
        "list reviews",
        Anybody(),
        lambda r, w: r.reviews(),
        get(at("reviews")),
        cli("review", "list"),
        shows=lambda w: "Other data",
    ),
    Operation(
        "look at a review",
        On(READ),
        lambda r, w: r.review(1),
        get(at("reviews/1")),
        cli("review", "show", "1"),
    ),
    Operation(
        "comment a review",
        Comment(READ),
        lambda r, w: r.comment_review(1, "Why?"),
        post(at("reviews/1/events"), lambda w: {"kind": "comment", "comment": "Why?"}),
        cli("review", "comment", "1", "Why?"),
        changes=True,
    ),
    Operation(
        "approve a review",
        On(WRITE),
        lambda r, w: r.approve_review(1),
        post(at("reviews/1/events"), lambda w: {"kind": "approve"}),
        cli("review", "approve", "1"),
        changes=True,
    ),
    Operation(
        "reject a review",
        On(WRITE),
        lambda r, w: r.reject_review(1),
        post(at("reviews/1/events"), lambda w: {"kind": "reject"}),
        cli("review", "reject", "1"),
        changes=True,
    ),
    Operation(
        "close a review",
        On(WRITE),
        lambda r, w: r.close_review(1),
        post(at("reviews/1/close")),
        cli("review", "close", "1"),
        changes=True,
    ),
    Operation(
        "merge a review",
        On(WRITE),
        lambda r, w: r.merge_review(1),
        post(at("reviews/1/merge"), lambda w: {}),
        cli("review", "merge", "1"),
        changes=True,
    ),
    Operation(
        "look at a run",
        On(READ),
        lambda r, w: r.run("run-2"),
        get(at("runs"), run_id="run-2"),
        cli("run", "run-2"),
    ),
    Operation(
        "plan to revert a run",
        On(READ),
        lambda r, w: r.plan_revert_run("run-2"),
        post(at("runs/revert/plan"), lambda w: {"run_id": "run-2"}),
        cli("revert-run", "run-2", "--dry-run"),
    ),
    Operation(
        "revert a run",
        On(WRITE),
        lambda r, w: r.revert_run("run-2", force=True),
        post(at("runs/revert"), lambda w: {"run_id": "run-2", "force": True}),
        cli("revert-run", "run-2", "--force"),
        changes=True,
    ),
    Operation(
        "check that heads belong together",
        On(READ),
        lambda r, w: r.consistent("dev"),
        get(at("consistency"), branch="dev"),
        cli("consistent", "dev"),
    ),
    Operation(
        "look at checks",
        On(READ),
        lambda r, w: (w.v(r).checks, w.v(r).taints),
        get(that("/checks")),
        cli("checks", f"{DATASET}@v2"),
    ),
    Operation("look at taints", On(READ), lambda r, w: w.v(r).taints, get(that("/taints"))),
    Operation(
        "record a check",
        On(WRITE),
        lambda r, w: w.v(r).record_check("rows", False, blocking=True),
        post(that("/checks"), lambda w: {"name": "rows", "passed": False, "blocking": True}),
        cli("check", f"{DATASET}@v2", "rows", "--failed", "--blocking"),
        changes=True,
    ),
    Operation(
        "absolve",
        On(ADMIN),
        lambda r, w: w.at(r).absolve("right", "it is fine"),
        post(lambda w: f"datasets/{w.id}/versions/{w.tainted}/absolve", lambda w: {"because": "it is fine"}),
        cli("absolve", f"{DATASET}@right", "--because", "it is fine"),
        changes=True,
    ),
    Operation(
        "record how a run ended",
        On(WRITE),
        lambda r, w: r.finish_run("run-2", succeeded=True),
        post(at("runs/finish"), lambda w: {"run_id": "run-2", "succeeded": True}),
        cli("finish-run", "run-2", "--succeeded"),
        changes=True,
    ),
    Operation("facts of a version", On(READ), _facts, None, cli("show", f"{DATASET}@v2")),
    Operation("schema", On(READ), None, get(lambda w: f"datasets/{w.id}/schema/{w.ids[2]}"), cli("schema", DATASET)),
    Operation("digests of columns", On(READ), lambda r, w: w.v(r).column_digests("data")),
    Operation("parts of a table", On(READ), lambda r, w: w.v(r).table_parts("data")),
    Operation("files of a version", On(READ), lambda r, w: w.v(r).files()),
    Operation("components", On(READ), lambda r, w: w.v(r).components, get(that("/components"))),
    Operation("read a table in every way", On(READ), _read_everything, get(that("/data-files"))),
    Operation(
        "download",
        On(READ),
        _bytes,
        get(that("/content", 1), component="data"),
        cli("get", DATASET, "data", "--to", "-"),
    ),
    Operation("check out", On(READ), _checkout, None, _checkout_command),
    Operation("export as a Delta table", On(READ), None, None, _export_delta_command),
    Operation("export readable datasets to DuckLake", Anybody(), None, None, _export_ducklake_command),
    Operation("lineage", On(READ), None, None, cli("lineage", DATASET)),
    Operation(
        "productions",
        On(READ),
        lambda r, w: (w.v(r).productions, w.v(r).provenance, w.v(r).column_lineage),
        get(that("/productions")),
    ),
    Operation(
        "productions by their memo digest",
        On(READ),
        lambda r, w: r.dataset(DATASET).memoized("0" * 64),
        get(lambda w: f"datasets/{w.id}/productions", memo_digest="0" * 64),
    ),
    Operation(
        "consumers",
        On(READ),
        lambda r, w: w.v(r).consumers,
        get(that("/consumers")),
        cli("version", "consumers", f"{DATASET}@v2"),
    ),
    Operation(
        "note that a run reads",
        On(READ),
        lambda r, w: w.v(r).note_read("run-7"),
        post(that("/reads"), lambda w: {"run_id": "run-7"}),
        changes=True,
    ),
    Operation(
        "delete a version",
        On(ADMIN),
        lambda r, w: w.at(r).delete_version("v5"),
        put("DELETE", that(number=5)),
        cli("version", "delete", f"{DATASET}@v5", "--yes"),
        changes=True,
    ),
    Operation("copy", On(READ), _copy, None, cli("copy", "--create", "--to", "{copy}", "--dataset", DATASET)),
    # --- branches and tags ---
    Operation(
        "list branches",
        On(READ),
        lambda r, w: w.at(r).branches(),
        get(there("/branches")),
        cli("branch", "list", DATASET),
    ),
    Operation("list tags", On(READ), lambda r, w: w.at(r).tags(), get(there("/tags")), cli("tag", "list", DATASET)),
    Operation("list branches and tags", On(READ), None, get(there("/pointers"))),
    Operation("find a branch", On(READ), lambda r, w: w.at(r).branch("main"), get(there("/branches/main"))),
    Operation(
        "create a branch",
        On(WRITE),
        lambda r, w: w.at(r).create_branch("new", "v1"),
        post(there("/branches"), lambda w: {"pointer_name": "new", "ref": "v1"}),
        cli("branch", "create", DATASET, "new", "v1"),
        changes=True,
    ),
    Operation(
        "create a branch that a prefix protects",
        On(ADMIN),
        lambda r, w: w.at(r).create_branch("frozen", "v1"),
        post(there("/branches"), lambda w: {"pointer_name": "frozen", "ref": "v1"}),
        cli("branch", "create", DATASET, "frozen", "v1"),
        changes=True,
    ),
    Operation(
        "move a branch",
        On(WRITE),
        lambda r, w: w.at(r).move_branch("spare", "v2"),
        put("PATCH", there("/branches/spare"), json={"ref": "v2"}),
        cli("branch", "move", DATASET, "spare", "v2"),
        changes=True,
    ),
    Operation(
        "move a protected branch",
        On(ADMIN),
        lambda r, w: w.at(r).move_branch("release", "v1"),
        put("PATCH", there("/branches/release"), json={"ref": "v1"}),
        cli("branch", "move", DATASET, "release", "v1"),
        changes=True,
    ),
    Operation(
        "delete a branch",
        On(WRITE),
        lambda r, w: w.at(r).delete_branch("spare"),
        put("DELETE", there("/branches/spare")),
        cli("branch", "delete", DATASET, "spare", "--yes"),
        changes=True,
    ),
    Operation(
        "delete a protected branch",
        On(ADMIN),
        lambda r, w: w.at(r).delete_branch("release"),
        put("DELETE", there("/branches/release")),
        cli("branch", "delete", DATASET, "release", "--yes"),
        changes=True,
    ),
    Operation(
        "create a tag",
        On(WRITE),
        lambda r, w: w.at(r).create_tag("new-tag", "v1"),
        post(there("/tags"), lambda w: {"pointer_name": "new-tag", "ref": "v1"}),
        cli("tag", "create", DATASET, "new-tag", "v1"),
        changes=True,
    ),
    Operation(
        "delete a tag",
        On(WRITE),
        lambda r, w: w.at(r).delete_tag("spare-tag"),
        put("DELETE", there("/tags/spare-tag")),
        cli("tag", "delete", DATASET, "spare-tag", "--yes"),
        changes=True,
    ),
    Operation(
        "list registry-wide branches",
        Administrator(),
        lambda r, w: r.branches(),
        get(at("branches")),
        cli("registry-branch", "list"),
    ),
    Operation(
        "create a registry-wide branch",
        Administrator(),
        lambda r, w: r.create_branch("pr-2"),
        post(at("branches"), lambda w: {"name": "pr-2"}),
        cli("registry-branch", "create", "pr-2"),
        changes=True,
    ),
    Operation(
        "delete a registry-wide branch",
        Administrator(),
        lambda r, w: r.delete_branch("pr-1"),
        put("DELETE", at("branches/pr-1")),
        cli("registry-branch", "delete", "pr-1", "--yes"),
        changes=True,
    ),
    # --- files ---
    Operation(
        "list files",
        Anybody(),
        lambda r, w: [f.content_hash for f in r.files()],
        get(at("files")),
        cli("file", "list", "--json"),
        shows=_hash,
    ),
    Operation(
        "find a file by its hash",
        OnFile(READ),
        lambda r, w: r.file(w.hash[:12]),
        get(at("files"), content_hash=_hash),
        cli("file", "show", "{hash}"),
    ),
    Operation("find a file by its id", OnFile(READ), None, get(lambda w: f"files/{w.file.id}")),
    Operation("objects of a file", OnFile(READ), None, get(lambda w: f"files/{w.file.id}/data-files")),
    Operation(
        "download a file",
        OnFile(READ),
        _file_bytes,
        get(lambda w: f"files/{w.file.id}/content"),
        cli("file", "get", "{hash}"),
    ),
    Operation(
        "ask what is stored", Anybody(), None, post(at("contents/known"), lambda w: {"hashes": [w.hash]}), shows=_hash
    ),
    Operation("begin an upload", Writer(), None, post(at("uploads"), lambda w: {"file_size": 5})),
    Operation("look at one's own upload", OwnUpload(), None, get(lambda w: f"uploads/{w.own_upload}")),
    Operation("look at another's upload", Nobody(), None, get(lambda w: f"uploads/{w.foreign_upload}")),
    Operation(
        "append to another's upload",
        Nobody(),
        None,
        put("PATCH", lambda w: f"uploads/{w.foreign_upload}", content=b"x", headers={"Upload-Offset": "0"}),
    ),
    Operation("delete another's upload", Nobody(), None, put("DELETE", lambda w: f"uploads/{w.foreign_upload}")),
    # --- users and tokens ---
    Operation("who am I", Open(), lambda r, w: r.actor, get(at("whoami")), cli("whoami")),
    Operation("list users", Administrator(), lambda r, w: r.users(), get(at("users")), cli("user", "list")),
    Operation(
        "create a user",
        Administrator(),
        lambda r, w: r.create_user("eve", role="administrator"),
        post(at("users"), lambda w: {"name": "eve", "role": "administrator"}),
        cli("user", "create", "eve", "--role", "administrator"),
        changes=True,
    ),
    Operation(
        "create a group",
        Administrator(),
        lambda r, w: r.create_user("crew-2", kind="group", members=["somebody"]),
        post(at("users"), lambda w: {"name": "crew-2", "kind": "group", "members": ["somebody"]}),
        cli("user", "create", "crew-2", "--kind", "group", "--member", "somebody"),
        changes=True,
    ),
    Operation(
        "change a user",
        Administrator(),
        lambda r, w: r.update_user("somebody", role="administrator"),
        put("PATCH", at("users/somebody"), json={"role": "administrator"}),
        cli("user", "update", "somebody", "--role", "administrator"),
        changes=True,
    ),
    Operation(
        "let a disabled user in",
        Administrator(),
        lambda r, w: r.update_user("disabled", disabled=False),
        put("PATCH", at("users/disabled"), json={"disabled": False}),
        cli("user", "update", "disabled", "--enable"),
        changes=True,
    ),
    Operation(
        "change who is in a group",
        Administrator(),
        lambda r, w: r.update_user("keepers", members=["somebody"]),
        put("PATCH", at("users/keepers"), json={"members": ["somebody"]}),
        cli("user", "update", "keepers", "--member", "somebody"),
        changes=True,
    ),
    Operation("list tokens", Anybody(), lambda r, w: r.tokens(), get(at("tokens")), cli("token", "list")),
    Operation(
        "list another's tokens",
        Administrator(),
        lambda r, w: r.tokens("somebody"),
        get(at("tokens"), user="somebody"),
        cli("token", "list", "somebody"),
    ),
    Operation(
        "make a token that reads",
        OwnToken(READ),
        lambda r, w: r.create_token(permission="read"),
        _token({"permission": "read"}),
        cli("token", "create", "--permission", "read"),
        changes=True,
    ),
    Operation(
        "make a token that reads under a prefix",
        OwnToken(READ, PREFIX),
        lambda r, w: r.create_token(permission="read", prefix=PREFIX),
        _token({"permission": "read", "prefix": PREFIX}),
        cli("token", "create", "--permission", "read", "--prefix", PREFIX),
        changes=True,
    ),
    Operation(
        "make a token for everything",
        OwnToken(ADMIN),
        lambda r, w: r.create_token(),
        _token({}),
        cli("token", "create"),
        changes=True,
    ),
    Operation(
        "make a token for another",
        Administrator(),
        lambda r, w: r.create_token("somebody", permission="read"),
        _token({"user": "somebody", "permission": "read"}),
        cli("token", "create", "somebody", "--permission", "read"),
        changes=True,
    ),
    Operation(
        "revoke one's own token",
        Revoke(),
        lambda r, w: r.revoke_token(w.own_token),
        put("DELETE", lambda w: f"tokens/{w.own_token}"),
        cli("token", "revoke", "{own}"),
        changes=True,
    ),
    Operation(
        "revoke another's token",
        Others(),
        lambda r, w: r.revoke_token(w.foreign_token),
        put("DELETE", lambda w: f"tokens/{w.foreign_token}"),
        cli("token", "revoke", "{other}"),
        changes=True,
    ),
    # --- grants and protections ---
    Operation("list one's own grants", Anybody(), lambda r, w: r.grants(), get(at("grants")), cli("grant", "list")),
    Operation(
        "list another's grants",
        Administrator(),
        lambda r, w: r.grants(user="somebody"),
        get(at("grants"), user="somebody"),
        cli("grant", "list", "--user", "somebody"),
    ),
    Operation(
        "list grants on a dataset",
        On(ADMIN),
        lambda r, w: r.grants(DATASET),
        get(at("grants"), name=DATASET),
        cli("grant", "list", DATASET),
    ),
    Operation(
        "list grants on a prefix",
        OnPrefix(),
        lambda r, w: r.grants(PREFIX),
        get(at("grants"), name=PREFIX),
        cli("grant", "list", PREFIX),
    ),
    Operation(
        "list grants on a file",
        OnFile(ADMIN),
        lambda r, w: r.grants(file=w.hash),
        get(at("grants"), file=_hash),
        cli("grant", "list", "--file", "{hash}"),
    ),
    Operation(
        "grant on a dataset",
        On(ADMIN),
        lambda r, w: r.grant("somebody", "admin", DATASET),
        post(at("grants"), lambda w: {"user": "somebody", "permission": "admin", "name": DATASET}),
        cli("grant", "add", "somebody", "admin", DATASET),
        changes=True,
    ),
    Operation(
        "grant on a prefix",
        OnPrefix(),
        lambda r, w: r.grant("somebody", "admin", PREFIX),
        post(at("grants"), lambda w: {"user": "somebody", "permission": "admin", "name": PREFIX}),
        cli("grant", "add", "somebody", "admin", PREFIX),
        changes=True,
    ),
    Operation(
        "grant on everything",
        Administrator(),
        lambda r, w: r.grant("somebody", "admin", ""),
        post(at("grants"), lambda w: {"user": "somebody", "permission": "admin", "name": ""}),
        cli("grant", "add", "somebody", "admin", "/"),
        changes=True,
    ),
    Operation(
        "grant on a file",
        OnFile(ADMIN),
        lambda r, w: r.grant("somebody", "admin", file=w.hash),
        post(at("grants"), lambda w: {"user": "somebody", "permission": "admin", "file": w.hash}),
        cli("grant", "add", "somebody", "admin", "--file", "{hash}"),
        changes=True,
    ),
    Operation(
        "revoke on a dataset",
        On(ADMIN),
        lambda r, w: r.revoke("somebody", DATASET),
        put("DELETE", at("grants"), params={"user": "somebody", "name": DATASET}),
        cli("grant", "revoke", "somebody", DATASET),
        changes=True,
    ),
    Operation(
        "revoke on a prefix",
        OnPrefix(),
        lambda r, w: r.revoke("somebody", PREFIX),
        put("DELETE", at("grants"), params={"user": "somebody", "name": PREFIX}),
        cli("grant", "revoke", "somebody", PREFIX),
        changes=True,
    ),
    Operation(
        "revoke on a file",
        OnFile(ADMIN),
        lambda r, w: r.revoke("somebody", file=w.hash),
        put("DELETE", at("grants"), params=lambda w: {"user": "somebody", "file": w.hash}),
        cli("grant", "revoke", "somebody", "--file", "{hash}"),
        changes=True,
    ),
    Operation(
        "list protected branches of a dataset",
        On(READ),
        lambda r, w: r.protections(DATASET),
        get(at("protections"), name=DATASET),
        cli("protect", "list", DATASET),
    ),
    Operation(
        "list all protected branches",
        Administrator(),
        lambda r, w: r.protections(),
        get(at("protections")),
        cli("protect", "list"),
    ),
    Operation(
        "protect a branch",
        On(ADMIN),
        lambda r, w: r.protect(DATASET, allow=["somebody"]),
        post(at("protections"), lambda w: {"name": DATASET, "allow": ["somebody"]}),
        cli("protect", "add", DATASET, "main", "--allow", "somebody"),
        changes=True,
    ),
    Operation(
        "protect a branch under a prefix",
        OnPrefix(),
        lambda r, w: r.protect(PREFIX),
        post(at("protections"), lambda w: {"name": PREFIX}),
        cli("protect", "add", PREFIX),
        changes=True,
    ),
    Operation(
        "protect a branch no more",
        On(ADMIN),
        lambda r, w: r.unprotect(DATASET, "release"),
        put("DELETE", at("protections"), params={"name": DATASET, "branch": "release"}),
        cli("protect", "remove", DATASET, "release"),
        changes=True,
    ),
    Operation(
        "protect a branch under a prefix no more",
        OnPrefix(),
        lambda r, w: r.unprotect(PREFIX, "frozen"),
        put("DELETE", at("protections"), params={"name": PREFIX, "branch": "frozen"}),
        cli("protect", "remove", PREFIX, "frozen"),
        changes=True,
    ),
    # --- the audit log ---
    Operation("audit", Administrator(), lambda r, w: r.audit(), get(at("audit")), cli("audit", "list")),
    Operation(
        "audit a dataset",
        Audited(),
        lambda r, w: r.audit(dataset=DATASET),
        get(at("audit"), dataset=DATASET),
        cli("audit", "list", "--dataset", DATASET),
    ),
    Operation(
        "check the audit log",
        Administrator(),
        lambda r, w: r.check_audit(),
        get(at("audit/check")),
        cli("audit", "check"),
    ),
    Operation(
        "export the audit log",
        Administrator(),
        lambda r, w: list(r.export_audit()),
        get(at("audit/export")),
        cli("audit", "export"),
    ),
    Operation(
        "seal the audit log",
        Administrator(),
        lambda r, w: r.seal_audit(),
        post(at("audit/seal")),
        cli("audit", "seal"),
        changes=True,
    ),
    # --- maintenance -----
    Operation(
        "plan an expiry",
        Administrator(),
        lambda r, w: r.expire(POLICY, dry_run=True),
        post(at("expire/plan"), lambda w: {"rules": [{"last": 1}]}),
        cli("expire", "--keep-last", "1", "--dry-run"),
    ),
    Operation(
        "apply an expiry",
        Administrator(),
        lambda r, w: r.apply(w.expiry, live_runs=()),
        post(
            at("expire/apply"),
            lambda w: {"plan": ExpirePlanResponse.of(w.expiry).model_dump(mode="json"), "live_runs": []},
        ),
        cli("expire", "--keep-last", "1", "--datasets", "raw/*", "--yes"),
        changes=True,
    ),
    Operation(
        "plan a collection",
        Administrator(),
        lambda r, w: r.collect(dry_run=True),
        post(at("collect/plan"), lambda w: {}),
        cli("collect", "--dry-run"),
    ),
    Operation(
        "apply a collection",
        Administrator(),
        lambda r, w: r.apply(w.collection),
        post(at("collect/apply"), lambda w: CollectPlanResponse.of(w.collection).model_dump(mode="json")),
        cli("collect", "--yes"),
        changes=True,
    ),
    Operation(
        "plan a sweep",
        Administrator(),
        lambda r, w: r.sweep(dry_run=True),
        post(at("sweep/plan"), lambda w: {}),
        cli("collect", "--sweep", "--dry-run"),
    ),
    Operation(
        "apply a sweep",
        Administrator(),
        lambda r, w: r.apply(w.sweep),
        post(at("sweep/apply"), lambda w: SweepPlanResponse.of(w.sweep).model_dump(mode="json")),
        cli("collect", "--sweep", "--max-share", "1", "--older-than", "30d", "--yes"),
        changes=True,
    ),
    Operation("sweep", Administrator(), lambda r, w: r.sweep(older_than=_MONTH, max_share=1.0)),
    Operation("expire", Administrator(), lambda r, w: r.expire(POLICY, live_runs=()), changes=True),
    Operation("collect", Administrator(), lambda r, w: r.collect(), changes=True),
    Operation("verify", Administrator(), lambda r, w: r.verify(), post(at("verify"), lambda w: {}), cli("verify")),
    Operation(
        "verify and repair",
        Administrator(),
        lambda r, w: r.verify(repair=True),
        post(at("verify"), lambda w: {"repair": True}),
        cli("verify", "--repair"),
        changes=True,
    ),
    Operation("see whether it is frozen", Anybody(), lambda r, w: r.frozen),
    Operation(
        "freeze",
        Administrator(),
        lambda r, w: r.freeze("an incident"),
        post(at("freeze"), lambda w: {"reason": "an incident"}),
        cli("freeze", "--reason", "an incident"),
        changes=True,
    ),
    Operation(
        "unfreeze",
        Administrator(),
        lambda r, w: r.unfreeze(),
        put("DELETE", lambda w: "freeze"),
        cli("unfreeze"),
    ),
    Operation(
        "plan an adoption",
        Administrator(),
        lambda r, w: r.adopt(dry_run=True),
        post(at("adopt/plan")),
        cli("adopt", "--dry-run"),
    ),
    Operation("adopt", Administrator(), lambda r, w: r.adopt(), post(at("adopt/apply")), cli("adopt")),
)
