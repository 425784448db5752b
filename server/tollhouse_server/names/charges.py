"""Names of what is about money: prices, charges, statements, bills."""

from dataclasses import dataclass

from tollhouse_server.names.form import Name


@dataclass(frozen=True, slots=True)
class ChargeRuleName(Name):
    """A mark-up or discount of a tenant."""

    template = "tenants/{tenant}/chargeRules/{charge_rule}"
    tenant: str
    charge_rule: str


@dataclass(frozen=True, slots=True)
class PlatformChargeRuleName(Name):
    """A mark-up or discount of the platform."""

    template = "chargeRules/{charge_rule}"
    charge_rule: str


@dataclass(frozen=True, slots=True)
class SharedCostName(Name):
    """A cost that departments share."""

    template = "tenants/{tenant}/sharedCosts/{shared_cost}"
    tenant: str
    shared_cost: str


@dataclass(frozen=True, slots=True)
class DeliveryScheduleName(Name):
    """When and where to statements go out."""

    template = "tenants/{tenant}/deliverySchedules/{delivery_schedule}"
    tenant: str
    delivery_schedule: str


@dataclass(frozen=True, slots=True)
class DeliveryName(Name):
    """One statement on one way."""

    template = "tenants/{tenant}/deliveries/{delivery}"
    tenant: str
    delivery: str


@dataclass(frozen=True, slots=True)
class WalletName(Name):
    """Money paid in advance."""

    template = "tenants/{tenant}/wallets/{wallet}"
    tenant: str
    wallet: str


@dataclass(frozen=True, slots=True)
class AlternativeCostName(Name):
    """What a unit of work costs otherwise."""

    template = "tenants/{tenant}/alternativeCosts/{alternative_cost}"
    tenant: str
    alternative_cost: str


@dataclass(frozen=True, slots=True)
class DisplayCurrencyName(Name):
    """The currency in which a tenant reads amounts."""

    template = "tenants/{tenant}/displayCurrency"
    tenant: str


@dataclass(frozen=True, slots=True)
class PriceBookName(Name):
    """A version of the price book; `current` is the one in force."""

    template = "priceBooks/{version}"
    version: str


@dataclass(frozen=True, slots=True)
class PeriodName(Name):
    """A month of a tenant, as it is closed."""

    template = "tenants/{tenant}/periods/{month}"
    tenant: str
    month: str


@dataclass(frozen=True, slots=True)
class AdjustmentName(Name):
    """A credit or correction."""

    template = "tenants/{tenant}/adjustments/{adjustment}"
    tenant: str
    adjustment: str


@dataclass(frozen=True, slots=True)
class PriceProposalName(Name):
    """A price file that waits for a second person."""

    template = "priceProposals/{price_proposal}"
    price_proposal: str


@dataclass(frozen=True, slots=True)
class BillImportName(Name):
    """A file of Google's bill."""

    template = "billImports/{bill_import}"
    bill_import: str


@dataclass(frozen=True, slots=True)
class BillReconciliationName(Name):
    """A month of Google's bill beside the ledger."""

    template = "billReconciliations/{month}"
    month: str


@dataclass(frozen=True, slots=True)
class BillVarianceName(Name):
    """A line in which Google's bill is not what the ledger booked."""

    template = "billVariances/{bill_variance}"
    bill_variance: str
