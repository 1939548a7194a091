"""Who asks, and what each may do by what was granted: the expectations of the matrix, from these facts alone."""

from dataclasses import dataclass

from dataset_registry.errors import NotFound, PermissionDenied, RegistryError
from dataset_registry.model.actors import PERMISSIONS

READ, WRITE, ADMIN = 1, 2, 3
DATASET, FOREIGN, PREFIX = "raw/flights", "other/prices", "raw/"
"""What the matrix is about, what foreign subjects have instead, and the one prefix on which somebody may write."""


@dataclass(frozen=True)
class Subject:
    """Somebody: a user (`user`, None for the owner), what it was granted, and the token it uses, if it does."""

    name: str
    user: str | None = None
    role: str = "member"
    disabled: bool = False
    dataset: int = 0
    group: int = 0
    foreign: int = 0
    prefix: int = 0
    file: int = 0
    cap: int = ADMIN
    scope: str = ""
    is_token: bool = False

    @property
    def is_owner(self) -> bool:
        return self.user is None

    @property
    def is_administrator(self) -> bool:
        return self.is_owner or (self.role == "administrator" and self.cap == ADMIN and not self.scope)

    def on(self, name: str) -> int:
        """The level on a dataset."""
        if not name.startswith(self.scope):
            return 0
        if self.is_owner or self.role == "administrator":
            found = ADMIN
        else:
            found = self.prefix if name.startswith(PREFIX) else 0
            found = max(found, {DATASET: max(self.dataset, self.group), FOREIGN: self.foreign}.get(name, 0))
        return min(found, self.cap)

    def on_prefix(self) -> int:
        """The level on everything under `raw/`."""
        if not PREFIX.startswith(self.scope):
            return 0
        return min(ADMIN if self.is_owner or self.role == "administrator" else self.prefix, self.cap)

    def on_file(self) -> int:
        """The level on the file: granted on it, or reading a dataset that has it. A scope of names reaches no such grant."""
        granted = 0 if self.scope else ADMIN if self.is_owner or self.role == "administrator" else self.file
        return min(granted or (READ if self.on(DATASET) else 0), self.cap)

    @property
    def writes_somewhere(self) -> bool:
        """Whether there is anything to which it may write."""
        granted = max(self.dataset, self.group, self.foreign, self.prefix) >= WRITE
        return self.cap >= WRITE and (self.role != "guest" or granted)

    def may_create(self, name: str) -> bool:
        if self.cap < WRITE or not name.startswith(self.scope):
            return False
        if self.is_owner or self.role == "administrator":
            return True
        is_governed = name.startswith(PREFIX)
        return self.prefix >= WRITE if is_governed else self.role == "member"


def _members() -> list[Subject]:
    found = [Subject("stranger", "stranger")]
    for level, word in ((READ, "reader"), (WRITE, "writer"), (ADMIN, "keeper")):
        found += [
            Subject(word, word, dataset=level),
            Subject(f"foreign {word}", f"foreign-{word}", foreign=level),
            Subject(f"prefix {word}", f"prefix-{word}", prefix=level),
            Subject(f"group {word}", f"group-{word}", group=level),
        ]
    return found


PERSONS = (
    *_members(),
    Subject("file reader", "file-reader", file=READ),
    Subject("file keeper", "file-keeper", file=ADMIN),
    Subject("guest", "guest", role="guest"),
    Subject("guest writer", "guest-writer", role="guest", dataset=WRITE),
    Subject("guest prefix writer", "guest-prefix-writer", role="guest", prefix=WRITE),
    Subject("disabled", "disabled", disabled=True, dataset=ADMIN),
    Subject("administrator", "ada", role="administrator"),
)
OWNER = Subject("owner")


def _token(of: str, cap: int = ADMIN, scope: str = "") -> Subject:
    (person,) = (subject for subject in PERSONS if subject.name == of)
    facts = {f: getattr(person, f) for f in ("user", "role", "dataset", "group", "foreign", "prefix", "file")}
    return Subject(
        f"{of} by a {PERMISSIONS[cap - 1]} token for {scope or 'all'}", cap=cap, scope=scope, is_token=True, **facts
    )


TOKENS = (
    _token("administrator", READ),
    _token("administrator", WRITE),
    _token("administrator", scope="other/"),
    _token("administrator", scope="raw/"),
    _token("keeper", READ),
    _token("keeper", WRITE),
    _token("keeper", scope="raw/"),
    _token("keeper", scope="other/"),
    _token("prefix keeper", WRITE, "raw/"),
    _token("file keeper", scope="raw/"),
)

Verdict = type[RegistryError] | None


@dataclass(frozen=True)
class Need:
    """What an operation takes; `verdict` is what a subject gets instead, None for the operation."""

    def verdict(self, subject: Subject) -> Verdict:
        if subject.disabled:
            return PermissionDenied
        return None if subject.is_owner else self.of(subject)

    def of(self, subject: Subject) -> Verdict:
        raise NotImplementedError


@dataclass(frozen=True)
class On(Need):
    """A level on the dataset: who may not read it is told that it is not there."""

    level: int

    def of(self, subject: Subject) -> Verdict:
        found = subject.on(DATASET)
        return NotFound if not found else PermissionDenied if found < self.level else None


@dataclass(frozen=True)
class Comment(On):
    """To write beside a dataset that one may read, with a token that may write."""

    def of(self, subject: Subject) -> Verdict:
        found = super().of(subject)
        return PermissionDenied if found is None and subject.cap < WRITE else found


@dataclass(frozen=True)
class ByName(Need):
    """A level on the dataset, asked for by its name where one that is not there is made: who may neither read it nor make one
    of that name is told the latter, whether there is one or not."""

    level: int

    def of(self, subject: Subject) -> Verdict:
        if not subject.on(DATASET) and not subject.may_create(DATASET):
            return PermissionDenied
        return On(self.level).of(subject)


@dataclass(frozen=True)
class OnFile(Need):
    level: int

    def of(self, subject: Subject) -> Verdict:
        found = subject.on_file()
        return NotFound if not found else PermissionDenied if found < self.level else None


@dataclass(frozen=True)
class OnPrefix(Need):
    """Admin on all of `raw/`. A prefix is no secret: without it, it is denied."""

    def of(self, subject: Subject) -> Verdict:
        return None if subject.on_prefix() == ADMIN else PermissionDenied


@dataclass(frozen=True)
class Create(Need):
    name: str

    def of(self, subject: Subject) -> Verdict:
        return None if subject.may_create(self.name) else PermissionDenied


@dataclass(frozen=True)
class Rename(Need):
    name: str

    def of(self, subject: Subject) -> Verdict:
        return On(ADMIN).of(subject) or Create(self.name).of(subject)


@dataclass(frozen=True)
class Administrator(Need):
    def of(self, subject: Subject) -> Verdict:
        return None if subject.is_administrator else PermissionDenied


@dataclass(frozen=True)
class Audited(Need):
    """Admin on the dataset; without it nobody learns whether there is one."""

    def of(self, subject: Subject) -> Verdict:
        return None if subject.on(DATASET) == ADMIN else PermissionDenied


@dataclass(frozen=True)
class Anybody(Need):
    """A user: lists are filtered, what is one's own is one's own."""

    def of(self, subject: Subject) -> Verdict:
        return None


@dataclass(frozen=True)
class Writer(Need):
    """A user who may write to anything."""

    def of(self, subject: Subject) -> Verdict:
        return None if subject.writes_somewhere else PermissionDenied


@dataclass(frozen=True)
class OwnUpload(Need):
    """What who may write to nothing never began is not there."""

    def of(self, subject: Subject) -> Verdict:
        return NotFound if subject.role == "guest" and not subject.writes_somewhere else None


@dataclass(frozen=True)
class Open(Need):
    """Nothing is looked up."""

    def verdict(self, subject: Subject) -> Verdict:
        return None


@dataclass(frozen=True)
class Nobody(Need):
    """What is another's own is not there, for anybody."""

    def of(self, subject: Subject) -> Verdict:
        return NotFound


@dataclass(frozen=True)
class Others(Need):
    """What is another's own is not there but for administrators."""

    def of(self, subject: Subject) -> Verdict:
        return None if subject.is_administrator else NotFound


@dataclass(frozen=True)
class Revoke(Need):
    """A token knows of none that is for more than itself."""

    def of(self, subject: Subject) -> Verdict:
        return None if subject.cap == ADMIN and not subject.scope else NotFound


@dataclass(frozen=True)
class OwnToken(Need):
    """A token is for no more than the one that made it. The owner is no user, and has none."""

    level: int
    scope: str = ""

    def verdict(self, subject: Subject) -> Verdict:
        if subject.is_owner:
            return NotFound
        return super().verdict(subject)

    def of(self, subject: Subject) -> Verdict:
        fits = self.level <= subject.cap and self.scope.startswith(subject.scope)
        return None if fits else PermissionDenied
