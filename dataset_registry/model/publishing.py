"""Publishing a branch of many datasets; runs; and whether the heads of a branch belong together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dataset_registry.model.merge_plans import MergePlan


@dataclass(frozen=True, slots=True)
class MovedInput:
    """A version to publish was built from `read`, but the target branch of that dataset is, or would be, at another version.

    `head` is the number of that version, None for one that the publication makes.
    """

    dataset: str
    version: int
    input: str
    read: int
    head: int | None

    def __str__(self) -> str:
        now = "is merged by this publication" if self.head is None else f"is at v{self.head} now"
        return f"{self.dataset}@v{self.version} was built from {self.input}@v{self.read}, which {now}"


@dataclass(frozen=True, slots=True)
class PublishPlan:
    """The plan of a publication: a merge for each dataset whose branch has versions that the target lacks."""

    branch: str
    into: str
    merges: tuple[MergePlan, ...]
    moved: tuple[MovedInput, ...] = ()

    @property
    def conflicts(self) -> tuple[MergePlan, ...]:
        """The merges with conflicts."""
        return tuple(plan for plan in self.merges if plan.conflicts)


@dataclass(frozen=True, slots=True)
class RunVersion:
    """A version that a run wrote or read: `unchanged` if it wrote the content that was there already."""

    dataset: str
    version: int
    branch: str | None = None
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A pipeline run: the versions that it wrote, and those that it read."""

    id: str
    wrote: tuple[RunVersion, ...]
    read: tuple[RunVersion, ...]


@dataclass(frozen=True, slots=True)
class RevertPlan:
    """The plan of taking a run out of a branch: a merge for each dataset that it wrote there. `built_on` are versions of the
    branch that were built from its versions, as (dataset, number)."""

    run: str
    branch: str
    merges: tuple[MergePlan, ...]
    built_on: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Torn:
    """A head that no sequence of runs could have made beside the other heads of its branch."""

    dataset: str
    version: int
    input: str
    read: int
    reason: str

    def __str__(self) -> str:
        return f"{self.dataset}@v{self.version} was built from {self.input}@v{self.read}, {self.reason}"


@dataclass(frozen=True, slots=True)
class Consistency:
    """Whether the heads of a branch belong together: true if none is torn."""

    branch: str
    torn: tuple[Torn, ...]

    def __bool__(self) -> bool:
        return not self.torn


Place = tuple[int, int]
"""A version: the id of its dataset, and its number."""


def impossible(
    inputs: Mapping[Place, Sequence[Place]], ancestors: Mapping[Place, Collection[int]]
) -> list[tuple[Place, Place]]:
    """The reads that no sequence of runs could have made: pairs of a version and an input.

    `inputs` has the inputs of each version that the heads of a branch were built from, heads included; `ancestors` the numbers of
    the ancestors of each version within its dataset, itself included. In a sequence of runs, a version reads the newest version
    of an input that there is: it comes behind the input, and before the next version of that dataset. If these conditions
    have a cycle, no sequence fulfils them; the reads on the cycle are returned.
    """
    by_dataset: dict[int, list[Place]] = {}
    for place in inputs:
        by_dataset.setdefault(place[0], []).append(place)
    after: dict[Place, set[Place]] = {place: set() for place in inputs}
    reads: dict[tuple[Place, Place], tuple[Place, Place]] = {}
    for place, read in inputs.items():
        for other in by_dataset[place[0]]:
            if other != place and place[1] in ancestors[other]:
                after[place].add(other)
        for source in read:
            after[source].add(place)
            reads.setdefault((source, place), (place, source))
            for later in by_dataset[source[0]]:
                if later != source and source[1] in ancestors[later] and later != place:
                    after[place].add(later)
                    reads.setdefault((place, later), (place, source))
    found = {
        reads[edge]
        for group in _cycles(after)
        for edge in ((a, b) for a in group for b in after[a] & group)
        if edge in reads
    }
    return sorted(found)


def _cycles(after: Mapping[Place, Collection[Place]]) -> list[set[Place]]:
    """The strongly connected components with more than one place (Tarjan 1972, without recursion)."""
    index: dict[Place, int] = {}
    low: dict[Place, int] = {}
    stack: list[Place] = []
    found: list[set[Place]] = []
    for start in after:
        if start in index:
            continue
        work = [(start, iter(sorted(after[start])))]
        index[start] = low[start] = len(index)
        stack.append(start)
        while work:
            place, rest = work[-1]
            for following in rest:
                if following not in index:
                    index[following] = low[following] = len(index)
                    stack.append(following)
                    work.append((following, iter(sorted(after[following]))))
                    break
                if following in stack:
                    low[place] = min(low[place], index[following])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[place])
                if low[place] == index[place]:
                    group = set()
                    while place not in group:
                        group.add(stack.pop())
                    if len(group) > 1:
                        found.append(group)
    return found
