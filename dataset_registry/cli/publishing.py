"""Commands about many datasets: publish, run, revert-run, consistent."""

from typing import TYPE_CHECKING, Annotated

import typer

from dataset_registry.cli import merges, target
from dataset_registry.cli.arguments import Message
from dataset_registry.cli.output import AsJson, DryRun, count_of, print_json, say, working
from dataset_registry.cli.target import here
from dataset_registry.model.names import MAIN

if TYPE_CHECKING:
    from dataset_registry.registry import Registry
    from dataset_registry.version import Version

app = typer.Typer()

Branch = Annotated[
    str, typer.Option("--branch", "-b", help="The branch to change.", autocompletion=target.complete_ref)
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of a pipeline run.")]


@app.command()
@here
def publish(
    registry: "Registry",
    branch: Annotated[str, typer.Argument(help="The branch to publish.")],
    into: merges.Into = MAIN,
    datasets: Annotated[
        list[str] | None, typer.Option("--dataset", "-d", help="A name or a pattern such as raw/*. Default: all.")
    ] = None,
    strategy: merges.Strategy = None,
    allow_moved_inputs: Annotated[
        bool, typer.Option("--allow-moved-inputs", help="Publish versions whose inputs are not those of the target.")
    ] = False,
    message: Message = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Merge a branch into another in all of its datasets, in one transaction: all branches move, or none."""
    from dataset_registry.wire.merges import PublishPlanResponse

    chosen = strategy or "fail"
    if dry_run:
        with working(f"planning to publish {branch}"):
            plan = registry.plan_publish(branch, into, datasets=datasets, strategy=chosen)
        if as_json:
            print_json(PublishPlanResponse.of(plan))
            return
        for found in plan.merges:
            merges.print_plan(found)
        for moved in plan.moved:
            say(f"! {moved}")
        say(f"{count_of(len(plan.merges), 'dataset')} to publish")
        return
    with working(f"publishing {branch}"):
        heads = registry.publish(
            branch,
            into,
            datasets=datasets,
            strategy=chosen,
            allow_moved_inputs=allow_moved_inputs,
            message=message,
        )
    print_heads(heads, into, as_json)


@app.command()
@here
def run(registry: "Registry", run_id: RunId, as_json: AsJson = False) -> None:
    """Show what a pipeline run wrote and read."""
    from dataset_registry.wire.merges import RunResponse

    found = registry.run(run_id)
    if as_json:
        print_json(RunResponse.of(found))
        return
    for version in found.wrote:
        again = ", unchanged" if version.unchanged else ""
        say(f"wrote {version.dataset}@v{version.version} on {version.branch or 'no branch'}{again}")
    for version in found.read:
        say(f"read {version.dataset}@v{version.version}")


@app.command("revert-run")
@here
def revert_run(
    registry: "Registry",
    run_id: RunId,
    branch: Branch = MAIN,
    strategy: merges.Strategy = None,
    force: Annotated[bool, typer.Option("--force", help="Although other versions were built on it.")] = False,
    message: Message = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Undo what a run wrote to a branch, in all of its datasets, in one transaction."""
    from dataset_registry.wire.merges import RevertPlanResponse

    chosen = strategy or "fail"
    if dry_run:
        plan = registry.plan_revert_run(run_id, branch, strategy=chosen)
        if as_json:
            print_json(RevertPlanResponse.of(plan))
            return
        for found in plan.merges:
            merges.print_plan(found)
        for name, number in plan.built_on:
            say(f"! {name}@v{number} was built from it")
        return
    with working(f"reverting the run {run_id}"):
        heads = registry.revert_run(run_id, branch, strategy=chosen, force=force, message=message)
    print_heads(heads, branch, as_json)


@app.command()
@here
def consistent(
    registry: "Registry",
    branch: Annotated[str, typer.Argument(help="A branch.")] = MAIN,
    as_json: AsJson = False,
) -> None:
    """Check that the heads of a branch were built from one another. Exits with 3 if not."""
    from dataset_registry.wire.merges import ConsistencyResponse

    found = registry.consistent(branch)
    if as_json:
        print_json(ConsistencyResponse.of(found))
    elif found:
        say(f"the heads of {branch} belong together")
    else:
        for torn in found.torn:
            say(torn)
    if not found:
        raise typer.Exit(3)


def print_heads(heads: "list[Version]", branch: str, as_json: bool) -> None:
    """Print the new heads of a branch."""
    from dataset_registry.wire.datasets import VersionResponse

    if as_json:
        print_json({"versions": [VersionResponse.of(head.record) for head in heads]})
        return
    for head in heads:
        say(f"{branch} is now {head}, {(head.digest or '')[:8]}")
    if not heads:
        say(f"{branch} is up to date")
