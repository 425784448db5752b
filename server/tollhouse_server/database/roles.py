"""The roles of the database, and what a connection says when it opens.

The server logs in as APP, which may do nothing by itself: each connection takes one of the two roles that APP is a
member of, at its start. A pooler between must hand on these settings, or the server is refused everything.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OWNER: Final = "tollhouse_owner"
APP: Final = "tollhouse_app"
CONTROL: Final = "tollhouse_control"
LEDGER: Final = "tollhouse_ledger"

TENANT_SETTING: Final = "tollhouse.tenant"
"""Whose rows a connection sees and writes: a tenant's, or those of ALL_TENANTS. Without it there are none."""

ACTOR_SETTING: Final = "tollhouse.actor"
"""The tenant of whoever acts, in a transaction about another one: for what is kept of his requests."""

ALL_TENANTS: Final = "*"

OF_ALL_TENANTS: Final[Mapping[str, str]] = MappingProxyType({TENANT_SETTING: ALL_TENANTS})
"""What a connection of the owner says, who is bound by row security too."""

AS_CONTROL: Final[Mapping[str, str]] = MappingProxyType({"role": CONTROL, **OF_ALL_TENANTS})
AS_LEDGER: Final[Mapping[str, str]] = MappingProxyType({"role": LEDGER, **OF_ALL_TENANTS})
