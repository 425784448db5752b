"""A request about a thing of tenant demo for every RPC, and where in the tree a permission for it must be held.

A new RPC has no row here: whoever adds it says what it takes, apart from the rule that the server goes by.
"""

from typing import Any, Final
from uuid import UUID

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tollhouse_server.api.permissions import rules

TENANT: Final = "tenants/demo"
DEPARTMENT: Final = f"{TENANT}/departments/research"
PROJECT: Final = f"{DEPARTMENT}/projects/assistant"

# What lists or creates is asked of the tenant, except by these.
_PARENTS: Final = {
    "ProjectService": DEPARTMENT,
    "ApiKeyService": PROJECT,
    "GenerationService": PROJECT,
    "UsageService": PROJECT,
    "OperationsService": DEPARTMENT,
    "ReceiptService": PROJECT,
}

NAMES: Final[dict[str, str]] = {
    "TenantService": TENANT,
    "DepartmentService": DEPARTMENT,
    "DepartmentService.GetDepartmentMove": f"{TENANT}/departmentMoves/m-1",
    "DepartmentService.CancelDepartmentMove": f"{TENANT}/departmentMoves/m-1",
    "ProjectService": PROJECT,
    "PrincipalService": f"{TENANT}/principals/assistant-service",
    "ApiKeyService": f"{PROJECT}/apiKeys/abcdefgh2345",
    "IdentityProviderService": f"{TENANT}/identityProviders/for-isolation",
    "IdentityProviderService.GetClientIdentity": f"{TENANT}/clientIdentities/for-isolation",
    "IdentityProviderService.DeleteClientIdentity": f"{TENANT}/clientIdentities/for-isolation",
    "RoleService": f"{TENANT}/roleGrants/for-isolation",
    "RoleService.GetRole": f"{TENANT}/roles/for-isolation",
    "RoleService.UpdateRole": f"{TENANT}/roles/for-isolation",
    "RoleService.DeleteRole": f"{TENANT}/roles/for-isolation",
    "GroupService": f"{TENANT}/groups/for-isolation",
    "ChargebackService": f"{TENANT}/periods/2026-10",
    "ChargebackService.GetAdjustment": f"{TENANT}/adjustments/for-isolation",
    "DeliveryService.GetDelivery": f"{TENANT}/deliveries/for-isolation",
    "DeliveryService.RetryDelivery": f"{TENANT}/deliveries/for-isolation",
    "DeliveryService": f"{TENANT}/deliverySchedules/for-isolation",
    "ChargeRuleService": f"{TENANT}/chargeRules/for-isolation",
    "SharedCostService": f"{TENANT}/sharedCosts/for-isolation",
    "WalletService": f"{TENANT}/wallets/for-isolation",
    "OutlookService": f"{TENANT}/alternativeCosts/for-isolation",
    "CurrencyService": f"{TENANT}/displayCurrency",
    "BoundLabelService": f"{PROJECT}/boundLabels",
    "ContentService": f"{TENANT}/contents/{UUID(int=0)}",
    "ContentService.GetContentPolicy": f"{TENANT}/contentPolicy",
    "ContentService.UpdateContentPolicy": f"{TENANT}/contentPolicy",
    "ContentService.EraseTenantContent": TENANT,
    "DataPolicyService": f"{DEPARTMENT}/dataPolicy",
    "LimitService": f"{TENANT}/limits/research-monthly-budget",
    "LimitIncreaseService": f"{TENANT}/limitIncreases/for-isolation",
    "DeviceService": f"{TENANT}/devices/for-isolation",
    "LedgerService": f"{TENANT}/suspense/{UUID(int=0)}",
    "RoutingPolicyService": f"{DEPARTMENT}/routingPolicy",
    "RoutingPolicyService.GetTierTargets": "tiers/flash",
    "RoutingPolicyService.SetTierTargets": "tiers/flash",
    "ModelService": "models/gemini-3.8-flash",
    "ModelService.GetAlias": "aliases/best",
    "ModelService.UpdateAlias": "aliases/best",
    "ModelService.DeleteAlias": "aliases/best",
    "AccountService": "accounts/main",
    "UpstreamKeyService": "accounts/main/upstreamKeys/one",
    "UpstreamKeyService.GetKeyRotation": "accounts/main/keyRotations/one",
    "UpstreamKeyService.CancelKeyRotation": "accounts/main/keyRotations/one",
    "UpstreamKeyService.GetKeyPolicy": "accounts/main/keyPolicy",
    "UpstreamKeyService.UpdateKeyPolicy": "accounts/main/keyPolicy",
    "UsageExportService": "usageExports/2026-10",
    "ReconciliationService": "billReconciliations/2026-10",
    "ReconciliationService.GetBillImport": f"billImports/{UUID(int=0)}",
    "ReconciliationService.GetBillVariance": f"billVariances/v-{0:024x}",
    "ReconciliationService.AcceptBillVariance": f"billVariances/v-{0:024x}",
    "PriceProposalService": "priceProposals/one",
}
"""Of each service, or of one of its RPCs, the name of a thing."""

_ONE_OF_EACH: Final = ("Policy", "boundLabels", "displayCurrency")
"""How the last parts of names end of which each tenant, department or project has one."""

_ROWS: Final = {
    "platform": """
        AccountService: CreateAccount DeleteAccount DisableAccount EnableAccount GetAccount ListAccounts
            UpdateAccount
        CurrencyService: AddCurrencyRate
        OperationsService: GetDiagnosis
        ModelService: CreateAlias CreateModel DeleteAlias DeleteModel GetAlias GetCatalogueFile GetModel
            ImportCatalogue ListModels UpdateAlias UpdateModel
        PriceProposalService: ApprovePriceProposal GetPriceProposal ListPriceProposals ProposePrices
            RejectPriceProposal WithdrawPriceProposal
        PriceService: GetPriceDraft ImportPrices
        ReconciliationService: AcceptBillVariance GetBillImport GetBillReconciliation GetBillVariance
            GetReconciliationPolicy GetSkuMap ImportBill ImportSkuMap ListBillImports ListBillReconciliations
            ListBillVariances ReconcileBill UpdateReconciliationPolicy VerifyUsageMetrics
        RoutingPolicyService: GetTierTargets SetTierTargets
        TenantService: CreateTenant ListTenants
        TrafficService: CloseBreaker ListBreakerOrders ListBreakers ListTargets OpenBreaker ReleaseBreaker
        UpstreamKeyService: AddUpstreamKey CancelKeyRotation DeleteUpstreamKey DisableUpstreamKey
            EnableUpstreamKey GetKeyPolicy GetKeyRotation GetUpstreamKey ListKeyRotations ListUpstreamKeys
            RevokeUpstreamKey RotateUpstreamKey UpdateKeyPolicy
        UsageExportService: ConfirmUsageExport CreateUsageExport DropUsageExportRecords GetUsageExport
            ListUsageExportLines ListUsageExports
    """,
    "tenant": """
        AuditService: ExportAuditEvents ListAuditCheckpoints SearchAuditEvents TailAuditEvents
            VerifyAuditTrail
        BoundLabelService: ListFreeLabels
        ChargeRuleService: CreateChargeRule EndChargeRule GetChargeRule ListChargeRules
        ChargebackService: ClosePeriod CreateAdjustment ExportStatement ExportStatementRecords GetAdjustment
            GetPeriod GetStatement ListAdjustments ListPeriods ListSeals PreviewPeriod ReopenPeriod
        ContentService: DeleteContent DeleteContents EraseTenantContent GetContentPolicy ListContents
            UpdateContentPolicy
        CurrencyService: GetDisplayCurrency UpdateDisplayCurrency
        DataPolicyService: ListDataFindings
        DeliveryService: CreateDeliverySchedule DeleteDeliverySchedule GetDelivery GetDeliverySchedule
            ListDeliveries ListDeliverySchedules RetryDelivery
        DepartmentService: CancelDepartmentMove GetDepartmentMove MergeDepartment MoveDepartment
        GroupService: AddGroupMembers CreateGroup DeleteGroup GetGroup ListGroupMembers ListGroups
            RemoveGroupMembers UpdateGroup
        IdentityProviderService: CreateClientIdentity CreateIdentityProvider DeleteClientIdentity
            DeleteIdentityProvider DisableIdentityProvider EnableIdentityProvider GetClientIdentity
            GetIdentityProvider ListClientIdentities ListIdentityProviders UpdateIdentityProvider
        LedgerService: GetSuspense ListSuspense ResolveSuspense VerifyLedger
        LimitService: CreateLimit DeleteLimit GetLimit UpdateLimit
        PrincipalService: CreatePrincipal DeletePrincipal DisablePrincipal EnablePrincipal GetPrincipal
            ListPrincipals UpdatePrincipal
        RoleService: CreateRole DeleteRole DeleteRoleGrant GetRole GetRoleGrant ListRoleGrants UpdateRole
        SharedCostService: CreateSharedCost EndSharedCost GetSharedCost ListSharedCosts
        TenantService: DeleteTenant GetTenant ResumeTenant SuspendTenant UndeleteTenant UpdateTenant
        OutlookService: GetForecast ListAlternativeCosts RecordUnits SetAlternativeCost SimulateMonth
        RerateService: GetRerateReport
        UsageReportService: GetMonthReport ListUsageRecords
        WalletService: CreateWallet GetWallet ListWalletTopUps ListWallets TopUpWallet
    """,
    "node": """
        ApiKeyService: CreateApiKey GetApiKey ListApiKeys RevokeApiKey RotateApiKey UpdateApiKey
        BoundLabelService: GetBoundLabels UpdateBoundLabels
        ContentService: GetContent
        DataPolicyService: DeleteDataPolicy GetDataPolicy TestDataPolicy UpdateDataPolicy
        DepartmentService: CreateDepartment DeleteDepartment GetDepartment ListDepartmentMoves ListDepartments
            UpdateDepartment
        DeviceService: CreateDevice DeleteDevice GetDevice ListDevices RevokeDevice UpdateDevice
        GenerationService: CountTokens EmbedContent GenerateContent ReportOnDeviceUsage ResolveRoute
            StreamGenerateContent
        LimitAlertService: ListLimitAlerts
        LimitIncreaseService: ApproveLimitIncrease GetLimitIncrease ListLimitIncreases RejectLimitIncrease
            RequestLimitIncrease RevokeLimitIncrease WithdrawLimitIncrease
        LimitService: ListLimits
        OperationsService: GetStatus
        ProjectService: CreateProject DeleteProject GetProject ListProjects UpdateProject
        ReceiptService: GetCallReceipt SignReceipts
        RoleService: CreateRoleGrant
        RoutingPolicyService: DeleteRoutingPolicy GetRoutingPolicy UpdateRoutingPolicy
        TreeService: ApplyTree ExportTree
        UsageService: GetReceipt GetUsageSummary ListLimits ListUsageRecords
    """,
    "everyone": """
        AccessService: ExplainAccess ListAccess
        AuditService: GetAuditKeys
        CatalogService: GetModel GetTier ListModels ListTiers
        ChargebackService: GetStatementKeys
        CurrencyService: ListCurrencyRates
        DataPolicyService: ListDataDetectors
        OperationsService: GetSession
        PriceService: GetPriceBook ListPriceBooks ListPriceChanges ListPriceHistory ListPrices
        ReceiptService: GetReceiptKeys
        RoleService: ListRoles
    """,
}


def rows() -> dict[str, str]:
    """Return for each RPC, by service and method, where its permission must be held.

    `platform`: on the platform; `tenant`: on the whole tenant; `node`: on the department or project that the request
    names; `everyone`: nowhere.
    """
    found, service = {}, ""
    for place, text in _ROWS.items():
        for word in text.split():
            if word.endswith(":"):
                service = word[:-1]
            else:
                found[f"{service}.{word}"] = place
    return found


def short_name(rpc: str) -> str:
    """Return service and method."""
    return ".".join(rpc.split(".")[-2:])


def method_of(rpc: str) -> MethodDescriptor:
    """Return an RPC's descriptor; the proto must have been imported."""
    service, _, method = rpc.rpartition(".")
    return descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]


def request_about(rpc: str, names: dict[str, str], *, exists: bool = True) -> Message:
    """Build a request about a thing of tenant demo that is there, or about one that is not; `names` go before NAMES."""
    message: Any = GetMessageClass(method_of(rpc).input_type)()
    fields = rules()[rpc].fields
    for field in fields:
        name = _value_of(field, short_name(rpc), NAMES | names)
        *path, last = field.split(".")
        target = message
        for part in path:
            target = getattr(target, part)
        # Beside a narrower name the parent stays: names of two tenants in one request are another mistake.
        is_beside = field == "parent" and len(fields) > 1
        setattr(target, last, name if exists or is_beside else _absent(name))
    filled: Message = message
    return filled


def _value_of(field: str, rpc: str, names: dict[str, str]) -> str:
    service = rpc.partition(".")[0]
    if field.rsplit(".", maxsplit=1)[-1] == "name":
        return names.get(rpc) or names[service]
    if field == "parent":
        return "accounts/main" if service == "UpstreamKeyService" else _PARENTS.get(service, TENANT)
    return DEPARTMENT


def _absent(name: str) -> str:
    """Return a name of the same kind that nothing bears."""
    thing, _, last = name.rpartition("/")
    if last.endswith(_ONE_OF_EACH):
        return f"{_absent(thing)}/{last}"
    return "tenants/ghost" if name == TENANT else f"{thing}/{'z' * 12}"
