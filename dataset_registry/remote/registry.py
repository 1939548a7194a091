"""The registry of a server."""

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from math import ceil
from typing import Any, BinaryIO

from dataset_registry.dataset import Dataset
from dataset_registry.errors import InputError
from dataset_registry.model.actors import Grant, Kind, NewToken, Permission, Protection, Token, User
from dataset_registry.model.audit import AuditCheck, AuditEntry
from dataset_registry.model.checks import Taint
from dataset_registry.model.maintenance import (
    GRACE,
    Adoption,
    AdoptionPlan,
    Collected,
    CollectPlan,
    Copied,
    Expired,
    ExpirePlan,
    SweepPlan,
)
from dataset_registry.model.merge_plans import MergeOptions
from dataset_registry.model.names import MAIN, dataset_name, several, single_line, split_address
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.publishing import Consistency, PublishPlan, RevertPlan, Run
from dataset_registry.model.records import FileRecord, Freeze, NewDataset, RegistryBranch
from dataset_registry.model.retention import Policy, Rule
from dataset_registry.model.reviews import EventKind, Review, ReviewDetails, ReviewState
from dataset_registry.model.verification import Finding, Verification
from dataset_registry.registry import Registry
from dataset_registry.remote.client import Client, segment
from dataset_registry.remote.contents import ServedContents
from dataset_registry.remote.dataset import RemoteDataset, RemoteDraft, RemoteVersion
from dataset_registry.version import Version
from dataset_registry.wire.base import CountResponse
from dataset_registry.wire.checks import TaintsResponse
from dataset_registry.wire.datasets import DatasetResponse, RegistryBranchResponse
from dataset_registry.wire.files import DataFilesResponse, FileResponse
from dataset_registry.wire.maintenance import (
    AdoptionPlanResponse,
    AdoptionResponse,
    AuditCheckResponse,
    AuditResponse,
    CollectedResponse,
    CollectPlanResponse,
    ExpireApplyRequest,
    ExpiredResponse,
    ExpirePlanResponse,
    SweepPlanResponse,
    VerificationResponse,
)
from dataset_registry.wire.merges import (
    ConsistencyResponse,
    HeadsResponse,
    PublishPlanResponse,
    PublishRequest,
    RevertPlanResponse,
    RevertRunRequest,
    RunResponse,
    StrategyRequest,
)
from dataset_registry.wire.reviews import MergeReviewRequest, ReviewDetailsResponse, ReviewResponse
from dataset_registry.wire.users import (
    FreezeResponse,
    GrantResponse,
    NewTokenResponse,
    ProtectionResponse,
    TokenResponse,
    UserResponse,
    WhoResponse,
)


def open_remote(url: str, token: str | None) -> Registry:
    """The registry of the server at a URL, as the user of a token sees it. Raises `NotAuthenticated`, `RetryLater`."""
    client = Client(url, token)
    try:
        who = client.get("whoami", WhoResponse)
    except BaseException:
        client.close()
        raise
    return RemoteRegistry(client, who.user)


def _strategies(options: MergeOptions) -> list[StrategyRequest]:
    return [StrategyRequest.of(strategy) for strategy in options.strategies]


def _publication(
    branch: str,
    into: str,
    names: Sequence[str] | None,
    options: MergeOptions,
    *,
    allow_moved_inputs: bool = False,
) -> PublishRequest:
    return PublishRequest(
        branch=branch,
        into=into,
        datasets=None if names is None else list(names),
        strategies=_strategies(options),
        allow_moved_inputs=allow_moved_inputs,
        message=options.message,
    )


class RemoteRegistry(Registry):
    """A registry on a server: every method is a request, with the results and errors of an embedded registry."""

    def __init__(self, client: Client, user: str) -> None:
        self._client = client
        self._user = user
        self._contents = ServedContents(client)

    @property
    def actor(self) -> str:
        return self._user

    @property
    def is_owner(self) -> bool:
        return False

    @property
    def location(self) -> str:
        return self._client.url

    def freeze(self, reason: str) -> Freeze:
        return self._client.post("freeze", FreezeResponse, {"reason": reason}).value()

    def unfreeze(self) -> None:
        self._client.delete("freeze", CountResponse)

    @property
    def frozen(self) -> Freeze | None:
        found = self._client.get("whoami", WhoResponse).frozen
        return found.value() if found is not None else None

    def close(self) -> None:
        self._client.close()
        self._contents.copies.close()

    def _dataset(self, shape: DatasetResponse) -> RemoteDataset:
        return RemoteDataset(self._client, self._contents, shape.value())

    # --- datasets --------------------------------------------------------------------------------------------------

    def create_dataset(self, name: str, *, description: str | None = None) -> Dataset:
        return self._dataset(
            self._client.post("datasets", DatasetResponse, {"name": dataset_name(name), "description": description})
        )

    def at(self, address: str) -> tuple[Dataset, str | None]:
        name, ref = split_address(address)
        return self.dataset(name), ref

    def dataset(self, name: str | int) -> Dataset:
        if isinstance(name, int):
            return self._dataset(self._client.get(f"datasets/{name}", DatasetResponse))
        (found,) = self._client.listed("datasets", DatasetResponse, name=name)
        return self._dataset(found)

    def datasets(self, *, prefix: str = "") -> list[Dataset]:
        return [self._dataset(shape) for shape in self._client.pages("datasets", DatasetResponse, prefix=prefix)]

    def draft(self, name: str, branch: str = MAIN, *, description: str | None = None, **options: Any) -> RemoteDraft:
        wanted = NewDataset(dataset_name(name), description)
        return RemoteDraft(self._client, self._contents, wanted, branch, **options)

    # --- files -----------------------------------------------------------------------------------------------------

    def file(self, content_hash: str) -> FileRecord:
        (found,) = self._client.listed("files", FileResponse, content_hash=content_hash)
        return found.value()

    def files(self) -> Iterator[FileRecord]:
        return (shape.value() for shape in self._client.pages("files", FileResponse))

    def open_file(self, content_hash: str) -> BinaryIO:
        found = self._client.get(f"files/{self.file(content_hash).id}/data-files", DataFilesResponse).data_files
        if len(found) != 1:
            raise InputError(f"{content_hash!r} is a table in {len(found)} Parquet files: read each by its own hash.")
        return self._contents.open(None, found[0].value())

    # --- who may what ----------------------------------------------------------------------------------------------

    def create_user(
        self, name: str, *, role: str = "member", kind: Kind = "person", members: str | Sequence[str] = ()
    ) -> User:
        body = {"name": name, "role": role, "kind": kind, "members": list(several(members))}
        return self._client.post("users", UserResponse, body).value()

    def update_user(
        self,
        name: str,
        *,
        role: str | None = None,
        disabled: bool | None = None,
        members: str | Sequence[str] | None = None,
    ) -> User:
        body = {"role": role, "disabled": disabled, "members": None if members is None else list(several(members))}
        return self._client.patch(f"users/{segment(name)}", UserResponse, body).value()

    def users(self) -> list[User]:
        return [shape.value() for shape in self._client.listed("users", UserResponse)]

    def create_token(
        self,
        user: str | None = None,
        *,
        name: str = "token",
        permission: Permission = "admin",
        prefix: str = "",
        lasts: timedelta | None = None,
    ) -> NewToken:
        body = {
            "user": user,
            "name": name,
            "permission": permission,
            "prefix": prefix,
            "lasts_seconds": int(lasts.total_seconds()) if lasts is not None else None,
        }
        return self._client.post("tokens", NewTokenResponse, body).value()

    def tokens(self, user: str | None = None) -> list[Token]:
        return [shape.value() for shape in self._client.listed("tokens", TokenResponse, user=user)]

    def revoke_token(self, token_id: int) -> Token:
        return self._client.delete(f"tokens/{token_id}", TokenResponse).value()

    def grant(self, user: str, permission: Permission, name: str | None = None, *, file: str | None = None) -> Grant:
        body = {"user": user, "permission": permission, "name": name, "file": file}
        return self._client.post("grants", GrantResponse, body).value()

    def revoke(self, user: str, name: str | None = None, *, file: str | None = None) -> None:
        self._client.delete("grants", CountResponse, user=user, name=name, file=file)

    def grants(self, name: str | None = None, *, file: str | None = None, user: str | None = None) -> list[Grant]:
        found = self._client.listed("grants", GrantResponse, name=name, file=file, user=user)
        return [shape.value() for shape in found]

    def protect(
        self,
        name: str,
        branch: str = MAIN,
        *,
        allow: str | Sequence[str] = (),
        approvals: int = 0,
        checks: bool = False,
    ) -> Protection:
        body: dict[str, Any] = {"name": name, "branch": branch, "allow": list(several(allow))}
        body |= {"approvals": approvals, "checks": checks}
        return self._client.post("protections", ProtectionResponse, body).value()

    def unprotect(self, name: str, branch: str = MAIN) -> None:
        self._client.delete("protections", CountResponse, name=name, branch=branch)

    def protections(self, name: str | None = None) -> list[Protection]:
        return [shape.value() for shape in self._client.listed("protections", ProtectionResponse, name=name)]

    # --- who did what ----------------------------------------------------------------------------------------------

    def audit(
        self,
        *,
        dataset: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[AuditEntry]:
        if limit is not None and limit < 0:
            raise InputError(f"A limit is 0 or more, not {limit}.", limit=limit)
        asked = {"dataset": dataset, "actor": actor, "action": action, "before": before}
        return [shape.entry() for shape in self._client.pages("audit", AuditResponse, limit=limit, **asked)]

    def export_audit(self) -> Iterator[tuple[AuditEntry, str]]:
        for line in self._client.lines("audit/export"):
            shape = AuditResponse.model_validate(json.loads(line))
            yield shape.entry(), shape.entry_hash

    def seal_audit(self) -> int:
        return self._client.post("audit/seal", CountResponse, {}).count

    def check_audit(self) -> AuditCheck:
        found = self._client.get("audit/check", AuditCheckResponse)
        return AuditCheck(found.entries, found.sealed, found.digest, tuple(found.problems))

    # --- branches over all datasets --------------------------------------------------------------------------------

    def create_branch(self, name: str, source: str = MAIN) -> int:
        return self._client.post("branches", CountResponse, {"name": name, "source": source}).count

    def delete_branch(self, name: str) -> int:
        return self._client.delete(f"branches/{segment(name)}", CountResponse).count

    def branches(self) -> list[RegistryBranch]:
        return [shape.value() for shape in self._client.listed("branches", RegistryBranchResponse)]

    # --- publishing ------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> Run:
        return self._client.get("runs", RunResponse, run_id=single_line(run_id, "run")).value()

    def finish_run(self, run_id: str, *, succeeded: bool) -> list[Taint]:
        body = {"run_id": single_line(run_id, "run"), "succeeded": succeeded}
        return [shape.value() for shape in self._client.post("runs/finish", TaintsResponse, body).taints]

    def consistent(self, branch: str = MAIN) -> Consistency:
        return self._client.get("consistency", ConsistencyResponse, branch=branch).value()

    def _plan_publish(self, branch: str, into: str, names: Sequence[str] | None, options: MergeOptions) -> PublishPlan:
        body = _publication(branch, into, names, options)
        path = "publications/plan"
        return self._client.post(path, PublishPlanResponse, body, patience=None, once=False).value()

    def _publish(
        self, branch: str, into: str, names: Sequence[str] | None, options: MergeOptions, *, allow_moved_inputs: bool
    ) -> list[Version]:
        body = _publication(branch, into, names, options, allow_moved_inputs=allow_moved_inputs)
        return self._heads(self._client.post("publications", HeadsResponse, body, patience=None))

    def _plan_revert_run(self, run_id: str, branch: str, options: MergeOptions) -> RevertPlan:
        body = RevertRunRequest(run_id=single_line(run_id, "run"), branch=branch, strategies=_strategies(options))
        return self._client.post("runs/revert/plan", RevertPlanResponse, body, patience=None, once=False).value()

    def _revert_run(self, run_id: str, branch: str, options: MergeOptions, *, force: bool) -> list[Version]:
        body = RevertRunRequest(
            run_id=run_id, branch=branch, strategies=_strategies(options), force=force, message=options.message
        )
        return self._heads(self._client.post("runs/revert", HeadsResponse, body, patience=None))

    # --- reviews ---------------------------------------------------------------------------------------------------

    def create_review(self, branch: str, into: str = MAIN, *, title: str, description: str | None = None) -> Review:
        body = {"branch": branch, "into": into, "title": title, "description": description}
        return self._client.post("reviews", ReviewResponse, body).value()

    def reviews(self, *, state: ReviewState | None = None, branch: str | None = None) -> list[Review]:
        return [shape.value() for shape in self._client.listed("reviews", ReviewResponse, state=state, branch=branch)]

    def review(self, review_id: int) -> ReviewDetails:
        return self._client.get(f"reviews/{int(review_id)}", ReviewDetailsResponse).value()

    def _review_event(self, review_id: int, kind: EventKind, comment: str | None, seen: str | None) -> ReviewDetails:
        body = {"kind": kind, "comment": comment, "seen": seen}
        return self._client.post(f"reviews/{int(review_id)}/events", ReviewDetailsResponse, body).value()

    def close_review(self, review_id: int) -> Review:
        return self._client.post(f"reviews/{int(review_id)}/close", ReviewResponse, {}).value()

    def _merge_review(
        self, review_id: int, options: MergeOptions, *, allow_moved_inputs: bool, seen: str | None
    ) -> list[Version]:
        body = MergeReviewRequest(
            strategies=_strategies(options),
            allow_moved_inputs=allow_moved_inputs,
            message=options.message,
            seen=seen,
        )
        path = f"reviews/{int(review_id)}/merge"
        return self._heads(self._client.post(path, HeadsResponse, body, patience=None))

    def _heads(self, found: HeadsResponse) -> list[Version]:
        return [RemoteVersion(self._client, self._contents, shape.value()) for shape in found.versions]

    # --- maintenance -----------------------------------------------------------------------------------------------

    def _plan_expiry(self, policy: Policy, live_runs: Collection[str] | None) -> ExpirePlan:
        body = {
            "rules": [_rule(rule) for rule in policy.rules],
            "keep_inputs": policy.keep_inputs,
            "live_runs": None if live_runs is None else list(live_runs),
        }
        return self._client.post("expire/plan", ExpirePlanResponse, body, once=False).value()

    def _plan_collection(self, older_than: timedelta) -> CollectPlan:
        body = {"older_than_seconds": ceil(older_than.total_seconds())}
        return self._client.post("collect/plan", CollectPlanResponse, body, once=False).value()

    def _plan_sweep(self, older_than: timedelta, max_share: float, progress: Progress) -> SweepPlan:
        body = {"older_than_seconds": ceil(older_than.total_seconds()), "max_share": max_share}
        return self._client.post("sweep/plan", SweepPlanResponse, body, once=False).value()

    def _apply(
        self, plan: ExpirePlan | CollectPlan | SweepPlan, live_runs: Collection[str] | None, progress: Progress
    ) -> Expired | Collected:
        if isinstance(plan, ExpirePlan):
            runs = None if live_runs is None else list(live_runs)
            body = ExpireApplyRequest(plan=ExpirePlanResponse.of(plan), live_runs=runs)
            done = self._client.post("expire/apply", ExpiredResponse, body, patience=None)
            return Expired(done.versions, done.kept)
        if isinstance(plan, CollectPlan):
            found = self._client.post("collect/apply", CollectedResponse, CollectPlanResponse.of(plan), patience=None)
        else:
            found = self._client.post("sweep/apply", CollectedResponse, SweepPlanResponse.of(plan), patience=None)
        return Collected(found.files, found.kept, found.objects, found.bytes)

    def verify(
        self,
        *,
        deep: bool | tuple[int, int] = False,
        repair: bool = False,
        older_than: timedelta = GRACE,
        progress: Progress = silent,
    ) -> Verification:
        share = (1, 1) if deep is True else deep or None
        body = {"share": share, "repair": repair, "older_than_seconds": ceil(older_than.total_seconds())}
        found = self._client.post("verify", VerificationResponse, body, patience=None)
        findings = tuple(Finding(f.kind, f.what, f.repaired) for f in found.findings)
        return Verification(findings, found.files, found.bytes_read, found.waiting)

    def copy_to(
        self,
        other: Registry,
        *,
        datasets: str | Sequence[str] = ("*",),
        refs: str | Sequence[str] | None = None,
        progress: Progress = silent,
    ) -> Copied:
        raise InputError(
            "A registry on a server cannot be copied. Open both registries by their catalogs and stores.",
        )

    def _plan_adoption(self) -> AdoptionPlan:
        plan = self._client.post("adopt/plan", AdoptionPlanResponse, {}, once=False)
        return AdoptionPlan(plan.inline, plan.paths, plan.bytes, plan.unreadable)

    def _adopt(self, any_size: bool, give_up: Sequence[int], progress: Progress) -> Adoption:
        body = {"any_size": any_size, "give_up": list(give_up)}
        done = self._client.post("adopt/apply", AdoptionResponse, body, patience=None)
        return Adoption(**done.model_dump())


def _rule(rule: Rule) -> dict[str, object]:
    return {
        "datasets": rule.datasets,
        "branches": rule.branches,
        "last": rule.last,
        "younger_than_seconds": ceil(rule.younger_than.total_seconds()) if rule.younger_than is not None else None,
        "hourly": rule.hourly,
        "daily": rule.daily,
        "weekly": rule.weekly,
        "monthly": rule.monthly,
        "yearly": rule.yearly,
        "heads": rule.heads,
    }
