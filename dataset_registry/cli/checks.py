"""Commands about results of checks and taints: checks, check, absolve, finish-run."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dataset_registry.cli.arguments import Address
from dataset_registry.cli.output import AsJson, print_checks, print_json, say
from dataset_registry.cli.target import here

if TYPE_CHECKING:
    from dataset_registry.registry import Registry

app = typer.Typer()


@app.command()
@here
def checks(registry: "Registry", address: Address, as_json: AsJson = False) -> None:
    """Show the results of checks on a version, and its taints."""
    from dataset_registry.wire.checks import CheckResponse, TaintResponse

    version = registry.version(address)
    found, taints = version.checks, version.taints
    if as_json:
        print_json(
            {"checks": [CheckResponse.of(check) for check in found], "taints": [TaintResponse.of(t) for t in taints]}
        )
        return
    print_checks(version)
    if not found and not taints:
        say(f"no checks were recorded on {version}")


@app.command()
@here
def check(
    registry: "Registry",
    address: Address,
    name: Annotated[str, typer.Argument(help="The name of the check.")],
    passed: Annotated[bool, typer.Option("--passed/--failed", help="The result.")],
    blocking: Annotated[bool, typer.Option("--blocking", help="If it failed, taint the version.")] = False,
    severity: Annotated[Literal["error", "warn"], typer.Option(help="A warning never taints.")] = "error",
    description: Annotated[str | None, typer.Option("--description", "-d", help="What was found.")] = None,
    partition: Annotated[str | None, typer.Option(help="The partition that was checked. Default: all.")] = None,
) -> None:
    """Record the result of a check on a version."""
    version = registry.version(address)
    found = version.record_check(
        name, passed, blocking=blocking, severity=severity, description=description, partition=partition
    )
    say(f"{version}: {found}")


@app.command()
@here
def absolve(
    registry: "Registry",
    address: Address,
    because: Annotated[str, typer.Option(help="The reason, for the audit log.")],
) -> None:
    """Close the taints of a version, so that its content may reach protected branches."""
    version = registry.version(address)
    for taint in registry.dataset(version.dataset).absolve(f"v{version.number}", because):
        say(f"absolved {version} of {taint}")


@app.command("finish-run")
@here
def finish_run(
    registry: "Registry",
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The id of a pipeline run.")],
    succeeded: Annotated[bool, typer.Option("--succeeded/--failed", help="How it ended.")],
) -> None:
    """Record how a pipeline run ended. What a failed run wrote cannot reach a protected branch."""
    found = registry.finish_run(run_id, succeeded=succeeded)
    for taint in found:
        say(f"{taint.dataset}@v{taint.version} is tainted")
    if not found:
        say("nothing is tainted by this run")
