"""Departments and projects as CSV, as an HR or ERP system sends them: read strictly, written so that it reads back."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tollhouse.admin.v1 import trees_pb2 as pb

from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.tree_yaml import TreeFile

COLUMNS: Final = ("type", "id", "parent", "display_name", "cost_centre", "owner")
"""`parent` is the department above, or that of a project. A column that is not there leaves its field as it is."""

_NEEDED: Final = ("type", "id")
_SECTIONS: Final = (pb.TREE_SECTION_DEPARTMENTS, pb.TREE_SECTION_PROJECTS)


def read_csv(file: str, content: str, *, tenant: str) -> TreeFile:
    """Return what a CSV file says.

    Raises:
        Failure: a column or a type is not known, or a row is too short or too long; with its line.
    """
    rows = csv.reader(io.StringIO(content.removeprefix("\ufeff"), newline=""), strict=True)
    tree, line = pb.Tree(), 1
    try:
        header = [title.strip() for title in next(rows, [])]
        _check_header(file, header)
        line = rows.line_num + 1
        for row in rows:
            if row:
                _add(tree, f"{file}, line {line}", header, row)
            line = rows.line_num + 1
    except csv.Error as error:
        raise wrong_usage(f"{file}, line {line}: is not CSV: {error}") from error
    return TreeFile(tenant=tenant, tree=tree, sections=list(_SECTIONS))


def _check_header(file: str, header: Sequence[str]) -> None:
    unknown = [title for title in header if title not in COLUMNS]
    missing = [title for title in _NEEDED if title not in header]
    if unknown:
        raise wrong_usage(f"{file}, line 1: column {unknown[0]!r} is not known; there are {', '.join(COLUMNS)}")
    if missing:
        raise wrong_usage(f"{file}, line 1: the column {missing[0]!r} is missing")
    if len(set(header)) != len(header):
        raise wrong_usage(f"{file}, line 1: a column is there twice")


def _add(tree: pb.Tree, place: str, header: Sequence[str], row: Sequence[str]) -> None:
    if len(row) != len(header):
        raise wrong_usage(f"{place}: has {len(row)} fields, and the header {len(header)}")
    said = dict(zip(header, row, strict=True))
    kind = said.pop("type")
    entry: Any
    if kind == "department":
        entry = tree.departments.add()
    elif kind == "project":
        entry = tree.projects.add()
        if "parent" in said:
            said["department"] = said.pop("parent")
    else:
        raise wrong_usage(f"{place}: {kind!r} is neither 'department' nor 'project'")
    for name, value in said.items():
        setattr(entry, name, value)


def write_csv(tree: pb.Tree) -> str:
    """Return the departments and projects of a tree as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows(_rows(tree))
    return text.getvalue()


def _rows(tree: pb.Tree) -> Iterator[Sequence[str]]:
    for one in tree.departments:
        yield "department", one.id, one.parent, one.display_name, one.cost_centre, one.owner
    for project in tree.projects:
        yield "project", project.id, project.department, project.display_name, project.cost_centre, project.owner
