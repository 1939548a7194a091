"""Replaying: comparing the branches, tags, versions, users and grants that follow from the audit log with the current
ones.

A change directly in the database has no entry. State that the log does not cover (older than the log, or recorded by an
older release) is accepted.
"""

import hashlib
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from dataset_registry.catalog import Transaction, captures, datasets, grants, pointers, users, versions
from dataset_registry.model.audit import AuditEntry
from dataset_registry.model.manifest import canonical_json, schema_digest
from dataset_registry.model.records import DatasetRecord, VersionRecord

_Ref = tuple[int, str]


def record_digest(uuid: UUID | None, number: int, digest: str | None, author: str | None, message: str | None) -> str:
    """The digest of a version in its entry: over the immutable columns of its row."""
    facts = canonical_json([str(uuid), number, digest, author, message])
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


@dataclass(slots=True)
class Replay:
    """The state that follows from the entries read so far."""

    refs: dict[_Ref, tuple[str, bool] | None] = field(default_factory=dict)
    """The version (`v3`) of each branch or tag, and whether it is a tag; None if it was deleted."""
    told: set[int] = field(default_factory=set)
    """The datasets whose whole history is in the log."""
    versions: dict[tuple[int, int], tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    """The digest of each version's record, and its parents, by dataset and number."""
    roles: dict[str, str | None] = field(default_factory=dict)
    disabled: dict[str, bool] = field(default_factory=dict)
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    grants: dict[tuple[str, str, str], str | None] = field(default_factory=dict)
    """The permission of each user on each resource: (kind, dataset's id or name, user)."""
    implied: set[tuple[str, str, str]] = field(default_factory=set)
    """Grants that came with the creation of a dataset, where its creator was a user."""
    tokens: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    """The user, the permission and the prefix of each token."""
    revoked: set[int] = field(default_factory=set)
    protections: dict[tuple[str, str], str | None] = field(default_factory=dict)
    """Who may move each protected branch: (resource, branch); None for one that is not protected any longer."""
    names: dict[int, str] = field(default_factory=dict)
    descriptions: dict[int, str | None] = field(default_factory=dict)
    schemas: dict[int, str] = field(default_factory=dict)
    """The digest of each schema snapshot that an entry says was captured."""

    def add(self, entry: AuditEntry) -> None:
        """Read the next entry."""
        dataset, details = entry.dataset_id, entry.details
        self.schemas |= {int(schema): str(digest) for schema, digest in details.get("schemas", {}).items()}
        match entry.action:
            case "dataset.create" if dataset is not None:
                self.told.add(dataset)
                self.grants["dataset", str(dataset), entry.actor] = "admin"
                self.implied.add(("dataset", str(dataset), entry.actor))
                self.names[dataset] = str(entry.dataset)
            case "dataset.rename" if dataset is not None:
                self.names[dataset] = str(entry.after)
                if "description" in details:
                    self.descriptions[dataset] = details["description"]
            case "dataset.update" if dataset is not None:
                self.descriptions[dataset] = entry.after
            case "dataset.delete" if dataset is not None:
                self.refs = {ref: at for ref, at in self.refs.items() if ref[0] != dataset}
            case "commit" | "copy" if dataset is not None and entry.after is not None:
                if "record" in details:
                    parents = tuple(int(number) for number in details.get("parents", ()))
                    self.versions[dataset, int(entry.after[1:])] = (str(details["record"]), parents)
                elif entry.action == "copy" and entry.ref is None:
                    self.told.discard(dataset)  # by a release that did not note where the branches of a copy are
                if entry.ref is not None:
                    self.refs[dataset, entry.ref] = (entry.after, bool(details.get("tag", False)))
            case "branch.create" | "branch.move" | "tag.create" if dataset is not None and entry.ref is not None:
                self.refs[dataset, entry.ref] = (str(entry.after), entry.action == "tag.create")
            case "branch.delete" | "tag.delete" if dataset is not None and entry.ref is not None:
                self.refs[dataset, entry.ref] = None
            case "registry-branch.create" if entry.ref is not None:
                for (where, name), at in list(self.refs.items()):
                    if name == entry.after and at is not None and not at[1]:
                        self.refs[where, entry.ref] = at
            case "registry-branch.delete" if entry.ref is not None:
                self.refs |= {ref: None for ref, at in self.refs.items() if ref[1] == entry.ref and at and not at[1]}
            case "user.create" | "group.create" if entry.after is not None:
                self.roles[entry.after] = details.get("role")
                if "members" in details:
                    self.members[entry.after] = tuple(details["members"])
            case "user.update" if entry.after is not None:
                if "role" in details:
                    self.roles[entry.after] = details["role"]
                if "disabled" in details:
                    self.disabled[entry.after] = details["disabled"]
            case "group.update" if entry.after is not None:
                self.members[entry.after] = tuple(details["members"])
            case "token.create":
                permission, prefix = str(details["permission"]), str(details.get("prefix") or "")
                self.tokens[int(details["token"])] = str(entry.after), permission, prefix
            case "token.revoke":
                self.revoked.add(int(details["token"]))
            case "protect" | "unprotect" if entry.ref is not None:
                self.protections[_name_of(entry), entry.ref] = entry.after if entry.action == "protect" else None
            case "grant" | "revoke":
                said = str(entry.after if entry.action == "grant" else entry.before)
                permission, _, user = said.partition(" for ")
                kind = str(details.get("on", "dataset"))
                name = str(dataset) if dataset is not None else str(details.get("name"))
                self.grants[kind, name, user] = permission if entry.action == "grant" else None

    def problems(self, tx: Transaction) -> Iterator[str]:
        """The differences from the log, one sentence each."""
        records = list(datasets.all_of(tx, ""))
        names = {found.id: found.name for found in records}
        for dataset_id, name in names.items():
            yield from self._of_pointers(tx, dataset_id, name)
            known = {v.number: v for v in versions.all_of(tx, dataset_id)}
            for number, version in known.items():
                if (noted := self.versions.get((dataset_id, number))) is not None:
                    yield from _of_version(version, known.keys(), *noted)
        for record in records:
            yield from self._of_dataset(record)
        yield from self._of_schemas(tx)
        yield from self._of_users(tx)
        yield from self._of_tokens(tx)
        yield from self._of_grants(tx, names)
        yield from self._of_protections(tx, names)

    def _of_dataset(self, found: DatasetRecord) -> Iterator[str]:
        if self.names.get(found.id, found.name) != found.name:
            yield f"the dataset {found.name!r} was {self.names[found.id]!r} by its last entry: it was renamed"
        if found.id in self.descriptions and (found.description or "") != (self.descriptions[found.id] or ""):
            yield f"the description of {found.name!r} differs from its last entry"

    def _of_schemas(self, tx: Transaction) -> Iterator[str]:
        for found, (_, snapshot) in captures.schemas_by_id(tx, sorted(self.schemas)).items():
            if schema_digest(snapshot) != self.schemas[found]:
                yield f"the schema snapshot {found} differs from the captured one"

    def _of_pointers(self, tx: Transaction, dataset_id: int, name: str) -> Iterator[str]:
        there = {found.name: (f"v{found.version_number}", found.is_tag) for found in pointers.all_of(tx, dataset_id)}
        for ref, now in there.items():
            noted = self.refs.get((dataset_id, ref))
            kind = "tag" if now[1] else "branch"
            if noted is None:
                if (dataset_id, ref) in self.refs or dataset_id in self.told:
                    yield f"the {kind} {ref!r} of {name} is at {now[0]} without an entry that created it"
            elif noted != now:
                yield f"the {kind} {ref!r} of {name} is at {now[0]}, and its last entry says {noted[0]}: it was moved"
        for (where, ref), noted in self.refs.items():
            if where == dataset_id and noted is not None and ref not in there:
                yield f"{'the tag' if noted[1] else 'the branch'} {ref!r} of {name} is gone without an entry"

    def _of_users(self, tx: Transaction) -> Iterator[str]:
        found = users.all_of(tx)
        for user in found:
            if user.name not in self.roles:
                yield f"the user {user.name!r} exists without an entry that created it"
            elif self.roles[user.name] != user.role:
                yield f"the role of {user.name!r} is {user.role}, and its last entry says {self.roles[user.name]}"
            if self.disabled.get(user.name, False) != (user.disabled_at is not None) and user.name in self.roles:
                yield f"{user.name!r} was {'disabled' if user.disabled_at else 'enabled'} without an entry"
            if user.name in self.members and set(self.members[user.name]) != set(user.members):
                yield f"the members of {user.name!r} are {', '.join(user.members)}, and its last entry says otherwise"
        there = {user.name for user in found}
        yield from (f"the user {name!r} is gone without an entry" for name in self.roles if name not in there)

    def _of_tokens(self, tx: Transaction) -> Iterator[str]:
        for token in users.tokens_of(tx, None):
            noted = self.tokens.get(token.id)
            if noted is None:
                yield f"the token {token.id} of {token.user!r} exists without an entry that created it"
            elif noted != (token.user, token.permission, token.prefix):
                user, permission, prefix = noted
                yield f"the token {token.id} was created for {user!r}, {permission} on {prefix or 'everything'!r}: it was changed"
            if token.id in self.revoked and token.revoked_at is None:
                yield f"the token {token.id} of {token.user!r} was revoked, and is valid again without an entry"

    def _of_grants(self, tx: Transaction, names: dict[int, str]) -> Iterator[str]:
        there = {}
        for grant in grants.grants(tx):
            resource = grant.resource
            if grant.resource_type == "dataset":
                resource = next((str(i) for i, name in names.items() if name == grant.resource), grant.resource)
            there[grant.resource_type, resource, grant.user] = grant
        created = {(str(d.id), d.created_by) for d in datasets.all_of(tx, "")}
        for (kind, resource, user), grant in there.items():
            noted = self.grants.get((str(kind), resource, user))
            is_creators = kind == "dataset" and grant.permission == "admin" and (resource, user) in created
            if noted != grant.permission and not is_creators:
                yield f"{user!r} has {grant.permission} on {grant.resource!r} without an entry that granted it"
        for key, permission in self.grants.items():
            what, resource, user = key
            is_known = resource in map(str, names) if what == "dataset" else what == "prefix"
            if permission is not None and key not in there and key not in self.implied and is_known:
                shown = names[int(resource)] if what == "dataset" else resource
                yield f"the grant of {permission} on {shown!r} to {user!r} is gone without an entry"

    def _of_protections(self, tx: Transaction, names: dict[int, str]) -> Iterator[str]:
        there = {
            (found.resource, found.branch): ", ".join(found.allowed) or "admins" for found in grants.protections(tx)
        }
        noted = {
            (names.get(int(where[1:]), "") if where.startswith("#") else where, branch): allowed
            for (where, branch), allowed in self.protections.items()
        }
        for (where, branch), allowed in noted.items():
            if (
                allowed is not None
                and (where in names.values() or where == "" or where.endswith("/"))
                and (where, branch) not in there
            ):
                yield f"the branch {branch!r} of {where!r} is not protected any longer, without an entry"
        for key, allowed in there.items():
            if noted.get(key) != allowed:
                yield f"the branch {key[1]!r} of {key[0]!r} is protected for {allowed} without an entry that says so"


def _name_of(entry: AuditEntry) -> str:
    """What an entry is about: a dataset by its id (`#7`), which keeps its meaning, or a prefix."""
    return str(entry.details.get("name")) if entry.dataset_id is None else f"#{entry.dataset_id}"


def _of_version(version: VersionRecord, known: Container[int], record: str, parents: tuple[int, ...]) -> Iterator[str]:
    name = f"{version.dataset}@v{version.number}"
    now = record_digest(version.uuid, version.number, version.digest, version.created_by, version.message)
    if now != record:
        yield f"the author, the message or the digest of {name} differs from its commit"
    if lost := [parent for parent in parents if parent in known and parent not in version.parents]:
        yield f"{name} has lost its parent v{lost[0]}, which is still there"
