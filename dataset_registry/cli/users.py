"""Commands about users, groups, tokens, grants, protected branches, and the audit log."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dataset_registry.cli.output import AsJson, count_of, json_text, moment, print_facts, print_json, print_table, say
from dataset_registry.cli.target import here
from dataset_registry.errors import InputError
from dataset_registry.model.actors import Kind, Permission, Protection, User, parse_permission
from dataset_registry.model.names import MAIN
from dataset_registry.model.retention import parse_duration

if TYPE_CHECKING:
    from dataset_registry.registry import Registry


app = typer.Typer()
user_app = typer.Typer(no_args_is_help=True, help="Users, services and groups, for administrators.")
token_app = typer.Typer(no_args_is_help=True, help="API tokens.")
grant_app = typer.Typer(no_args_is_help=True, help="Grants: who may read, write or administer what.")
protect_app = typer.Typer(no_args_is_help=True, help="Protected branches.")
audit_app = typer.Typer(no_args_is_help=True, help="List, export, seal and check the audit log.")

TAMPERED = 3
"""The exit code of a check that found the audit log tampered with."""

UserName = Annotated[str, typer.Argument(help="The name of a user or a group.")]
Resource = Annotated[
    str | None, typer.Argument(help="A dataset, or a prefix that ends in '/'; '/' alone for all datasets.")
]
FileHash = Annotated[str | None, typer.Option("--file", help="A file by its hash instead.")]


@app.command()
@here
def whoami(registry: "Registry") -> None:
    """Show the current user."""
    say(registry.actor)


# --- users ---------------------------------------------------------------------------------------------------------


@user_app.command("create")
@here
def create_user(
    registry: "Registry",
    name: UserName,
    role: Annotated[
        str, typer.Option("--role", help="administrator, member (may create datasets) or guest.")
    ] = "member",
    kind: Annotated[str, typer.Option("--kind", help="person, service or group.")] = "person",
    members: Annotated[
        list[str] | None, typer.Option("--member", help="A member of the group. Can be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a user or a group. Once the first user exists, names are checked."""
    _say(registry.create_user(name, role=role, kind=cast(Kind, kind), members=members or ()), "Created", as_json)


@user_app.command("update")
@here
def update_user(
    registry: "Registry",
    name: UserName,
    role: Annotated[str | None, typer.Option("--role")] = None,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="Disable or enable the user.")] = None,
    members: Annotated[
        list[str] | None, typer.Option("--member", help="A member of the group; replaces all members. Can be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a user's role, disable or enable it, or replace the members of a group."""
    _say(registry.update_user(name, role=role, disabled=disable, members=members), "Updated", as_json)


@user_app.command("list")
@here
def list_users(registry: "Registry", as_json: AsJson = False) -> None:
    """List users and groups."""
    from dataset_registry.wire.users import UserResponse

    found = registry.users()
    if as_json:
        print_json([UserResponse.of(user) for user in found])
        return
    rows = [[u.name, u.kind, u.role, ", ".join(u.members), "disabled" if u.disabled_at else ""] for u in found]
    print_table(["name", "kind", "role", "members", ""], rows)


def _say(user: User, what: str, as_json: bool) -> None:
    from dataset_registry.wire.users import UserResponse

    if as_json:
        print_json(UserResponse.of(user))
    else:
        of = f"with {', '.join(user.members) or 'no members'}" if user.kind == "group" else f"({user.role})"
        say(f"{what} {user.kind} {user.name} {of}")


# --- tokens --------------------------------------------------------------------------------------------------------


@token_app.command("create")
@here
def create_token(
    registry: "Registry",
    user: Annotated[str | None, typer.Argument(help="The user. Default: yourself.")] = None,
    name: Annotated[str, typer.Option("--name", help="A name for the token.")] = "token",
    permission: Annotated[
        str, typer.Option("--permission", help="The maximum permission: read, write or admin.")
    ] = "admin",
    prefix: Annotated[str, typer.Option("--prefix", help="Only datasets with this prefix: raw/")] = "",
    lasts: Annotated[
        str | None, typer.Option("--lasts", help="Lifetime: 30d, 12h … Default: until it is revoked.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a token. Its secret is printed once, on standard output."""
    from dataset_registry.wire.users import NewTokenResponse

    duration: timedelta | None = parse_duration(lasts) if lasts is not None else None
    made = registry.create_token(
        user, name=name, permission=parse_permission(permission), prefix=prefix, lasts=duration
    )
    if as_json:
        print_json(NewTokenResponse.of(made))
        return
    until = f" until {moment(made.token.expires_at)}" if made.token.expires_at else ""
    say(f"token {made.token.id} of {made.token.user} created{until}; it is shown only once:", err=True)
    say(made.secret)


@token_app.command("list")
@here
def list_tokens(
    registry: "Registry", user: Annotated[str | None, typer.Argument()] = None, as_json: AsJson = False
) -> None:
    """List tokens, newest first."""
    from dataset_registry.wire.users import TokenResponse

    found = registry.tokens(user)
    if as_json:
        print_json([TokenResponse.of(token) for token in found])
        return
    rows = [
        [
            t.id,
            t.user,
            t.name,
            t.permission,
            t.prefix or "everything",
            "revoked" if t.revoked_at else moment(t.expires_at),
            moment(t.last_used_at),
        ]
        for t in found
    ]
    print_table(["id", "user", "name", "at most", "on", "until", "last used"], rows)


@token_app.command("revoke")
@here
def revoke_token(
    registry: "Registry", token_id: Annotated[int, typer.Argument(help="The id, from token list.")]
) -> None:
    """Revoke a token."""
    say(f"Revoked token {token_id} of {registry.revoke_token(token_id).user}")


# --- grants --------------------------------------------------------------------------------------------------------


def _name(resource: str | None, file: str | None) -> str | None:
    if file is None and resource is None:
        raise InputError("No resource given: expected a dataset, a prefix that ends in '/', or --file HASH.")
    return "" if resource == "/" else resource


@grant_app.command("add")
@here
def grant(
    registry: "Registry",
    user: UserName,
    permission: Annotated[str, typer.Argument(help="read, write or admin.")],
    resource: Resource = None,
    file: FileHash = None,
    as_json: AsJson = False,
) -> None:
    """Grant a user or group read, write or admin. Replaces its grant on the same resource."""
    from dataset_registry.wire.users import GrantResponse

    given: Permission = parse_permission(permission)
    made = registry.grant(user, given, _name(resource, file), file=file)
    if as_json:
        print_json(GrantResponse.of(made))
    else:
        say(f"Granted {user} {permission} on {made.resource or 'all datasets'}")


@grant_app.command("revoke")
@here
def revoke(registry: "Registry", user: UserName, resource: Resource = None, file: FileHash = None) -> None:
    """Revoke the grant of a user or group."""
    registry.revoke(user, _name(resource, file), file=file)
    say(f"Revoked the grant of {user} on {file or resource}")


@grant_app.command("list")
@here
def list_grants(
    registry: "Registry",
    resource: Resource = None,
    file: FileHash = None,
    user: Annotated[str | None, typer.Option("--user", help="Only grants of this user or group.")] = None,
    as_json: AsJson = False,
) -> None:
    """List grants: on a dataset, to a user, or all that you may see."""
    from dataset_registry.wire.users import GrantResponse

    found = registry.grants("" if resource == "/" else resource, file=file, user=user)
    if as_json:
        print_json([GrantResponse.of(grant) for grant in found])
        return
    rows = [[g.user, g.permission, g.resource_type, g.resource, g.granted_by, moment(g.granted_at)] for g in found]
    print_table(["who", "may", "", "what", "by", "since"], rows)


# --- protected branches --------------------------------------------------------------------------------------------

Branch = Annotated[str, typer.Argument(help="The branch.")]
Where = Annotated[str, typer.Argument(help="A dataset, or a prefix that ends in '/'; '/' alone for all datasets.")]


@protect_app.command("add")
@here
def protect(
    registry: "Registry",
    resource: Where,
    branch: Branch = MAIN,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", help="A user or group that may move it. Can be repeated.")
    ] = None,
    approvals: Annotated[
        int, typer.Option("--approvals", help="It moves by reviews only, with this many approvals.")
    ] = 0,
    checks: Annotated[
        bool, typer.Option("--checks", help="It moves by reviews only, to versions whose checks passed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restrict committing to, moving and deleting a branch to admins and the allowed users."""
    from dataset_registry.wire.users import ProtectionResponse

    name = "" if resource == "/" else resource
    made = registry.protect(name, branch, allow=allow or (), approvals=approvals, checks=checks)
    if as_json:
        print_json(ProtectionResponse.of(made))
    else:
        say(f"Protected {branch} of {resource}: {', '.join(['admins', *made.allowed])} may move it{taken_by(made)}")


def taken_by(protection: Protection) -> str:
    """What a protected branch takes besides permission, as the end of a sentence."""
    takes = []
    if protection.required_approvals:
        takes.append(count_of(protection.required_approvals, "approval"))
    if protection.requires_checks:
        takes.append("passed checks")
    return f", by reviews with {' and '.join(takes)}" if takes else ""


@protect_app.command("remove")
@here
def unprotect(registry: "Registry", resource: Where, branch: Branch = MAIN) -> None:
    """Remove the protection of a branch."""
    registry.unprotect("" if resource == "/" else resource, branch)
    say(f"Removed the protection of {branch} of {resource}")


@protect_app.command("list")
@here
def list_protections(
    registry: "Registry",
    dataset: Annotated[str | None, typer.Argument(help="A dataset. Default: all, for administrators.")] = None,
    as_json: AsJson = False,
) -> None:
    """List protected branches."""
    from dataset_registry.wire.users import ProtectionResponse

    found = registry.protections(dataset)
    if as_json:
        print_json([ProtectionResponse.of(protection) for protection in found])
        return
    rows = [[p.resource or "all datasets", p.branch, ", ".join(["admins", *p.allowed])] for p in found]
    print_table(["where", "branch", "moved by"], rows)


# --- the audit log -------------------------------------------------------------------------------------------------


@audit_app.command("list")
@here
def audit(
    registry: "Registry",
    dataset: Annotated[str | None, typer.Option("--dataset", help="Only entries of this dataset.")] = None,
    actor: Annotated[str | None, typer.Option("--by", help="Only entries by this user.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this action: commit, grant …")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n")] = 50,
    as_json: AsJson = False,
) -> None:
    """List audit entries, newest first."""
    from dataset_registry.wire.maintenance import AuditResponse

    found = registry.audit(dataset=dataset, actor=actor, action=action, limit=limit)
    if as_json:
        print_json([AuditResponse.of(entry) for entry in found])
        return
    rows = []
    for e in found:
        change = " -> ".join(text for text in (e.before, e.after) if text)
        what = (e.dataset or str(e.details.get("name", ""))) + (f"@{e.ref}" if e.ref else "")
        rows.append([moment(e.at), e.actor, e.interface, e.action, what, change])
    print_table(["when", "who", "interface", "action", "resource", "change"], rows)


@audit_app.command("export")
@here
def export(registry: "Registry") -> None:
    """Export the whole log, oldest first: one JSON object with its hash per line."""
    from dataset_registry.wire.maintenance import AuditResponse

    for entry, carried in registry.export_audit():
        say(json_text(AuditResponse.of(entry, carried).model_dump(mode="json")))


@audit_app.command("seal")
@here
def seal(registry: "Registry") -> None:
    """Seal the unsealed entries. Every collect does so, and a server every minute."""
    say(f"{registry.seal_audit()} entries sealed")


@audit_app.command("check")
@here
def check(registry: "Registry", as_json: AsJson = False) -> None:
    """Check that no entry was changed, removed or added since it was sealed. Exit code 3 if one was."""
    from dataset_registry.wire.maintenance import AuditCheckResponse

    found = registry.check_audit()
    if as_json:
        print_json(
            AuditCheckResponse(
                entries=found.entries, sealed=found.sealed, digest=found.digest, problems=list(found.problems)
            )
        )
    else:
        for problem in found.problems:
            say(problem)
        print_facts([("entries", f"{found.entries:,}, {found.sealed:,} of them sealed"), ("seal", found.digest)])
        say("the log was tampered with" if found.problems else "no tampering found")
    if found.problems:
        raise typer.Exit(TAMPERED)
