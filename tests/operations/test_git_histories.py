"""Random histories are walked as git walks them: ancestors, merge bases, `~` and `^`, the order of the log.

`HISTORIES=300` tries more of them.
"""

import os
import random
import subprocess
from pathlib import Path

from dataset_registry import Dataset, Registry
from dataset_registry.errors import NotFound

HISTORIES = int(os.environ.get("HISTORIES", "8"))

Parents = list[tuple[int, ...]]


def history(random: random.Random) -> Parents:
    """The parents of versions 1, 2, 3 …: chains, merges, criss-cross merges, and several roots."""
    found: Parents = []
    for number in range(1, random.randint(6, 16)):
        there = list(range(1, number))
        count = 0 if not there or random.random() < 0.08 else 2 if len(there) > 1 and random.random() < 0.4 else 1
        near = there[-5:] if random.random() < 0.8 else there
        found.append(tuple(random.sample(near, min(count, len(near)))))
    return found


def in_git(folder: Path, parents: Parents) -> dict[str, int]:
    """The same history in git, each commit a minute after the one before. Returns the numbers of its commits."""
    folder.mkdir()
    git(folder, "init", "--quiet", ".")
    lines = []
    for number, above in enumerate(parents, 1):
        lines += [f"commit refs/heads/v{number}", f"mark :{number}", f"committer A <a@b.c> {60 * number} +0000"]
        lines += ["data 0"]
        lines += [f"{'from' if at == 0 else 'merge'} :{parent}" for at, parent in enumerate(above)]
        lines += [""]
    git(folder, "fast-import", "--quiet", "--force", given="\n".join(lines) + "\n")
    listed = git(folder, "for-each-ref", "--format=%(objectname) %(refname:short)").splitlines()
    return {line.split()[0]: int(line.split()[1].removeprefix("v")) for line in listed}


def git(folder: Path, *arguments: str, given: str | None = None) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout


def in_registry(dataset: Dataset, parents: Parents) -> None:
    """The history in a dataset, with a branch `b1`, `b2` … at each version."""
    for number, above in enumerate(parents, 1):
        branch = f"b{number}"
        if above:
            dataset.create_branch(branch, f"v{above[0]}")
        refs = [f"v{parent}" for parent in above]
        content = {"data": str(number).encode()}
        version = dataset.commit(content, branch=branch, parents=refs, fallback="no-such-branch", overwrite=True)
        assert version.number == number
        assert version.parents == above


def test_histories_are_walked_as_git_walks_them(tmp_path: Path) -> None:
    with Registry.open(tmp_path / "registry") as registry:
        for seed in range(HISTORIES):
            parents = history(random.Random(seed))
            dataset = registry.create_dataset(f"history/{seed}")
            in_registry(dataset, parents)
            folder = tmp_path / f"git{seed}"
            numbers = in_git(folder, parents)

            def listed(*arguments: str, folder: Path = folder, numbers: dict[str, int] = numbers) -> list[int]:
                return [numbers[line] for line in git(folder, *arguments).split()]

            for at in range(1, len(parents) + 1):
                assert [v.number for v in dataset.log(f"v{at}")] == listed("rev-list", "--date-order", f"v{at}"), seed
                for step in ("~1", "~2", "^1", "^2", "~1^2", "^2~1"):
                    try:
                        mine = dataset.version(f"v{at}{step}").number
                    except NotFound:
                        mine = None
                    found = subprocess.run(
                        ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", f"v{at}{step}"],
                        capture_output=True,
                        text=True,
                        check=False,
                    ).stdout.strip()
                    assert mine == (numbers[found] if found else None), (seed, at, step)
            pairs = [(a, b) for a in range(1, len(parents) + 1) for b in range(a + 1, len(parents) + 1)]
            for a, b in random.Random(seed).sample(pairs, min(12, len(pairs))):
                command = ["git", "-C", str(folder), "merge-base", "--all", f"v{a}", f"v{b}"]
                bases = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
                mine_bases = sorted(v.number for v in dataset.merge_bases(f"v{a}", f"v{b}"))
                assert mine_bases == sorted(numbers[base] for base in bases), (seed, a, b)
