"""`tollhouse export`: a tenant as a file that `tollhouse apply` takes."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from tollhouse.admin.v1 import trees_pb2 as pb
from tollhouse.admin.v1.trees_pb2_grpc import TreeServiceStub

from tollhouse_admin.command import Session, command, single
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name
from tollhouse_admin.output import note
from tollhouse_admin.scopes import OnlyDepartment, Tenant, tenant_name
from tollhouse_admin.tree_csv import write_csv
from tollhouse_admin.tree_files import Notation, notation_of, write_text
from tollhouse_admin.tree_yaml import SECTIONS, write_yaml

app = single("Write a tenant as a file: departments, projects, people, roles, limits.")

_IN_CSV = (pb.TREE_SECTION_DEPARTMENTS, pb.TREE_SECTION_PROJECTS)


class Section(StrEnum):
    """A part of a file."""

    TENANT = "tenant"
    PRINCIPALS = "principals"
    GROUPS = "groups"
    ROLES = "roles"
    DEPARTMENTS = "departments"
    PROJECTS = "projects"
    ROLE_GRANTS = "role-grants"
    LIMITS = "limits"


@command(app, None, ("timeout", "profile", "verbose"), timeout_seconds=120.0)
def export(
    session: Session,
    *,
    tenant: Tenant = None,
    department: OnlyDepartment = None,
    section: Annotated[
        list[Section] | None, typer.Option(help="Only this section; can be given again. Absent: all that may be read.")
    ] = None,
    notation: Annotated[
        Notation | None, typer.Option("--format", help="csv has departments and projects alone. Absent: yaml.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Where to write it; absent: to stdout.")
    ] = None,
) -> None:
    """Write a tenant, or a department with what is below it, as a file that `tollhouse apply` takes."""
    parent = tenant_name(session, tenant)
    is_csv = (notation or (file and notation_of(str(file)))) is Notation.CSV
    if is_csv and section:
        raise wrong_usage("--section does not go with CSV", "It has departments and projects alone.")
    wanted = [SECTIONS[one.value.replace("-", "_")] for one in section or ()]
    request = pb.ExportTreeRequest(
        parent=parent,
        scope=full_name(department, "departments", parent) if department else "",
        sections=_IN_CSV if is_csv else wanted,
    )
    stub: TreeServiceStub = session.connection.stub(TreeServiceStub)
    answer: pb.ExportTreeResponse = session.connection.call(stub.ExportTree, request)
    text = write_csv(answer.tree) if is_csv else write_yaml(parent, answer.tree, list(answer.sections))
    if file is None:
        sys.stdout.write(text)
        return
    write_text(file, text)
    note(f"written to {file}")
