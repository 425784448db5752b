"""What an administrator does over gRPC: departments, callers with their keys, limits, prices, reports."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import api_keys_pb2 as keys
from tollhouse.admin.v1 import api_keys_pb2_grpc as keys_grpc
from tollhouse.admin.v1 import departments_pb2 as departments
from tollhouse.admin.v1 import departments_pb2_grpc as departments_grpc
from tollhouse.admin.v1 import limits_pb2 as limits
from tollhouse.admin.v1 import limits_pb2_grpc as limits_grpc
from tollhouse.admin.v1 import prices_pb2 as prices
from tollhouse.admin.v1 import prices_pb2_grpc as prices_grpc
from tollhouse.admin.v1 import principals_pb2 as principals
from tollhouse.admin.v1 import principals_pb2_grpc as principals_grpc
from tollhouse.admin.v1 import projects_pb2 as projects
from tollhouse.admin.v1 import projects_pb2_grpc as projects_grpc
from tollhouse.admin.v1 import roles_pb2 as roles
from tollhouse.admin.v1 import roles_pb2_grpc as roles_grpc
from tollhouse.admin.v1 import usage_reports_pb2 as reports
from tollhouse.admin.v1 import usage_reports_pb2_grpc as reports_grpc

from tests.drivers.callers import bearer
from tests.drivers.stack import RunningStack

NANOS_PER_UNIT = 10**9
_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Administration:
    """An administrator's channel. Everything happens in one company."""

    channel: grpc.Channel
    key: str
    tenant: str = "tenants/demo"

    def add_department(self, department: str, *, parent: str = "") -> str:
        """Create a department with a project, a service account that may call models from it, and return its key.

        `parent` is the id of the department above it, empty where there is none.
        """
        metadata, tenant = bearer(self.key), self.tenant
        name = f"{tenant}/departments/{department}"
        project = f"{name}/projects/{department}"
        principal = f"{tenant}/principals/{department}"
        above = departments.Department(parent_department=f"{tenant}/departments/{parent}" if parent else "")
        departments_grpc.DepartmentServiceStub(self.channel).CreateDepartment(
            departments.CreateDepartmentRequest(parent=tenant, department_id=department, department=above),
            metadata=metadata,
        )
        projects_grpc.ProjectServiceStub(self.channel).CreateProject(
            projects.CreateProjectRequest(parent=name, project_id=department), metadata=metadata
        )
        service_account = principals.Principal(kind=principals.Principal.KIND_SERVICE_ACCOUNT)
        principals_grpc.PrincipalServiceStub(self.channel).CreatePrincipal(
            principals.CreatePrincipalRequest(parent=self.tenant, principal_id=department, principal=service_account),
            metadata=metadata,
        )
        grant = roles.RoleGrant(principal=principal, role="roles/caller", scope=project)
        roles_grpc.RoleServiceStub(self.channel).CreateRoleGrant(
            roles.CreateRoleGrantRequest(parent=self.tenant, role_grant=grant), metadata=metadata
        )
        answer = keys_grpc.ApiKeyServiceStub(self.channel).CreateApiKey(
            keys.CreateApiKeyRequest(parent=project, api_key=keys.ApiKey(principal=principal)), metadata=metadata
        )
        return str(answer.secret)

    def add_limit(
        self,
        limit_id: str,
        scope: str,
        metric: "limits.LimitMetric.ValueType",
        window: "limits.LimitWindow.ValueType",
        amount: limits.LimitAmount,
    ) -> limits.Limit:
        """Create a limit."""
        limit = limits.Limit(scope=scope, metric=metric, window=window, mode=limits.LIMIT_MODE_STRICT, amount=amount)
        created: limits.Limit = limits_grpc.LimitServiceStub(self.channel).CreateLimit(
            limits.CreateLimitRequest(parent=self.tenant, limit_id=limit_id, limit=limit), metadata=bearer(self.key)
        )
        return created

    def limit(self, name: str) -> limits.Limit:
        """Read a limit with its current counter."""
        found: limits.Limit = limits_grpc.LimitServiceStub(self.channel).GetLimit(
            limits.GetLimitRequest(name=name), metadata=bearer(self.key)
        )
        return found

    def import_prices(self, content: str) -> str:
        """Import a price file in TOML and return its version, as receipts name it."""
        request = prices.ImportPricesRequest(
            format=prices.PRICE_FILE_FORMAT_TOML,
            content=content,
            allowances=prices.PriceAllowances(allow_jumps=True, reason="a test"),
        )
        answer = prices_grpc.PriceServiceStub(self.channel).ImportPrices(request, metadata=bearer(self.key))
        return str(answer.price_book.version)

    def month_report(self, parent: str, *split: "reports.UsageDimension.ValueType") -> reports.MonthReport:
        """Read the report of the current month."""
        request = reports.GetMonthReportRequest(parent=parent, group_by=split)
        report: reports.MonthReport = reports_grpc.UsageReportServiceStub(self.channel).GetMonthReport(
            request, metadata=bearer(self.key), timeout=_SECONDS
        )
        return report


@contextmanager
def administration(stack: RunningStack) -> Iterator[Administration]:
    """Open a channel as the platform's administrator."""
    with grpc.insecure_channel(stack.grpc) as channel:
        yield Administration(channel, stack.admin_api_key)


def nanos_of(money: Money) -> int:
    """Return an amount of dollars in nano-dollars."""
    assert money.currency_code == "USD"
    return money.units * NANOS_PER_UNIT + money.nanos


def dollars(nanos: int) -> limits.LimitAmount:
    """Return nano-dollars as the amount of a limit."""
    units, rest = divmod(nanos, NANOS_PER_UNIT)
    return limits.LimitAmount(money=Money(currency_code="USD", units=units, nanos=rest))
