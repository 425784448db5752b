"""The built-in roles as data: a name, what it is for, its permissions.

Separation of duties lives here: finance sees money and not one prompt, key-custodians touch upstream keys and nothing
else, callers call.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Role:
    """A named set of permissions."""

    name: str
    description: str
    permissions: frozenset[str]


def _on(noun: str, *verbs: str) -> frozenset[str]:
    return frozenset(f"{noun}.{verb}" for verb in verbs)


_READ: Final = ("get", "list")
_CHANGE: Final = ("create", "update", "delete")

READ_CONTENT: Final = _on("contents", *_READ)
"""What no administrator has: to read kept prompts and answers."""

LET_READ_CONTENT: Final = "contents.letRead"
"""Stands in for READ_CONTENT where it is given to another: whoever has this never holds the other himself."""

_LIMITS_READ = _on("limits", *_READ) | _on("limitIncreases", *_READ) | _on("limitAlerts", "list")
_TREE_READ = (
    _on("tenants", "get")
    | _on("trees", "export")
    | _on("departments", *_READ)
    | _on("projects", *_READ)
    | _on("routingPolicies", "get")
    | _on("dataPolicies", "get")
    | _on("contentPolicies", "get")
    | _on("devices", *_READ)
    | _LIMITS_READ
)
_PEOPLE_READ = (
    _on("principals", *_READ)
    | _on("apiKeys", *_READ)
    | _on("identityProviders", *_READ)
    | _on("clientIdentities", *_READ)
    | _on("roleGrants", *_READ)
)
_PEOPLE_READ |= _on("groups", *_READ) | _on("groupMembers", "list") | _on("roles", *_READ) | _on("access", "explain")
# What was found in calls, without the values.
_FOUND = _on("dataFindings", "list")
_MONEY_READ = (
    _on("usage", *_READ)
    | _on("usageReports", "get", "rerate", "forecast", "simulate")
    | _on("usageRecords", "list")
    | _on("statements", "get")
    | _on("periods", *_READ)
    | _on("adjustments", *_READ)
    | _on("suspense", *_READ)
    | _on("ledger", "verify")
)
_MONEY_READ |= (
    _on("chargeRules", *_READ)
    | _on("sharedCosts", *_READ)
    | _on("wallets", *_READ)
    | _on("displayCurrencies", "get")
    | _on("boundLabels", "get")
    | _on("freeLabels", "list")
    | _on("alternativeCosts", "list")
    | _on("deliverySchedules", *_READ)
    | _on("deliveries", *_READ)
    | _on("status", "get")
)
# What makes a charge from a cost. Whom departments' admins charge is not theirs to say.
_CHARGES = (
    _on("chargeRules", "create", "end")
    | _on("sharedCosts", "create", "end")
    | _on("wallets", "create", "topUp")
    | _on("displayCurrencies", "update")
    | _on("alternativeCosts", "set", "record")
    | _on("boundLabels", "update")
    | _on("deliverySchedules", "create", "delete")
    | _on("deliveries", "retry")
)
# Google's bill is the platform's: in a role for tenants, no tenant's administrator could give that role any more.
_BILLS = (
    _on("billImports", *_READ, "add")
    | _on("billReconciliations", *_READ, "create")
    | _on("billVariances", *_READ, "accept")
    | _on("reconciliationPolicy", "get", "update")
    | _on("skuMaps", "get", "import")
    | _on("usageMetrics", "verify")
)
_AUDIT = _on("audit", "search", "export", "verify")
# Asking for more and giving it are apart; even who may do both cannot give it to himself.
_ASK_FOR_MORE = _on("limitIncreases", "request", "withdraw")
_GIVE_MORE = _on("limitIncreases", "approve", "reject", "revoke")
_CALL = _on("generation", "generate", "embed", "countTokens", "resolveRoute", "reportOnDeviceUsage") | _on(
    "usage", *_READ
)

# To enter a correction and to close the month that it is in are for two people; even who may do both cannot do both.
_CLOSE = _on("periods", "preview", "reopen", "close") | _on("adjustments", "create")

_TENANT = (
    _TREE_READ
    | _PEOPLE_READ
    | _MONEY_READ
    | _AUDIT
    | _CALL
    | _on("tenants", "update")
    | _on("departments", *_CHANGE, "move", "merge")
    | _on("trees", "apply")
    | _on("projects", *_CHANGE)
    | _on("principals", *_CHANGE, "disable", "enable")
    | _on("apiKeys", "create", "update", "revoke", "rotate")
    | _on("identityProviders", "update", "disable", "enable", "delete")
    | _on("clientIdentities", "delete")
    | _on("roleGrants", "create", "delete")
    | _on("roles", *_CHANGE)
    | _on("groups", *_CHANGE)
    | _on("groupMembers", "add", "remove")
    | _on("limits", *_CHANGE)
    | _on("devices", *_CHANGE, "revoke")
    | _on("routingPolicies", "update", "delete")
    | _on("dataPolicies", "update", "delete", "test")
    | _on("dataFindings", "list")
    # Says what is kept and deletes it, and reads none of it.
    | _on("contentPolicies", "update")
    | _on("contents", "delete", "letRead")
    | _on("suspense", "resolve")
    | _CLOSE
    | _CHARGES
    | _ASK_FOR_MORE
    | _GIVE_MORE
)
_AUDITOR = _TREE_READ | _PEOPLE_READ | _MONEY_READ | _AUDIT | _FOUND
_DEPARTMENT = (
    _TREE_READ
    | _MONEY_READ
    | _CALL
    | _on("departments", *_CHANGE)
    | _on("trees", "apply")
    | _on("projects", *_CHANGE)
    | _on("devices", *_CHANGE, "revoke")
    | _on("apiKeys", *_READ, "create", "update", "revoke", "rotate")
    | _ASK_FOR_MORE
)
_KEYS = (
    _on("accounts", *_READ, *_CHANGE, "disable", "enable")
    | _on("upstreamKeys", *_READ, "add", "disable", "enable", "delete", "rotate", "revoke")
    | _on("keyRotations", *_READ, "cancel")
    | _on("keyPolicies", "get", "update")
)
_TRAFFIC_READ = _on("targets", "list") | _on("breakers", "list")
_DIAGNOSE = _on("diagnosis", "get")
# One proposes and another approves, on the platform; even who may do both cannot approve what he proposed.
_PRICES = _on("prices", "draft") | _on("priceProposals", *_READ, "create", "approve", "reject", "withdraw")
_PLATFORM = (
    _TENANT
    | _PRICES
    | _KEYS
    | _TRAFFIC_READ
    | _DIAGNOSE
    | _on("breakers", "open", "close", "release")
    | _on("prices", "import")
    | _on("currencyRates", "add")
    | _on("tierTargets", "get", "set")
    # Before all others, other tenants' calls too: nobody gives himself that.
    | _on("routingPolicies", "grantPriority")
    | _on("models", *_READ, *_CHANGE)
    | _on("aliases", "get", *_CHANGE)
    | _on("catalogue", "get", "import")
    # Whose tokens and certificates lead to a tenant: who decides it for himself could draw others' calls to his own.
    | _on("identityProviders", "create")
    | _on("clientIdentities", "create")
    # Destroys a tenant's key, and with it all that was sealed under it.
    | _on("contents", "erase")
    | _on("tenants", "create", "list", "suspend", "resume", "delete", "undelete")
    | _on("usageExports", *_READ, "create", "download", "confirm", "drop")
    | _BILLS
)

ROLES: Final[Mapping[str, Role]] = MappingProxyType(
    {
        role.name: role
        for role in (
            Role("platform-admin", "Everything, on the platform.", _PLATFORM),
            Role("tenant-admin", "Everything inside one tenant.", _TENANT),
            Role(
                "department-admin",
                "The tree, projects, API keys and devices of a department and below; asks for increases of its limits.",
                _DEPARTMENT,
            ),
            Role(
                "limit-approver",
                "Decides on temporary increases of limits that others ask for; changes nothing else.",
                _TREE_READ | _GIVE_MORE,
            ),
            Role("caller", "Calls models and reads its own usage.", _CALL),
            Role(
                "finance",
                "Reads what was used and cost, says what is charged, closes months; sees no content.",
                _TREE_READ | _MONEY_READ | _CHARGES | _CLOSE | _on("suspense", "resolve"),
            ),
            Role("auditor", "Reads everything, changes nothing.", _AUDITOR),
            Role("key-custodian", "Keeps upstream accounts and keys; sees no tenant.", _KEYS | _TRAFFIC_READ),
            Role(
                "price-keeper",
                "On the platform: proposes prices, and decides on those that others propose.",
                _PRICES,
            ),
            Role(
                "reconciler",
                "On the platform: compares Google's bills with the ledger, and accepts what differs.",
                _BILLS,
            ),
            Role(
                "content-reader",
                "Reads kept prompts and answers, and nothing else; every reading is on the trail.",
                READ_CONTENT,
            ),
            Role("read-only", "Reads the tree, people, keys and grants; no money.", _TREE_READ | _PEOPLE_READ),
        )
    }
)

ALL_PERMISSIONS: Final = frozenset().union(*(role.permissions for role in ROLES.values()))

PLATFORM_ROLES: Final = frozenset({"platform-admin", "key-custodian", "price-keeper", "reconciler"})
"""Roles that allow nothing on a tenant that its own administrator could give."""

TENANT_PERMISSIONS: Final = frozenset().union(
    *(role.permissions for name, role in ROLES.items() if name not in PLATFORM_ROLES)
)
"""What is about a tenant, so that a tenant may make roles of it."""
