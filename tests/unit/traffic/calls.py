"""Accounts, targets and calls for the tests of the traffic."""

from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.targets import Account, AccountLimit, Target
from tollhouse_server.traffic.terms import PlaceRequest
from tollhouse_server.upstream.protocol import UpstreamKind

MODEL = "gemini-2.5-flash"
FOREVER = 1e7


def account(*limits: AccountLimit, account_id: str = "acme") -> Account:
    """An account with limits."""
    return Account(
        account_id=account_id,
        kind=UpstreamKind.GEMINI_API,
        project=account_id,
        base_url="http://127.0.0.1:1",
        limits=limits,
    )


def target(account_id: str = "acme", *, model: str = MODEL, rank: int = 0, weight: int = 1) -> Target:
    """A target at an account."""
    return Target(
        kind=UpstreamKind.GEMINI_API,
        account_id=account_id,
        project=account_id,
        base_url="http://127.0.0.1:1",
        api_version="v1beta",
        model=model,
        region="",
        rank=rank,
        weight=weight,
    )


def request(
    *targets: Target,
    department: str = "sales",
    priority: Priority = Priority.DEFAULT,
    input_tokens: int = 10,
    images: int = 0,
    cost_nanos: int = 100,
    deadline: float = FOREVER,
    weight: float = 1.0,
    goes_first: bool = False,
) -> PlaceRequest:
    """A call that wants a place at one of `targets`, at the one account where there is none."""
    return PlaceRequest(
        targets=targets or (target(),),
        tenant_id="acme",
        department_id=department,
        priority=priority,
        input_tokens=input_tokens,
        images=images,
        cost_nanos=cost_nanos,
        deadline=deadline,
        weight=weight,
        goes_first=goes_first,
    )
