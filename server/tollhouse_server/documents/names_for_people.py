"""What things are called in documents: a department by its name for people, the rest by the last part of its name."""

from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.documents.language import Language


def department_title(statement: Statement, name: str) -> str:
    """Return a department's name for people; it is asked for by resource name or id."""
    known = statement.department_names
    return known.get(name) or known.get(last_part(name)) or last_part(name)


def scope_title(statement: Statement, name: str) -> str:
    """Return what the scope of a limit is called: a department with its project, or the tenant."""
    parts = name.split("/")
    if len(parts) < 4:
        return statement.display_name if name == str(statement.scope) else last_part(name)
    department = department_title(statement, "/".join(parts[:4]))
    return " / ".join((department, *parts[5::2]))


def part_title(statement: Statement, dimension: str, key: str, language: Language) -> str:
    """Return what one value of a breakdown is called."""
    if not key:
        return language.say("none")
    if dimension == "department":
        return department_title(statement, key)
    return scope_title(statement, key) if dimension == "project" else last_part(key)


def last_part(name: str) -> str:
    """Return the id at the end of a resource name, or the text itself."""
    return name.rsplit("/", 1)[-1]
