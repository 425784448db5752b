"""Every gRPC service with its parts: the list of what this server serves."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from types import ModuleType

from google.protobuf.descriptor import ServiceDescriptor
from tollhouse.admin.v1 import (
    access_pb2,
    accounts_pb2,
    api_keys_pb2,
    audit_pb2,
    bound_labels_pb2,
    charge_rules_pb2,
    chargeback_pb2,
    contents_pb2,
    currencies_pb2,
    data_policies_pb2,
    deliveries_pb2,
    departments_pb2,
    devices_pb2,
    groups_pb2,
    identity_providers_pb2,
    ledger_pb2,
    limit_alerts_pb2,
    limit_increases_pb2,
    limits_pb2,
    models_pb2,
    operations_pb2,
    outlook_pb2,
    prices_pb2,
    principals_pb2,
    projects_pb2,
    reconciliation_pb2,
    roles_pb2,
    routing_policies_pb2,
    shared_costs_pb2,
    tenants_pb2,
    traffic_pb2,
    trees_pb2,
    upstream_keys_pb2,
    usage_exports_pb2,
    usage_reports_pb2,
    wallets_pb2,
)
from tollhouse.v1 import catalog_pb2, generation_pb2, receipts_pb2, usage_pb2

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.api.chain import Method
from tollhouse_server.api.methods import methods_of
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.access_service import AccessService
from tollhouse_server.api.services.accounts_service import AccountService
from tollhouse_server.api.services.api_keys_service import ApiKeyService
from tollhouse_server.api.services.audit_service import AuditService
from tollhouse_server.api.services.bound_labels_service import BoundLabelService
from tollhouse_server.api.services.catalog_service import CatalogService
from tollhouse_server.api.services.charge_rules_service import ChargeRuleService
from tollhouse_server.api.services.chargeback_service import ChargebackService
from tollhouse_server.api.services.contents_service import ContentService
from tollhouse_server.api.services.currencies_service import CurrencyService
from tollhouse_server.api.services.data_policies_service import DataPolicyService
from tollhouse_server.api.services.deliveries_service import DeliveryService
from tollhouse_server.api.services.departments_service import DepartmentService
from tollhouse_server.api.services.devices_service import DeviceService
from tollhouse_server.api.services.generation_service import GenerationService
from tollhouse_server.api.services.groups_service import GroupService
from tollhouse_server.api.services.identity_providers_service import IdentityProviderService
from tollhouse_server.api.services.ledger_service import LedgerService
from tollhouse_server.api.services.limit_alerts_service import LimitAlertService
from tollhouse_server.api.services.limit_increases_service import LimitIncreaseService
from tollhouse_server.api.services.limits_service import LimitService
from tollhouse_server.api.services.models_service import ModelService
from tollhouse_server.api.services.on_device_service import OnDeviceService
from tollhouse_server.api.services.operations_service import OperationsService
from tollhouse_server.api.services.outlook_service import OutlookService
from tollhouse_server.api.services.price_proposals_service import PriceProposalService
from tollhouse_server.api.services.prices_service import PriceService
from tollhouse_server.api.services.principals_service import PrincipalService
from tollhouse_server.api.services.projects_service import ProjectService
from tollhouse_server.api.services.receipts_service import ReceiptService
from tollhouse_server.api.services.reconciliation_service import ReconciliationService
from tollhouse_server.api.services.rerate_service import RerateService
from tollhouse_server.api.services.roles_service import RoleService
from tollhouse_server.api.services.routes_service import RouteService
from tollhouse_server.api.services.routing_policies_service import RoutingPolicyService
from tollhouse_server.api.services.shared_costs_service import SharedCostService
from tollhouse_server.api.services.tenants_service import TenantService
from tollhouse_server.api.services.traffic_service import TrafficService
from tollhouse_server.api.services.trees_service import TreeService
from tollhouse_server.api.services.upstream_keys_service import UpstreamKeyService
from tollhouse_server.api.services.usage_exports_service import UsageExportService
from tollhouse_server.api.services.usage_reports_service import UsageReportService
from tollhouse_server.api.services.usage_service import UsageService
from tollhouse_server.api.services.wallets_service import WalletService
from tollhouse_server.api.witness import Witness
from tollhouse_server.chargeback.labels import LiveBoundLabels
from tollhouse_server.database.engine import Database
from tollhouse_server.devices.booking import OnDeviceBooks
from tollhouse_server.documents.ways import Ways
from tollhouse_server.ledger.verification import LedgerVerification
from tollhouse_server.operations.diagnosis import Diagnosis
from tollhouse_server.operations.status import LiveStatus
from tollhouse_server.pricing.book import LivePriceBook
from tollhouse_server.reporting.rollup_findings import rollup_findings
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.live import LiveCatalogue
from tollhouse_server.tenancy.project_paths import ProjectPaths
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.paths import RECEIPTS_KEY
from tollhouse_server.vault.signing import Purpose, SigningKey
from tollhouse_server.vault.tenant_keys import TenantKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """What services are built from."""

    database: Database
    mutations: Mutations
    pages: PageTokens
    authorizer: Authorizer
    catalogue: LiveCatalogue
    prices: LivePriceBook
    gateway: VaultClient
    custodian: VaultClient
    addresses: Addresses
    pepper: bytes
    data_policy_key: bytes
    generation: GenerationService
    project_paths: ProjectPaths
    labels: LiveBoundLabels
    ways: Ways
    output_cap_tokens: int
    keys: TenantKeys
    audit: AuditService
    witness: Witness
    diagnosis: Diagnosis
    oidc_issuers: Collection[str] = ()
    prices_need_second_person: bool = False
    most_label_values: int = 1000


def all_methods(parts: ServiceParts) -> list[Method]:
    """Return every RPC of every service with its handler."""
    return [method for descriptor, *handlers in _services(parts) for method in methods_of(descriptor, *handlers)]


def _services(parts: ServiceParts) -> list[tuple[ServiceDescriptor, *tuple[object, ...]]]:
    database, mutations, pages, authorizer = parts.database, parts.mutations, parts.pages, parts.authorizer
    return [
        (_descriptor(generation_pb2, "GenerationService"), parts.generation, _routes(parts), _on_device(parts)),
        (_descriptor(tenants_pb2, "TenantService"), TenantService(database, mutations, pages)),
        (_descriptor(departments_pb2, "DepartmentService"), DepartmentService(database, mutations, pages, authorizer)),
        (_descriptor(projects_pb2, "ProjectService"), ProjectService(database, mutations, pages)),
        *_people_services(parts),
        (
            _descriptor(contents_pb2, "ContentService"),
            ContentService(database, mutations, pages, keys=parts.keys, witness=parts.witness),
        ),
        (
            _descriptor(trees_pb2, "TreeService"),
            TreeService(database, mutations, authorizer, partial(tree_services, database, pages, authorizer)),
        ),
        (_descriptor(devices_pb2, "DeviceService"), DeviceService(database, mutations, pages)),
        (_descriptor(limits_pb2, "LimitService"), LimitService(database, mutations, pages)),
        (_descriptor(limit_increases_pb2, "LimitIncreaseService"), LimitIncreaseService(database, mutations, pages)),
        (_descriptor(limit_alerts_pb2, "LimitAlertService"), LimitAlertService(database, pages)),
        (
            _descriptor(ledger_pb2, "LedgerService"),
            LedgerService(database, mutations, pages, LedgerVerification(database, rollup_findings)),
        ),
        *_price_services(parts),
        (
            _descriptor(accounts_pb2, "AccountService"),
            AccountService(database, mutations, pages, parts.addresses),
        ),
        (
            _descriptor(upstream_keys_pb2, "UpstreamKeyService"),
            UpstreamKeyService(database, mutations, pages, parts.custodian),
        ),
        (_descriptor(models_pb2, "ModelService"), ModelService(database, mutations, pages)),
        (
            _descriptor(routing_policies_pb2, "RoutingPolicyService"),
            RoutingPolicyService(database, mutations, authorizer),
        ),
        (
            _descriptor(data_policies_pb2, "DataPolicyService"),
            DataPolicyService(database, mutations, pages, parts.data_policy_key),
        ),
        (
            _descriptor(traffic_pb2, "TrafficService"),
            TrafficService(database, mutations, pages, lambda: parts.catalogue.current),
        ),
        (
            _descriptor(operations_pb2, "OperationsService"),
            OperationsService(LiveStatus(database, lambda: parts.catalogue.current), parts.diagnosis),
        ),
        (
            _descriptor(reconciliation_pb2, "ReconciliationService"),
            ReconciliationService(database, mutations, pages),
        ),
        (_descriptor(usage_exports_pb2, "UsageExportService"), UsageExportService(database, mutations, pages)),
        (_descriptor(usage_reports_pb2, "UsageReportService"), UsageReportService(database, pages)),
        *_charge_services(parts),
        (_descriptor(outlook_pb2, "OutlookService"), OutlookService(database, mutations, pages)),
        (_descriptor(usage_pb2, "UsageService"), UsageService(database, pages)),
        (_descriptor(audit_pb2, "AuditService"), parts.audit),
        (_descriptor(receipts_pb2, "ReceiptService"), ReceiptService(database, _receipts_key(parts))),
        (
            _descriptor(catalog_pb2, "CatalogService"),
            CatalogService(lambda: parts.catalogue.current, lambda: parts.prices.current, pages),
        ),
    ]


def _people_services(parts: ServiceParts) -> list[tuple[ServiceDescriptor, *tuple[object, ...]]]:
    """Return what is about who may do what."""
    database, mutations, pages = parts.database, parts.mutations, parts.pages
    return [
        (
            _descriptor(principals_pb2, "PrincipalService"),
            PrincipalService(database, mutations, pages, parts.authorizer),
        ),
        (
            _descriptor(api_keys_pb2, "ApiKeyService"),
            ApiKeyService(database, mutations, pages, parts.authorizer, parts.pepper),
        ),
        (_descriptor(roles_pb2, "RoleService"), RoleService(database, mutations, pages, parts.authorizer)),
        (_descriptor(groups_pb2, "GroupService"), GroupService(database, mutations, pages, parts.authorizer)),
        (_descriptor(access_pb2, "AccessService"), AccessService(database, pages, parts.authorizer)),
        (
            _descriptor(identity_providers_pb2, "IdentityProviderService"),
            IdentityProviderService(database, mutations, pages, parts.authorizer, parts.oidc_issuers),
        ),
    ]


def _price_services(parts: ServiceParts) -> list[tuple[ServiceDescriptor, *tuple[object, ...]]]:
    database, mutations, pages = parts.database, parts.mutations, parts.pages
    return [
        (
            _descriptor(prices_pb2, "PriceService"),
            PriceService(database, mutations, pages, needs_second_person=parts.prices_need_second_person),
        ),
        (_descriptor(prices_pb2, "PriceProposalService"), PriceProposalService(database, mutations, pages)),
        (_descriptor(prices_pb2, "RerateService"), RerateService(database)),
    ]


def _charge_services(parts: ServiceParts) -> list[tuple[ServiceDescriptor, *tuple[object, ...]]]:
    """Return what makes a charge from a cost, states it and sends it out."""
    database, mutations, pages = parts.database, parts.mutations, parts.pages
    return [
        (
            _descriptor(chargeback_pb2, "ChargebackService"),
            ChargebackService(database, mutations, pages, _statements_key(parts)),
        ),
        (_descriptor(deliveries_pb2, "DeliveryService"), DeliveryService(database, mutations, pages, parts.ways)),
        (_descriptor(charge_rules_pb2, "ChargeRuleService"), ChargeRuleService(database, mutations, pages)),
        (_descriptor(shared_costs_pb2, "SharedCostService"), SharedCostService(database, mutations, pages)),
        (_descriptor(wallets_pb2, "WalletService"), WalletService(database, mutations, pages)),
        (_descriptor(currencies_pb2, "CurrencyService"), CurrencyService(database, mutations, pages)),
        (
            _descriptor(bound_labels_pb2, "BoundLabelService"),
            BoundLabelService(database, mutations, pages, most_values=parts.most_label_values),
        ),
    ]


def tree_services(
    database: Database, pages: PageTokens, authorizer: Authorizer, mutations: Mutations
) -> dict[str, object]:
    """Return the services whose acts make a tree, by their names, on what runs their changes."""
    return {
        "TenantService": TenantService(database, mutations, pages),
        "DepartmentService": DepartmentService(database, mutations, pages, authorizer),
        "ProjectService": ProjectService(database, mutations, pages),
        "PrincipalService": PrincipalService(database, mutations, pages, authorizer),
        "GroupService": GroupService(database, mutations, pages, authorizer),
        "RoleService": RoleService(database, mutations, pages, authorizer),
        "LimitService": LimitService(database, mutations, pages),
    }


def _routes(parts: ServiceParts) -> RouteService:
    return RouteService(
        catalogue=lambda: parts.catalogue.current,
        price_book=lambda: parts.prices.current,
        project_paths=parts.project_paths,
        output_cap_tokens=parts.output_cap_tokens,
        labels=parts.labels,
    )


def _on_device(parts: ServiceParts) -> OnDeviceService:
    return OnDeviceService(
        OnDeviceBooks(
            parts.database,
            catalogue=lambda: parts.catalogue.current,
            price_book=lambda: parts.prices.current,
            project_paths=parts.project_paths,
        ),
        parts.labels,
    )


def _receipts_key(parts: ServiceParts) -> SigningKey:
    return SigningKey(parts.gateway, RECEIPTS_KEY, purpose=Purpose.RECEIPTS)


def _statements_key(parts: ServiceParts) -> SigningKey:
    return SigningKey(parts.gateway, RECEIPTS_KEY, purpose=Purpose.STATEMENTS)


def _descriptor(module: ModuleType, name: str) -> ServiceDescriptor:
    found: ServiceDescriptor = module.DESCRIPTOR.services_by_name[name]
    return found
