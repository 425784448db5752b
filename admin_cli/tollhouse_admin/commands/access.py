"""`tollhouse access`: who may do what, and why."""

from typing import Annotated

import typer
from tollhouse.admin.v1 import access_pb2 as pb
from tollhouse.admin.v1.access_pb2_grpc import AccessServiceStub

from tollhouse_admin.command import LIST, READ, Session, command, noun
from tollhouse_admin.names import scope_name, tenant_of
from tollhouse_admin.output import Format, Layout, show_list, show_one
from tollhouse_admin.scopes import Tenant, complete_principals, in_tenant

app = noun("Access: who may do what, and why.")

Who = Annotated[
    str,
    typer.Argument(metavar="PRINCIPAL", help="Id or name of the principal.", autocompletion=complete_principals),
]

ANSWER = Layout(["allowed", "scopes"])
FINDING = Layout(["kind", "role", "scope", "group", "role_grant", "sentence"])
ACCESS = Layout(["scope", "permissions"])


def _stub(session: Session) -> AccessServiceStub:
    return session.connection.stub(AccessServiceStub)


@command(app, "explain", READ)
def explain(
    session: Session,
    principal: Who,
    permission: Annotated[str, typer.Argument(metavar="PERMISSION", help="Such as projects.create.")],
    scope: Annotated[
        str,
        typer.Argument(
            metavar="SCOPE",
            help="departments/research, departments/research/projects/chat, tenant, platform, or a name.",
        ),
    ],
    *,
    tenant: Tenant = None,
) -> None:
    """Tell whether a principal has a permission on a scope, by which grants, or what is in the way."""
    name = in_tenant(session, principal, "principals", tenant)
    where = scope_name(tenant_of(name), scope)
    request = pb.ExplainAccessRequest(principal=name, permission=permission, scope=where)
    answer = session.connection.call(_stub(session).ExplainAccess, request)
    form = session.options.output
    if form is not Format.TABLE:
        show_one(form, ANSWER, answer) if form is Format.JSON else show_list(form, FINDING, answer.findings)
        return
    typer.echo(
        f"{'yes' if answer.allowed else 'no'}: {name} {'has' if answer.allowed else 'lacks'} {permission} on {where}"
    )
    for finding in answer.findings:
        typer.echo(f"  {finding.sentence}")
    if not answer.allowed:
        typer.echo(f"  A grant would count on: {', '.join(answer.scopes)}")


@command(app, "list", LIST)
def list_access(session: Session, principal: Who, *, tenant: Tenant = None) -> None:
    """List what a principal may do and where; on everything below each scope it is the same."""
    name = in_tenant(session, principal, "principals", tenant)
    request = pb.ListAccessRequest(principal=name)
    pages = session.connection.pages(_stub(session).ListAccess, request, "access", limit=session.options.limit)
    show_list(session.options.output, ACCESS, pages)
