"""`tollhouse apply`: makes a tenant what a file says."""

from typing import Annotated
from uuid import uuid4

import typer
from tollhouse.admin.v1 import trees_pb2 as pb
from tollhouse.admin.v1.trees_pb2_grpc import TreeServiceStub

from tollhouse_admin.command import DESTROY, Session, command, single
from tollhouse_admin.dry_run import confirm
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name, named
from tollhouse_admin.output import Format, note
from tollhouse_admin.scopes import OnlyDepartment, complete_tenants, tenant_name
from tollhouse_admin.tree_changes import deletions, show_changes
from tollhouse_admin.tree_csv import read_csv
from tollhouse_admin.tree_files import Notation, notation_of, read_text
from tollhouse_admin.tree_yaml import TreeFile, read_yaml

app = single("Make a tenant what a file says: departments, projects, people, roles, limits; all of it or nothing.")

_SHOWN_DELETIONS = 10

Whose = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        "-t",
        metavar="ID",
        callback=named,
        help="Whose it is; absent: the file's tenant.id; for CSV TOLLHOUSE_TENANT, the profile's, or the only one.",
        autocompletion=complete_tenants,
    ),
]


@command(app, None, DESTROY, timeout_seconds=120.0)
def apply(
    session: Session,
    *,
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="YAML, or CSV of departments and projects; - is stdin.")
    ],
    notation: Annotated[Notation | None, typer.Option("--format", help="Absent: by the file's ending.")] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what is not in the file, in the sections that it has.")
    ] = False,
    tenant: Whose = None,
    department: OnlyDepartment = None,
) -> None:
    """Make a tenant what a file says; what it does not say stays, and --department confines it to one.

    `tollhouse export` writes such a file. A field that an entry does not have stays as it is; an empty one is cleared.
    """
    read = _read(session, file, notation, tenant)
    request = pb.ApplyTreeRequest(
        parent=read.tenant,
        scope=full_name(department, "departments", read.tenant) if department else "",
        tree=read.tree,
        prune=prune,
        prune_sections=[one for one in read.sections if one != pb.TREE_SECTION_TENANT] if prune else [],
    )
    stub: TreeServiceStub = session.connection.stub(TreeServiceStub)
    if session.options.dry_run or (prune and not session.options.yes):
        request.validate_only = True
        planned: pb.ApplyTreeResponse = session.connection.call(stub.ApplyTree, request)
        if session.options.dry_run:
            show_changes(session.options.output, planned, dry_run=True)
            return
        _agree(session, read.tenant, planned)
    request.validate_only = False
    request.request_id = session.options.request_id or str(uuid4())
    show_changes(session.options.output, session.connection.call(stub.ApplyTree, request), dry_run=False)


def _agree(session: Session, tenant: str, planned: pb.ApplyTreeResponse) -> None:
    """Let the person agree to what would be deleted, if anything would."""
    gone = deletions(planned)
    if not gone:
        return
    if session.options.output is Format.TABLE:
        show_changes(session.options.output, planned, dry_run=True)
    for name in gone[:_SHOWN_DELETIONS]:
        note(f"to be deleted: {name}")
    confirm(f"apply to {tenant}", f"{len(gone)} will be deleted.")


def _read(session: Session, file: str, notation: Notation | None, tenant: str | None) -> TreeFile:
    kind = notation or notation_of(file)
    if kind is None:
        raise wrong_usage(f"The notation of {file} is not plain from its name", "Say it with --format.")
    content = read_text(file)
    if kind is Notation.CSV:
        return read_csv(file, content, tenant=tenant_name(session, tenant))
    chosen = full_name(tenant, "tenants") if tenant else None
    try:
        return read_yaml(file, content, tenant=chosen)
    except RecursionError as error:
        raise wrong_usage(f"{file} is nested too deeply") from error
