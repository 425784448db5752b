"""What Hypothesis may wish for in a company of the ledger: limits that some calls fit in, and calls of every size."""

from collections.abc import Callable
from typing import Any, TypeAlias

from hypothesis import strategies as st
from tollhouse_server.ledger.terms import Amounts, Metric, Mode, Scope, Shrunk

from tests.drivers.ledger_company import LimitWish

NANOS_PER_OUTPUT_TOKEN = 3

Place: TypeAlias = tuple[tuple[str, ...], str, str]
"""Where a call comes from: departments from root to leaf, project, credential."""

AMOUNTS = st.builds(
    Amounts,
    requests=st.just(1),
    input_tokens=st.integers(0, 60),
    output_tokens=st.integers(1, 60),
    images=st.integers(0, 3),
    cost_nanos=st.integers(0, 300),
)
PLACES = st.sampled_from(
    [
        (("research", "vision"), "labels", "k1"),
        (("research", "vision"), "labels", "k2"),
        (("research",), "drafts", "k3"),
        (("sales",), "crm", "k4"),
    ]
)
MODELS = st.sampled_from([("flash", "gemini-3.5-flash"), ("flash", "gemini-2.5-flash"), ("pro", "gemini-2.5-pro")])
SCOPES = st.sampled_from(
    [
        "",
        "/departments/research",
        "/departments/vision",
        "/departments/sales",
        "/departments/vision/projects/labels",
        "/departments/vision/projects/labels/apiKeys/k1",
    ]
)
SELECTORS = st.sampled_from(["", "", "tiers/flash", "models/gemini-2.5-flash"])
# Windows that do not end while a machine runs: the company's time zone is one where it is about noon.
WINDOWS = st.sampled_from(["DAY", "MONTH", "FISCAL_MONTH", "TOTAL", "ROLLING_10_MINUTES"])
_LIMIT_SIZES = {Metric.REQUESTS: 12, Metric.IMAGES: 12, Metric.CONCURRENCY: 4, Metric.COST: 1500}


@st.composite
def limit_wishes(draw: st.DrawFn) -> LimitWish:
    """A limit that some calls fit in and some do not."""
    metric, mode = draw(st.sampled_from(Metric)), draw(st.sampled_from(Mode))
    size = _LIMIT_SIZES.get(metric, 300)
    window = "TOTAL" if metric is Metric.CONCURRENCY else draw(WINDOWS)
    return LimitWish(
        scope=draw(SCOPES),
        metric=metric,
        window=window,
        mode=mode,
        selector=draw(SELECTORS),
        amount=draw(st.integers(0, size)),
        overshoot=draw(st.integers(0, size // 4)) if mode is Mode.ELASTIC else 0,
        thresholds=draw(st.sampled_from([(), (50,), (50, 80, 100), (90, 120)])),
    )


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """What `CallTerms` a call asks with, the tenant aside."""
    place, (tier, model) = draw(PLACES), draw(MODELS)
    return {"place": place, "tier": tier, "model": model, "ceiling": draw(AMOUNTS), "first": draw(st.booleans())}


def smaller(ceiling: Amounts) -> Callable[[int | None, int | None], Shrunk | None]:
    """Return how a call is made smaller: every output token less costs some nano-dollars less."""
    fixed_nanos = max(0, ceiling.cost_nanos - NANOS_PER_OUTPUT_TOKEN * ceiling.output_tokens)

    def shrink(cost_nanos: int | None, output_tokens: int | None) -> Shrunk | None:
        tokens = ceiling.output_tokens if output_tokens is None else min(ceiling.output_tokens, output_tokens)
        if cost_nanos is not None:
            tokens = min(tokens, (cost_nanos - fixed_nanos) // NANOS_PER_OUTPUT_TOKEN)
        if tokens < 1:
            return None
        cost = min(ceiling.cost_nanos, fixed_nanos + NANOS_PER_OUTPUT_TOKEN * tokens)
        return Shrunk(ceiling._replace(output_tokens=tokens, cost_nanos=cost), tokens)

    return shrink


def share_of(ceiling: Amounts, per_cent: int) -> Amounts:
    """Return a share of a ceiling; a call is one call, whatever it uses."""
    return Amounts(*(amount * per_cent // 100 for amount in ceiling))._replace(requests=ceiling.requests)


def scope_of(tenant: str, place: Place) -> Scope:
    """Return the scope of a company's call."""
    path, project, credential = place
    return Scope(
        tenant_id=tenant,
        department_path=path,
        project_id=project,
        credential_id=credential,
        credential_name=f"tenants/{tenant}/departments/{path[-1]}/projects/{project}/apiKeys/{credential}",
        principal_id="robot",
    )
