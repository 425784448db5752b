"""The bound on free labels: callers bring values of their own, and not without end."""

from collections.abc import Callable
from datetime import date

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tollhouse.admin.v1 import bound_labels_pb2 as pb
from tollhouse_server.chargeback.label_bounds import LabelBounds, month_now
from tollhouse_server.database.engine import Database
from tollhouse_server.telemetry.metrics import Metrics

from tests.integration.admin.plane import Plane

JUNE, JULY = date(2026, 6, 1), date(2026, 7, 1)


class Process:
    """What one worker does with labels; `beyond` are the calls that it has counted."""

    def __init__(self, database: Database, *, most_values: int = 3, month: Callable[[], date] = lambda: JUNE) -> None:
        self._registry = CollectorRegistry()
        self.bounds = LabelBounds(database, Metrics(self._registry), most_values=most_values, month=month)

    async def booked(self, tenant: str = "acme", **free: str) -> dict[str, str]:
        """Return the labels that a call is booked with."""
        return dict(await self.bounds.bounded(free, tenant=tenant))

    @property
    def beyond(self) -> float | None:
        """Return how many calls were booked under `other`."""
        return self._registry.get_sample_value("tollhouse_label_values_beyond_total")


async def test_values_beyond_the_bound_are_booked_under_other(plane: Plane) -> None:
    """Those seen before stay what they are, in every process and after a restart; the call goes on with all labels."""
    await plane.tenant("acme")
    process, another = Process(plane.database), Process(plane.database)

    first = await process.booked(run="1", team="a")
    second = [await another.booked(run=run, team="b") for run in ("2", "3")]
    again = [await one.booked(run="1", team="a") for one in (process, another, Process(plane.database))]

    assert first == {"run": "1", "team": "a"}
    assert second == [{"run": "2", "team": "other"}, {"run": "other", "team": "other"}]
    assert again == [first] * 3
    assert await process.booked(run="2", team="other") == {"run": "2", "team": "other"}
    assert (process.beyond, another.beyond) == (0, 2)


async def test_each_tenant_and_month_has_room_of_its_own(plane: Plane) -> None:
    """What one tenant's callers bring takes nothing from another's, and nothing from the month after."""
    await plane.tenant("acme")
    await plane.tenant("bolt")
    month = [JUNE]
    process = Process(plane.database, most_values=1, month=lambda: month[0])

    await process.booked(run="1")
    full, other_tenant = await process.booked(run="2"), await process.booked("bolt", run="2")
    month[0] = JULY
    next_month = await process.booked(run="2")

    assert [full, other_tenant, next_month] == [{"run": "other"}, {"run": "2"}, {"run": "2"}]


async def test_a_full_month_asks_the_database_no_more(plane: Plane) -> None:
    """A caller with a new value on every call costs nothing."""
    await plane.tenant("acme")
    process = Process(plane.database, most_values=1)
    await process.booked(run="1")
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    event.listen(Engine, "before_cursor_execute", count)

    assert [await process.booked(run=run) for run in ("1", "2")] == [{"run": "1"}, {"run": "other"}]
    event.remove(Engine, "before_cursor_execute", count)
    assert statements == 0


@pytest.mark.parametrize("most", [1, 5])
async def test_who_reads_costs_sees_labels_and_whether_there_is_room(plane: Plane, most: int) -> None:
    """By label, with the values of all together and the bound."""
    await plane.tenant("acme")
    process = Process(plane.database, most_values=most, month=month_now)
    for run in ("1", "2"):
        await process.booked(run=run)
    await process.booked(team="a")
    fay = await plane.key("acme", "fay", ("finance", "tenants/acme"))

    answer = await plane.call(pb.ListFreeLabelsRequest(parent="tenants/acme"), key=fay)
    before = await plane.call(pb.ListFreeLabelsRequest(parent="tenants/acme", month="2020-01"), key=fay)

    found = {one.label: one.value_count for one in answer.free_labels}
    assert found == ({"run": 1} if most == 1 else {"run": 2, "team": 1})
    assert (answer.value_count, answer.most_values) == (min(most, 3), 1000)
    assert (before.value_count, len(before.free_labels)) == (0, 0)
