"""What a run says, as tables: everybody beside the limit, and each of our targets met or missed by how much."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.data import CHANGES
from benchmarks.peers import LIMIT, PARTICIPANTS
from benchmarks.peers.loop import TOO_SLOW

Result = Mapping[str, Any]
ALONE = "Dagster alone"
US = "us"
NO_FSYNC = "us, no fsync"
POSTGRESQL = "us, PostgreSQL"
console = Console(width=170)


# --- figures -------------------------------------------------------------------------------------------------------


def values(result: Result, label: str, who: str, key: str) -> list[float]:
    """What somebody's answers say, round by round; nothing when there are none."""
    answers = result["measured"].get(label, {}).get(who)
    return [answer[key] for answer in answers if key in answer] if isinstance(answers, list) else []


def reason(result: Result, label: str, who: str) -> str | None:
    """Why somebody has no answer, when that is not because it cannot do such a thing at all."""
    answers = result["measured"].get(label, {}).get(who)
    return answers if isinstance(answers, str) and not answers.startswith("NotImplementedError") else None


def ratio(label: str, limit: str = LIMIT) -> "Figure":
    """Times the limit: the median over the rounds of the ratio within a round."""

    def figure(result: Result, who: str) -> float | None:
        pairs = zip(values(result, label, who, "seconds"), values(result, label, limit, "seconds"), strict=False)
        return _median([mine / its for mine, its in pairs])

    return figure


def middle(label: str, key: str = "seconds", unit: float = 1.0) -> "Figure":
    """The median of what the answers say, in a unit."""

    def figure(result: Result, who: str) -> float | None:
        found = _median(values(result, label, who, key))
        return None if found is None else found / unit

    return figure


def growth(labels: tuple[str, str]) -> "Figure":
    """How many times as long the second takes as the first."""

    def figure(result: Result, who: str) -> float | None:
        first, second = (middle(label)(result, who) for label in labels)
        return second / first if first and second else None

    return figure


def size(label: str) -> "Figure":
    """What a table takes in the repository, over one default Parquet file of it."""

    def figure(result: Result, who: str) -> float | None:
        (default,) = values(result, "default file", LIMIT, "bytes") or [0]
        found = _median(values(result, label, who, "new_bytes"))
        return found / default if found and default else None

    return figure


def percent(label: str) -> "Figure":
    """The bytes that are new in the repository, in percent of a default Parquet file of the changed table."""

    def figure(result: Result, who: str) -> float | None:
        new, whole = values(result, label, who, "new_bytes"), values(result, label, who, "whole_bytes")
        return 100 * new[0] / whole[0] if new and whole else None

    return figure


def over_alone(label: str) -> "Figure":
    """Milliseconds that a step takes over Dagster alone, in the same round."""

    def figure(result: Result, who: str) -> float | None:
        pairs = zip(values(result, label, who, "seconds"), values(result, label, ALONE, "seconds"), strict=False)
        return None if who == ALONE else _median([1000 * (mine - alone) for mine, alone in pairs])

    return figure


def step_ratio(label: str) -> "Figure":
    """What a step takes over Dagster alone, times the limit, in the same round."""

    def figure(result: Result, who: str) -> float | None:
        alone = values(result, "step, tiny", ALONE, "seconds")
        limit = values(result, label, ALONE, "seconds")
        rounds = zip(values(result, label, who, "seconds"), alone, limit, strict=False)
        return None if who == ALONE else _median([(mine - without) / its for mine, without, its in rounds])

    return figure


def _median(found: list[float]) -> float | None:
    return median(found) if found else None


Figure = Callable[[Result, str], float | None]


# --- rows and targets ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of everybody, and what ours should be: at most, or at least, by the name under which we take part."""

    title: str
    label: str
    figure: Figure
    form: str = "{:.2f} x"
    targets: Mapping[str, float] = field(default_factory=dict)
    at_least: bool = False
    limit: str = LIMIT
    timed: bool = True
    """Whether what the limit takes says something here."""
    peers: Collection[str] = ()
    """Who can be compared, when that is not everybody."""


TAKE_TABLES = ("delta", "iceberg", "lance", "ducklake")
"""Those who are handed a table in memory; the others get its file, which is no writing of it."""
MS = "{:.1f} ms"
RATE = "{:,.0f}/s"
FLAT = {US: 1.2, POSTGRESQL: 1.2}
MB = "{:,.0f} MB"
ROWS = (
    Row("store a new file", "store", ratio("store"), targets={US: 1.9, NO_FSYNC: 1.2}),
    Row("… memory above idle", "store", middle("store", "above_mb"), MB, {US: 100}, timed=False),
    Row("store known content again", "again", ratio("again"), targets={US: 1.05}),
    Row("… new on disk", "again", middle("again", "new_bytes", 1024), "{:,.0f} KB", {US: 64}, timed=False),
    Row("an untouched path again", "untouched", ratio("untouched"), targets={US: 0.05}),
    Row("small files of 20 KB", "many", ratio("many"), targets={US: 4, NO_FSYNC: 2}),
    Row("… again", "many again", ratio("many again"), targets={US: 1.1}),
    Row("… checked out, over cp -r", "checkout", ratio("checkout"), targets={US: 1.7}),
    *(
        Row(f"tiny commit at {level:,}", f"commit at {level}", middle(f"commit at {level}", unit=0.001), MS, targets)
        for level in (100, 300, 1000, 10_000)
        for targets in [{US: 3, POSTGRESQL: 6}]
    ),
    *(
        Row(
            f"… at {n:,} over at 100",
            label,
            growth(("commit at 100", label)),
            targets=FLAT,
            timed=False,
        )
        for n in (300, 1000, 10_000)
        for label in [f"commit at {n}"]
    ),
    Row("branch", "branch", middle("branch", unit=0.001), MS, {US: 1, POSTGRESQL: 2}),
    Row("tag", "tag", middle("tag", unit=0.001), MS, {US: 1, POSTGRESQL: 2}),
    Row("branch of all datasets", "everywhere", middle("everywhere", unit=0.001), MS, {US: 300, POSTGRESQL: 300}),
    Row("history of 1,000 (quick: 100)", "log", middle("log", unit=0.001), MS, {US: 5}),
    Row("read a whole version", "read", ratio("read"), targets={US: 1.05}),
    Row("… 2 columns with a filter", "read filtered", ratio("read filtered"), targets={US: 0.75}),
    Row("write a table", "write", ratio("write"), targets={US: 1.25}, peers=TAKE_TABLES),
    Row("… its size over one default file", "write", size("write"), targets={US: 1.05}, timed=False, peers=TAKE_TABLES),
    *(
        Row(f"8 clients, {branches}", label, middle(label, "per_second"), RATE, targets, at_least=True)
        for branches, targets in (
            ("branches of their own", {US: 600, POSTGRESQL: 500}),
            ("one branch", {US: 600, POSTGRESQL: 250}),
        )
        for label in [f"clients, {branches.replace('branches of their own', 'own branches')}"]
    ),
    Row("a Dagster step, tiny", "step, tiny", over_alone("step, tiny"), "{:+.0f} ms", {US: 15}, limit=ALONE),
    Row("a Dagster step, a table", "step, large", step_ratio("step, large"), targets={US: 1.15}, limit=ALONE),
    Row("… and loading it", "step, load", step_ratio("step, load"), targets={US: 1.1}, limit=ALONE),
)
NEW_BYTES = {"scatter": 25.0, "block": 3.0, "insert": 4.5, "append": 3.0, "addcol": 18.0}
"""Percent, at most."""


def verdict(found: float | None, target: float, *, at_least: bool = False) -> str:
    """Whether a target is met, and if not, by how much it is missed."""
    if found is None:
        return "not measured"
    if found >= target if at_least else found <= target:
        return "met"
    return f"missed, {found / target:.2f} x"


# --- printing ------------------------------------------------------------------------------------------------------


def show(result: Result) -> None:
    """Print it."""
    _participants(result)
    _field(result)
    _new_bytes(result)
    if result["quick"]:
        console.print("[dim]Small data and few rounds: fixed costs weigh more than they should. A first look.[/]")


def _participants(result: Result) -> None:
    machine = result["machine"]
    console.print(
        f"\n{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['file_system']}, "
        f"Python {machine['python']}; TPC-H at {result['scale']:g}, {result['rounds']} rounds"
    )
    for durable, title in ((True, "synced to the disk"), (False, "not synced *")):
        names = [
            f"{name} ({', '.join(f'{what} {number}' for what, number in found['versions'].items())})"
            for name, found in result["participants"].items()
            if found["durable"] is durable
        ]
        console.print(f"[bold]{title}:[/] {'; '.join(names)}", highlight=False)
    for name, why in result["absent"].items():
        console.print(f"[red]{name} does not take part:[/] {escape(why)}")


def _field(result: Result) -> None:
    table = Table(title="The field", title_justify="left", expand=True)
    for name in (*HEADINGS, "target", ""):
        table.add_column(name, overflow="fold", ratio={"work": 3, "best peer": 3, "other peers": 8, "": 3}.get(name, 2))
    for cells, targets, verdicts in lines(result):
        colours = (f"[{'green' if found == 'met' else 'red'}]{found}[/]" for found in verdicts)
        table.add_row(*cells, "\n".join(targets), "\n".join(colours))
    if table.row_count:
        console.print(table)


HEADINGS = ("work", "limit", "us", "no fsync", "PostgreSQL", "best peer", "us over it", "other peers")


def lines(result: Result) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """For each piece of work what stands under `HEADINGS`, our targets, and for each whether it is met."""
    for row in ROWS:
        if row.label not in result["measured"]:
            continue
        ours = [_cell(result, row, name) for name in (US, NO_FSYNC, POSTGRESQL)]
        best, others = _peers(result, row)
        sign = "≥" if row.at_least else "≤"
        targets, verdicts = [], []
        for name, target in row.targets.items():
            short = name.removeprefix("us").strip(", ")
            if name in result["participants"] and result["measured"][row.label].get(name) is not None:
                targets.append(f"{sign} {row.form.format(target)}{f' {short}' if short else ''}")
                verdicts.append(verdict(row.figure(result, name), target, at_least=row.at_least))
        rate = row.figure(result, row.limit) if row.at_least else None
        seconds = middle(row.label)(result, row.limit) if row.timed else None
        limit = row.form.format(rate) if rate else f"{1000 * seconds:,.1f} ms" if seconds else ""
        yield [row.title, limit, *ours, best, _over_best(result, row), others], targets, verdicts


def _peers(result: Result, row: Row) -> tuple[str, str]:
    """The best peer, and the others after it; those who failed last, with the reason."""
    found: list[tuple[float, str]] = []
    failed: list[str] = []
    slow: list[str] = []
    for name in _rivals(result, row):
        mark = "" if result["participants"][name]["durable"] else "*"
        figure = row.figure(result, name)
        if figure is not None:
            found.append((-figure if row.at_least else figure, f"{name}{mark} {row.form.format(figure)}"))
        elif (why := reason(result, row.label, name)) and why.startswith(TOO_SLOW):
            slow.append(name)
        elif why:
            failed.append(f"{name} failed: {escape(why[:60])}")
    texts = [text for _, text in sorted(found)]
    notes = [f"[dim]{text}[/]" for text in [*failed, *([f"{TOO_SLOW}: {', '.join(slow)}"] if slow else [])]]
    return texts[0] if texts else "-", ", ".join([*texts[1:], *notes]) or "-"


def _rivals(result: Result, row: Row) -> list[str]:
    """The peers that can be compared in a row."""
    others = (name for name in result["measured"][row.label] if name not in (row.limit, US, NO_FSYNC, POSTGRESQL))
    return [name for name in others if not row.peers or name in row.peers]


def _over_best(result: Result, row: Row) -> str:
    """Our figures over that of the best peer, ours on PostgreSQL after it."""
    peers = [figure for name in _rivals(result, row) if (figure := row.figure(result, name)) is not None]
    if not peers:
        return "-"
    best = max(peers) if row.at_least else min(peers)
    ours = [row.figure(result, name) for name in (US, POSTGRESQL)]
    return ", ".join(f"{figure / best:.2f} x" for figure in ours if figure is not None and best) or "-"


def _cell(result: Result, row: Row, name: str) -> str:
    figure = row.figure(result, name)
    if figure is not None:
        return row.form.format(figure)
    why = reason(result, row.label, name)
    if why is None:
        return "-"
    return TOO_SLOW if why.startswith(TOO_SLOW) else f"[red]failed: {escape(why[:40])}[/]"


def _new_bytes(result: Result) -> None:
    """Everybody's new bytes, and ours against the targets."""
    for name in ("lineitem", "flights"):
        labels = [f"{name} {change}" for change in CHANGES]
        who = [p for p in PARTICIPANTS if any(p in result["measured"].get(label, {}) for label in labels)]
        if not who:
            continue
        table = Table(title=f"New bytes of {name} when 1 % changes, percent of the whole", title_justify="left")
        table.add_column("")
        for change in CHANGES:
            table.add_column(change, justify="right")
        for participant in who:
            cells = []
            for label in labels:
                figure, why = percent(label)(result, participant), reason(result, label, participant)
                cells.append(f"{figure:.1f}" if figure is not None else f"failed: {escape(why[:40])}" if why else "-")
            table.add_row(participant, *cells, style="bold" if participant == US else None)
        table.add_section()
        table.add_row("our target", *(f"≤ {target:g}" for target in NEW_BYTES.values()))
        verdicts = [verdict(percent(label)(result, US), NEW_BYTES[label.split()[1]]) for label in labels]
        table.add_row("", *(f"[{'green' if found == 'met' else 'red'}]{found}[/]" for found in verdicts))
        console.print(table)
