"""What the commands about accounts take: kinds of upstream, environments, and limits in the notation of one option."""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer
from tollhouse.admin.v1 import accounts_pb2 as pb
from tollhouse.admin.v1 import limits_pb2
from tollhouse.admin.v1.accounts_pb2_grpc import AccountServiceStub

from tollhouse_admin.amounts import dollars_of, dollars_text, money_of, parse_count, parse_dollars
from tollhouse_admin.completion import offered
from tollhouse_admin.connection import Connection
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name
from tollhouse_admin.rendering import enum_number, enum_text
from tollhouse_admin.scopes import OFFERED, complete_tenants


class Upstream(StrEnum):
    """What is behind an account."""

    GEMINI_API = "gemini-api"
    VERTEX = "vertex"
    OPENAI_COMPATIBLE = "openai-compatible"


class Environment(StrEnum):
    """Whose calls an account is for."""

    LIVE = "live"
    TEST = "test"
    DEVELOPMENT = "development"
    STAGING = "staging"
    ALL = "all"


class LimitMetric(StrEnum):
    """What a limit of an account counts."""

    REQUESTS_PER_MINUTE = "requests-per-minute"
    INPUT_TOKENS_PER_MINUTE = "input-tokens-per-minute"
    REQUESTS_PER_DAY = "requests-per-day"
    IMAGES_PER_MINUTE = "images-per-minute"
    SPEND_PER_10_MINUTES = "spend-per-10-minutes"
    CONCURRENT_CALLS = "concurrent-calls"


_LIMIT = re.compile(r"(?:(?P<model>[^=:]+):)?(?P<metric>[^=:]+)=(?P<amount>.+)")
_METRICS = tuple(metric.value for metric in LimitMetric)

UpstreamKind = Annotated[Upstream | None, typer.Option("--upstream", help="What is behind it; absent: gemini-api.")]
GoogleProject = Annotated[
    str | None, typer.Option(metavar="ID", help="Id of the Google Cloud project; Vertex AI needs one.")
]
Address = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="NAME", help="Upstream address, by its name in the server's settings."),
]
Region = Annotated[
    str | None, typer.Option(metavar="REGION", help="Region, where the endpoint has one; Vertex AI needs one.")
]
Egress = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Proxy to leave through, by its name in the server's settings; '' for none."),
]


def complete_accounts(context: typer.Context, incomplete: str) -> list[str]:
    """Offer the ids of accounts."""

    def entries(connection: Connection) -> Iterator[str]:
        stub = connection.stub(AccountServiceStub)
        for account in connection.pages(stub.ListAccounts, pb.ListAccountsRequest(), "accounts", limit=OFFERED):
            yield account.name

    return offered(incomplete, entries, profile=context.params.get("profile"))


OwnTenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        metavar="ID",
        help="The tenant for whom alone it is; '' for all.",
        autocompletion=complete_tenants,
    ),
]
OwnEnvironment = Annotated[
    Environment | None, typer.Option("--environment", help="The API keys for whose calls alone it is.")
]


def _complete_limits(incomplete: str) -> list[str]:
    """Offer the metrics, for all models or behind the model that was typed."""
    model, colon, _ = incomplete.rpartition(":")
    offers = [f"{model}{colon}{metric}=" for metric in _METRICS]
    return [offer for offer in offers if offer.startswith(incomplete)]


Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="[MODEL:]METRIC=AMOUNT",
        help="A quota that the upstream sets it, such as requests-per-minute=600, spend-per-10-minutes=$50 or "
        f"gemini-3.8-flash:input-tokens-per-minute=1M. Metrics: {', '.join(_METRICS)}. Repeatable.",
        autocompletion=_complete_limits,
    ),
]


def limits_of(texts: list[str]) -> list[pb.AccountLimit]:
    """Return limits as they were typed.

    Raises:
        Failure: one is not of the form [MODEL:]METRIC=AMOUNT.
    """
    return [_limit_of(text) for text in texts]


def _limit_of(text: str) -> pb.AccountLimit:
    match = _LIMIT.fullmatch(text.strip())
    if match is None:
        raise wrong_usage(f"{text!r} is not a limit", "Write it like requests-per-minute=600 or MODEL:METRIC=AMOUNT.")
    if match["metric"] not in _METRICS:
        raise wrong_usage(f"{match['metric']!r} is not a metric of accounts", f"Take one of {', '.join(_METRICS)}.")
    metric = pb.AccountLimit.Metric.ValueType(enum_number(pb.AccountLimit.Metric.DESCRIPTOR, match["metric"]))
    if metric == pb.AccountLimit.METRIC_SPEND_PER_10_MINUTES:
        amount = limits_pb2.LimitAmount(money=money_of(parse_dollars(match["amount"])))
    else:
        amount = limits_pb2.LimitAmount(units=parse_count(match["amount"]))
    return pb.AccountLimit(metric=metric, amount=amount, model=(match["model"] or "").removeprefix("models/"))


def limits_text(account: pb.Account) -> str:
    """Return an account's limits as they are typed."""
    return ", ".join(map(_limit_text, account.limits))


def _limit_text(limit: pb.AccountLimit) -> str:
    model = f"{limit.model}:" if limit.model else ""
    is_money = limit.amount.HasField("money")
    amount = f"${dollars_text(dollars_of(limit.amount.money))}" if is_money else str(limit.amount.units)
    return f"{model}{enum_text(pb.AccountLimit.Metric.DESCRIPTOR, limit.metric)}={amount}"


def tenant_of_account(typed: str) -> str:
    """Return the name of the tenant that an account is for, empty for all."""
    return full_name(typed, "tenants") if typed else ""


def upstream_of(upstream: Upstream | None) -> "pb.Account.Upstream.ValueType":
    """Return the number of a kind of upstream."""
    if upstream is None:
        return pb.Account.UPSTREAM_UNSPECIFIED
    return pb.Account.Upstream.ValueType(enum_number(pb.Account.Upstream.DESCRIPTOR, upstream.value))


def environment_of(environment: Environment) -> "pb.Account.Environment.ValueType":
    """Return the number of an environment."""
    if environment is Environment.ALL:
        return pb.Account.ENVIRONMENT_UNSPECIFIED
    return pb.Account.Environment.ValueType(enum_number(pb.Account.Environment.DESCRIPTOR, environment.value))
