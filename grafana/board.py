"""A dashboard from its rows of questions, with what all of them have: variables, annotations, links to the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, VariableRefresh, VariableSort

from grafana.panels import SOURCE, Question, panel
from grafana.queries import increase, series

TAG: Final = "tollhouse"
_LOOKED_BACK: Final = "2m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """What a reader may choose on top of a board: the values that a label has in a metric."""

    name: str
    label: str
    metric: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A dashboard. `rows` map their titles to their questions."""

    uid: str
    title: str
    means: str
    rows: Sequence[tuple[str, Sequence[Question]]]
    variables: Sequence[Variable] = ()
    since: str = "now-6h"


ENVIRONMENT: Final = Variable(name="environment", label="Environment", metric="tollhouse_processes")
TENANT: Final = Variable(name="tenant", label="Tenant", metric="tollhouse_department_cost_dollars")
TIER: Final = Variable(name="tier", label="Tier", metric="tollhouse_tokens_total")


def build(board: Board) -> Dashboard:
    """Build the dashboard."""
    built = (
        Dashboard(f"Tollhouse: {board.title}")
        .uid(f"tollhouse-{board.uid}")
        .description(board.means)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time(board.since, "now")
        .timezone("browser")
        .link(_other_boards())
    )
    for variable in (ENVIRONMENT, *board.variables):
        built = built.with_variable(_variable(variable))
    for annotation in _annotations():
        built = built.annotation(annotation)
    for title, questions in board.rows:
        built = built.with_row(Row(title))
        for question in questions:
            built = built.with_panel(panel(question))
    return built


def _other_boards() -> DashboardLink:
    link = DashboardLink("Other boards").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(as_dropdown=True).include_vars(include_vars=True).keep_time(keep_time=True)


def _variable(variable: Variable) -> QueryVariable:
    chosen = series(variable.metric) if variable.name != ENVIRONMENT.name else variable.metric
    return (
        QueryVariable(variable.name)
        .label(variable.label)
        .datasource(SOURCE)
        .query(f"label_values({chosen}, {variable.name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
    )


def _annotations() -> list[AnnotationQuery]:
    """Return what is marked on every board: who looks at a line asks first what happened then."""
    marked = {
        "Deploys": ("blue", f"changes({series('tollhouse_start_timestamp_seconds')}[{_LOOKED_BACK}]) > 0"),
        "Rotations": ("purple", f"{increase('tollhouse_upstream_key_promotions_total', _LOOKED_BACK, 'account')} > 0"),
        "Breakers": (
            "orange",
            f"{increase('tollhouse_breaker_changes_total', _LOOKED_BACK, 'account, region, model, state')} > 0",
        ),
        "Closes": ("green", f"{increase('tollhouse_periods_closed_total', _LOOKED_BACK)} > 0"),
    }
    return [
        AnnotationQuery().name(name).datasource(SOURCE).enable(enable=True).icon_color(color).expr(expression)
        for name, (color, expression) in marked.items()
    ]
