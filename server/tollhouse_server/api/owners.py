"""Cost centres and owners, which departments and projects have alike."""

import re
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from tollhouse_server.names import PrincipalName, invalid
from tollhouse_server.tenancy.store import Narrowing

OWNED_FIELDS: Final = ("display_name", "cost_centre", "owner")

# No space at either end, and nothing that a spreadsheet takes for a formula at the beginning.
_COST_CENTRE: Final = re.compile(r"[^\W_](?:[\w .:/-]{0,62}[\w.:/-])?")


class Owned(Protocol):
    """A department or a project on the wire."""

    display_name: str
    cost_centre: str
    owner: str


class OwnedListRequest(Protocol):
    """A question for departments or projects."""

    show_deleted: bool
    cost_centre: str
    owner: str


def checked_cost_centre(text: str, field: str) -> str:
    """Return a cost centre as it may be written, or nothing for nothing.

    Raises:
        InvalidRequest: it may not be written so.
    """
    if text and not _COST_CENTRE.fullmatch(text):
        raise invalid(field, "must be up to 64 letters, digits, spaces and ._:/-, and begin with a letter or digit")
    return text


def owner_of(text: str, tenant: str, field: str) -> str | None:
    """Return the id of an owner given by name, None for nobody.

    Raises:
        InvalidRequest: it is not the name of a principal of `tenant`.
    """
    if not text:
        return None
    name = PrincipalName.parse(text, field)
    if name.tenant != tenant:
        raise invalid(field, "must be of the same tenant")
    return name.principal


def owned_values(resource: Owned, fields: Collection[str], tenant: str, path: str) -> dict[str, object]:
    """Return the columns that change when `fields` become those of `resource`, which the request has at `path`.

    Raises:
        InvalidRequest: a value may not be written so.
    """
    values: dict[str, object] = {}
    if "display_name" in fields:
        values["display_name"] = resource.display_name
    if "cost_centre" in fields:
        values["cost_centre"] = checked_cost_centre(resource.cost_centre, f"{path}.cost_centre")
    if "owner" in fields:
        values["owner_id"] = owner_of(resource.owner, tenant, f"{path}.owner")
    return values


def new_owner(values: Mapping[str, object]) -> str | None:
    """Return the owner among columns that change, None if it does not change or goes."""
    owner = values.get("owner_id")
    return None if owner is None else str(owner)


def owner_name(tenant: str, owner: str | None) -> str:
    """Return an owner's resource name; the empty string for nobody."""
    return "" if owner is None else str(PrincipalName(tenant, owner))


def narrowing(request: OwnedListRequest, state: str) -> Narrowing:
    """Return what a question for departments or projects is about; `state` is its state by the enum's name.

    Raises:
        InvalidRequest: the owner is not the name of a principal.
    """
    return Narrowing(
        show_deleted=request.show_deleted,
        state=state_wanted(state),
        cost_centre=request.cost_centre or None,
        owner=PrincipalName.parse(request.owner, "owner").principal if request.owner else None,
    )


def state_wanted(state: str) -> str | None:
    """Return a state as rows have it from the name of its enum value; None for the unspecified one."""
    wanted = state.removeprefix("STATE_")
    return None if wanted == "UNSPECIFIED" else wanted
