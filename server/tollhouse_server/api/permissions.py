"""Every RPC, the permission it takes, and where in the request its scope is found. What is not listed is refused."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from google.protobuf.message import Message

from tollhouse_server.access.roles import LET_READ_CONTENT
from tollhouse_server.identity.principal import Principal
from tollhouse_server.names import PLATFORM, domain_of, invalid, scope_of

GRANT_PRIORITY: Final = "routingPolicies.grantPriority"
"""Needed besides for a routing policy that lets calls go before those of all other tenants."""

LIST_ROLES: Final = "roles.list"
"""Needed to see the roles that another tenant than one's own has made."""

EXPLAIN_ACCESS: Final = "access.explain"
"""Needed to ask what others may do."""

ASKED_BY_HANDLERS: Final = frozenset({GRANT_PRIORITY, LET_READ_CONTENT, LIST_ROLES, EXPLAIN_ACCESS})
"""Permissions that depend on what a request says, not on its RPC alone."""

_ADMIN = "tollhouse.admin.v1"
_CALLERS = "tollhouse.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one RPC takes. `permission` None admits every authenticated principal.

    The first of `fields` that is set names the resource, whose scope counts; with none set, it is the platform, or,
    if `own`, the credential's own project. With `of_tenant` the permission is needed on the whole tenant.
    """

    rpc: str
    permission: str | None
    fields: tuple[str, ...] = ()
    own: bool = False
    of_tenant: bool = False
    _readers: tuple[tuple[str, Callable[[Message], str]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_readers", tuple((path, attrgetter(path)) for path in self.fields))

    def scope(self, request: Message, principal: Principal) -> str:
        """Return the scope on which the permission is needed.

        Raises:
            InvalidRequest: a field is not a resource name, or two of them are of different tenants.
        """
        scopes = {path: scope_of(text, path) for path, read in self._readers if (text := read(request))}
        if not scopes:
            return principal.home if self.own else PLATFORM
        if len({domain_of(scope) for scope in scopes.values()}) > 1:
            raise invalid(next(iter(scopes)), "must belong to the tenant that the request names")
        scope = next(iter(scopes.values()))
        return "/".join(scope.split("/")[:2]) if self.of_tenant else scope


def permission_for(rpc: str) -> Rule:
    """Return the rule of an RPC, given as `/package.Service/Method` or `package.Service.Method`.

    Raises:
        KeyError: it is not listed; a test holds that every RPC is.
    """
    return rules()[rpc.lstrip("/").replace("/", ".")]


def rule_of_mutation(request: Message) -> Rule:
    """Return the rule of the administrative RPC that takes this kind of request."""
    return _by_request()[request.DESCRIPTOR.full_name]


@cache
def rules() -> Mapping[str, Rule]:
    """Return every rule by the RPC's full name."""
    return MappingProxyType({rule.rpc: rule for rule in _rules()})


@cache
def _by_request() -> Mapping[str, Rule]:
    # The request of administrative method M is always called MRequest.
    return {
        f"{_ADMIN}.{rule.rpc.rsplit('.', 1)[1]}Request": rule for rule in _rules() if rule.rpc.startswith(f"{_ADMIN}.")
    }


def _standard(service: str, noun: str, one: str, verbs: str, *, parent: str = "parent") -> Iterator[Rule]:
    """Yield the rules of a resource's standard methods: what changes or reads one takes its name, the rest a parent."""
    plural = noun[0].upper() + noun[1:]
    for verb in verbs.split():
        method = f"List{plural}" if verb == "list" else f"{verb.capitalize()}{one}"
        fields = _fields(verb, _snake(one), parent)
        yield Rule(rpc=f"{_ADMIN}.{service}.{method}", permission=f"{noun}.{verb}", fields=fields)


def _fields(verb: str, resource: str, parent: str) -> tuple[str, ...]:
    if verb in ("create", "add", "list"):
        return tuple(parent.split())
    return (f"{resource}.name",) if verb == "update" else ("name",)


def _snake(one: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in one).lstrip("_")


def _rules() -> Iterator[Rule]:
    yield from _standard(
        "TenantService", "tenants", "Tenant", "create get list update suspend resume delete undelete", parent=""
    )
    yield from _tree_rules()
    yield from _department_rules()
    yield from _standard("ProjectService", "projects", "Project", "create get list update delete")
    yield from _standard("PrincipalService", "principals", "Principal", "create get list update disable enable delete")
    yield from _standard("ApiKeyService", "apiKeys", "ApiKey", "create get list update revoke rotate")
    yield from _identity_rules()
    yield from _role_rules()
    yield from _content_rules()
    yield from _limit_rules()
    yield from _device_rules()
    yield from _platform_rules()
    yield from _routing_rules()
    yield from _data_rules()
    yield from _traffic_rules()
    yield from _usage_report_rules()
    yield from _reconciliation_rules()
    yield from _chargeback_rules()
    yield from _charge_rules()
    yield from _outlook_rules()
    yield from _delivery_rules()
    yield from _standard("LedgerService", "suspense", "Suspense", "list get resolve")
    yield Rule(rpc=f"{_ADMIN}.LedgerService.VerifyLedger", permission="ledger.verify", fields=("parent",))
    yield from _audit_rules()
    yield from _caller_rules()


def _department_rules() -> Iterator[Rule]:
    service = f"{_ADMIN}.DepartmentService"
    above = ("department.parent_department", "parent")
    yield Rule(rpc=f"{service}.CreateDepartment", permission="departments.create", fields=above)
    yield Rule(rpc=f"{service}.ListDepartments", permission="departments.list", fields=("root", "parent"))
    yield from _standard("DepartmentService", "departments", "Department", "get update delete")
    yield Rule(
        rpc=f"{service}.MoveDepartment",
        permission="departments.move",
        fields=("name", "parent_department"),
        of_tenant=True,
    )
    yield Rule(
        rpc=f"{service}.MergeDepartment",
        permission="departments.merge",
        fields=("name", "into_department"),
        of_tenant=True,
    )
    yield Rule(rpc=f"{service}.GetDepartmentMove", permission="departments.get", fields=("name",))
    yield Rule(rpc=f"{service}.ListDepartmentMoves", permission="departments.list", fields=("department", "parent"))
    yield Rule(rpc=f"{service}.CancelDepartmentMove", permission="departments.move", fields=("name",), of_tenant=True)


def _identity_rules() -> Iterator[Rule]:
    service = "IdentityProviderService"
    verbs = "create get list update disable enable delete"
    yield from _standard(service, "identityProviders", "IdentityProvider", verbs)
    yield from _standard(service, "clientIdentities", "ClientIdentity", "create get list delete")


def _tree_rules() -> Iterator[Rule]:
    # Whoever holds a permission on a part of the tree names it in `scope`; the handler holds the document to be there.
    for verb in ("export", "apply"):
        rpc = f"{_ADMIN}.TreeService.{verb.capitalize()}Tree"
        yield Rule(rpc=rpc, permission=f"trees.{verb}", fields=("scope", "parent"))


def _role_rules() -> Iterator[Rule]:
    service = f"{_ADMIN}.RoleService"
    yield Rule(rpc=f"{service}.ListRoles", permission=None)
    yield Rule(rpc=f"{service}.CreateRoleGrant", permission="roleGrants.create", fields=("role_grant.scope", "parent"))
    yield from _standard("RoleService", "roleGrants", "RoleGrant", "get list delete")
    yield from _standard("RoleService", "roles", "Role", "create get update delete")
    yield from _standard("GroupService", "groups", "Group", "create get list update delete")
    for verb in ("add", "remove", "list"):
        rpc = f"{_ADMIN}.GroupService.{verb.capitalize()}GroupMembers"
        yield Rule(rpc=rpc, permission=f"groupMembers.{verb}", fields=("name",))
    # About oneself everybody may ask; of others the handlers know whose tenant counts.
    yield Rule(rpc=f"{_ADMIN}.AccessService.ExplainAccess", permission=None)
    yield Rule(rpc=f"{_ADMIN}.AccessService.ListAccess", permission=None)


def _content_rules() -> Iterator[Rule]:
    service = f"{_ADMIN}.ContentService"
    yield from _standard("ContentService", "contentPolicies", "ContentPolicy", "get update")
    # Whoever holds the permission on a part of the tree names it in `scope`; the handler holds the call to be there.
    yield Rule(rpc=f"{service}.GetContent", permission="contents.get", fields=("scope", "name"))
    yield from _standard("ContentService", "contents", "Content", "list delete")
    yield Rule(rpc=f"{service}.DeleteContents", permission="contents.delete", fields=("parent",))
    yield Rule(rpc=f"{service}.EraseTenantContent", permission="contents.erase", fields=("name",))


def _limit_rules() -> Iterator[Rule]:
    yield from _standard("LimitService", "limits", "Limit", "create get update delete")
    yield Rule(rpc=f"{_ADMIN}.LimitService.ListLimits", permission="limits.list", fields=("scope", "parent"))
    alerts = f"{_ADMIN}.LimitAlertService.ListLimitAlerts"
    yield Rule(rpc=alerts, permission="limitAlerts.list", fields=("scope", "parent"))
    # Whoever holds a permission on a part of the tree names it in `scope`; the handler holds the limit to be there.
    for verb in ("request", "get", "list", "approve", "reject", "withdraw", "revoke"):
        method = "ListLimitIncreases" if verb == "list" else f"{verb.capitalize()}LimitIncrease"
        named = "parent" if verb in ("request", "list") else "name"
        rpc = f"{_ADMIN}.LimitIncreaseService.{method}"
        yield Rule(rpc=rpc, permission=f"limitIncreases.{verb}", fields=("scope", named))


def _device_rules() -> Iterator[Rule]:
    service = f"{_ADMIN}.DeviceService"
    above = ("device.project", "parent")
    yield Rule(rpc=f"{service}.CreateDevice", permission="devices.create", fields=above)
    yield Rule(rpc=f"{service}.ListDevices", permission="devices.list", fields=("scope", "parent"))
    yield Rule(rpc=f"{service}.UpdateDevice", permission="devices.update", fields=("scope", "device.name"))
    # Whoever holds a permission on a part of the tree names it in `scope`; the handler holds the device to be there.
    for verb in ("get", "revoke", "delete"):
        rpc = f"{service}.{verb.capitalize()}Device"
        yield Rule(rpc=rpc, permission=f"devices.{verb}", fields=("scope", "name"))


def _platform_rules() -> Iterator[Rule]:
    yield Rule(rpc=f"{_ADMIN}.PriceService.ImportPrices", permission="prices.import")
    # List prices are no secret: the catalogue shows them to every caller too.
    for method in ("ListPrices", "GetPriceBook", "ListPriceBooks", "ListPriceChanges", "ListPriceHistory"):
        yield Rule(rpc=f"{_ADMIN}.PriceService.{method}", permission=None)
    yield Rule(rpc=f"{_ADMIN}.PriceService.GetPriceDraft", permission="prices.draft")
    yield Rule(rpc=f"{_ADMIN}.PriceProposalService.ProposePrices", permission="priceProposals.create")
    verbs = "get list approve reject withdraw"
    yield from _standard("PriceProposalService", "priceProposals", "PriceProposal", verbs, parent="")
    yield from _standard(
        "AccountService", "accounts", "Account", "create get list update disable enable delete", parent=""
    )
    verbs = "add get list disable enable delete rotate revoke"
    yield from _standard("UpstreamKeyService", "upstreamKeys", "UpstreamKey", verbs)
    yield from _standard("UpstreamKeyService", "keyRotations", "KeyRotation", "get list cancel")
    yield from _standard("UpstreamKeyService", "keyPolicies", "KeyPolicy", "get update")
    yield from _export_rules()


def _routing_rules() -> Iterator[Rule]:
    yield from _standard("RoutingPolicyService", "routingPolicies", "RoutingPolicy", "get update delete")
    for verb in ("get", "set"):
        rpc = f"{_ADMIN}.RoutingPolicyService.{verb.capitalize()}TierTargets"
        yield Rule(rpc=rpc, permission=f"tierTargets.{verb}", fields=("name",))
    yield from _standard("ModelService", "models", "Model", "create get list update delete", parent="")
    yield from _standard("ModelService", "aliases", "Alias", "create get update delete", parent="")
    yield Rule(rpc=f"{_ADMIN}.ModelService.ImportCatalogue", permission="catalogue.import")
    yield Rule(rpc=f"{_ADMIN}.ModelService.GetCatalogueFile", permission="catalogue.get")


def _data_rules() -> Iterator[Rule]:
    yield from _standard("DataPolicyService", "dataPolicies", "DataPolicy", "get update delete")
    service = f"{_ADMIN}.DataPolicyService"
    yield Rule(rpc=f"{service}.TestDataPolicy", permission="dataPolicies.test", fields=("name",))
    yield Rule(rpc=f"{service}.ListDataFindings", permission="dataFindings.list", fields=("parent",))
    # What can be looked for is the same for all.
    yield Rule(rpc=f"{service}.ListDataDetectors", permission=None)


def _traffic_rules() -> Iterator[Rule]:
    operations, service = f"{_ADMIN}.OperationsService", f"{_ADMIN}.TrafficService"
    for method, permission in (("GetStatus", "status.get"), ("GetDiagnosis", "diagnosis.get"), ("GetSession", None)):
        yield Rule(rpc=f"{operations}.{method}", permission=permission, fields=("parent",) * (method == "GetStatus"))
    for method, noun in (("ListTargets", "targets"), ("ListBreakers", "breakers"), ("ListBreakerOrders", "breakers")):
        yield Rule(rpc=f"{service}.{method}", permission=f"{noun}.list")
    for verb in ("open", "close", "release"):
        yield Rule(rpc=f"{service}.{verb.capitalize()}Breaker", permission=f"breakers.{verb}")


def _audit_rules() -> Iterator[Rule]:
    # On the whole tenant: a trail is one chain, and a part of it proves nothing.
    methods = {
        "SearchAuditEvents": "search",
        "TailAuditEvents": "search",
        "ExportAuditEvents": "export",
        "VerifyAuditTrail": "verify",
        "ListAuditCheckpoints": "verify",
    }
    for method, verb in methods.items():
        rpc = f"{_ADMIN}.AuditService.{method}"
        yield Rule(rpc=rpc, permission=f"audit.{verb}", fields=("parent",), of_tenant=True)
    # What signatures are checked with is public.
    yield Rule(rpc=f"{_ADMIN}.AuditService.GetAuditKeys", permission=None)


def _export_rules() -> Iterator[Rule]:
    yield from _standard("UsageExportService", "usageExports", "UsageExport", "create get list confirm", parent="")
    service = f"{_ADMIN}.UsageExportService"
    yield Rule(rpc=f"{service}.ListUsageExportLines", permission="usageExports.download", fields=("name",))
    yield Rule(rpc=f"{service}.DropUsageExportRecords", permission="usageExports.drop", fields=("name",))


def _reconciliation_rules() -> Iterator[Rule]:
    """Yield the rules of Google's bill: all of it is the platform's."""
    for method, permission in {
        "ImportBill": "billImports.add",
        "GetBillImport": "billImports.get",
        "ListBillImports": "billImports.list",
        "ReconcileBill": "billReconciliations.create",
        "GetBillReconciliation": "billReconciliations.get",
        "ListBillReconciliations": "billReconciliations.list",
        "GetBillVariance": "billVariances.get",
        "ListBillVariances": "billVariances.list",
        "AcceptBillVariance": "billVariances.accept",
        "GetReconciliationPolicy": "reconciliationPolicy.get",
        "UpdateReconciliationPolicy": "reconciliationPolicy.update",
        "GetSkuMap": "skuMaps.get",
        "ImportSkuMap": "skuMaps.import",
        "VerifyUsageMetrics": "usageMetrics.verify",
    }.items():
        names_one = method in ("GetBillImport", "GetBillReconciliation", "GetBillVariance", "AcceptBillVariance")
        fields = ("name",) if names_one else ()
        yield Rule(rpc=f"{_ADMIN}.ReconciliationService.{method}", permission=permission, fields=fields)


def _usage_report_rules() -> Iterator[Rule]:
    service = f"{_ADMIN}.UsageReportService"
    yield Rule(rpc=f"{service}.GetMonthReport", permission="usageReports.get", fields=("parent",))
    yield Rule(rpc=f"{service}.ListUsageRecords", permission="usageRecords.list", fields=("parent",))
    rerate = f"{_ADMIN}.RerateService.GetRerateReport"
    yield Rule(rpc=rerate, permission="usageReports.rerate", fields=("parent",))


def _chargeback_rules() -> Iterator[Rule]:
    service = f"{_ADMIN}.ChargebackService"
    yield Rule(rpc=f"{service}.GetStatement", permission="statements.get", fields=("parent",))
    yield Rule(rpc=f"{service}.ExportStatement", permission="statements.get", fields=("parent",))
    yield Rule(rpc=f"{service}.ExportStatementRecords", permission="usageRecords.list", fields=("parent",))
    yield from _standard("ChargebackService", "periods", "Period", "get list preview reopen close")
    yield Rule(rpc=f"{service}.ListSeals", permission="periods.get", fields=("parent",))
    yield from _standard("ChargebackService", "adjustments", "Adjustment", "create get list")
    # What signatures are checked with is public.
    yield Rule(rpc=f"{service}.GetStatementKeys", permission=None)


def _delivery_rules() -> Iterator[Rule]:
    yield from _standard("DeliveryService", "deliverySchedules", "DeliverySchedule", "create get list delete")
    yield from _standard("DeliveryService", "deliveries", "Delivery", "get list retry")


def _outlook_rules() -> Iterator[Rule]:
    room = f"{_ADMIN}.OutlookService"
    yield Rule(rpc=f"{room}.GetForecast", permission="usageReports.forecast", fields=("parent",))
    yield Rule(rpc=f"{room}.SimulateMonth", permission="usageReports.simulate", fields=("parent",))
    yield from _standard("OutlookService", "alternativeCosts", "AlternativeCosts", "list")
    yield Rule(rpc=f"{room}.SetAlternativeCost", permission="alternativeCosts.set", fields=("alternative_cost.name",))
    yield Rule(rpc=f"{room}.RecordUnits", permission="alternativeCosts.record", fields=("name",))


def _charge_rules() -> Iterator[Rule]:
    yield from _standard("ChargeRuleService", "chargeRules", "ChargeRule", "create get list end")
    yield from _standard("SharedCostService", "sharedCosts", "SharedCost", "create get list end")
    yield from _standard("WalletService", "wallets", "Wallet", "create get list")
    for method, verb in (("TopUpWallet", "topUp"), ("ListWalletTopUps", "get")):
        yield Rule(rpc=f"{_ADMIN}.WalletService.{method}", permission=f"wallets.{verb}", fields=("name",))
    yield from _standard("CurrencyService", "displayCurrencies", "DisplayCurrency", "get update")
    yield Rule(rpc=f"{_ADMIN}.CurrencyService.AddCurrencyRate", permission="currencyRates.add")
    yield Rule(rpc=f"{_ADMIN}.CurrencyService.ListCurrencyRates", permission=None)  # Rates are published.
    yield from _standard("BoundLabelService", "boundLabels", "BoundLabels", "get update")
    yield from _standard("BoundLabelService", "freeLabels", "FreeLabels", "list")


def _caller_rules() -> Iterator[Rule]:
    own = (
        ("GenerationService.GenerateContent", "generation.generate"),
        ("GenerationService.StreamGenerateContent", "generation.generate"),
        ("GenerationService.CountTokens", "generation.countTokens"),
        ("GenerationService.EmbedContent", "generation.embed"),
        ("GenerationService.ResolveRoute", "generation.resolveRoute"),
        ("GenerationService.ReportOnDeviceUsage", "generation.reportOnDeviceUsage"),
        ("UsageService.GetUsageSummary", "usage.get"),
        ("UsageService.ListLimits", "usage.list"),
        ("UsageService.ListUsageRecords", "usage.list"),
        ("UsageService.GetReceipt", "usage.get"),
        ("ReceiptService.GetCallReceipt", "usage.get"),
        ("ReceiptService.SignReceipts", "usage.get"),
    )
    for method, permission in own:
        fields = ("call.parent", "parent") if method.endswith(".ResolveRoute") else ("parent",)
        yield Rule(rpc=f"{_CALLERS}.{method}", permission=permission, fields=fields, own=True)
    yield Rule(rpc=f"{_CALLERS}.ReceiptService.GetReceiptKeys", permission=None)  # They are public.
    for method in ("ListTiers", "GetTier", "ListModels", "GetModel"):
        yield Rule(rpc=f"{_CALLERS}.CatalogService.{method}", permission=None)
