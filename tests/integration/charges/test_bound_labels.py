"""Bound labels: what an administrator binds is on every record, whatever the caller says."""

import pytest
from tollhouse.admin.v1 import bound_labels_pb2 as pb
from tollhouse.admin.v1 import departments_pb2
from tollhouse_server.chargeback.labels import LiveBoundLabels
from tollhouse_server.database.epochs import Topic
from tollhouse_server.errors import EtagMismatch, PermissionDenied, ResourceNotFound

from tests.integration.admin.plane import Plane

CRM = "tenants/acme/departments/emea/projects/crm"
NAME = f"{CRM}/boundLabels"


def bind(name: str = NAME, etag: str = "", **labels: str) -> pb.UpdateBoundLabelsRequest:
    """All labels of a holder."""
    return pb.UpdateBoundLabelsRequest(bound_labels=pb.BoundLabels(name=name, labels=labels, etag=etag))


async def key_of_crm(plane: Plane) -> tuple[str, str]:
    """A caller's key of project crm: its name, and its id."""
    secret = await plane.key("acme", "caller", ("caller", CRM), project=CRM)
    key_id = secret.split("_")[2]
    return f"{CRM}/apiKeys/{key_id}", key_id


async def test_a_key_goes_before_its_project_and_both_before_the_caller(plane: Plane) -> None:
    """Labels under other names are the caller's own; other projects and tenants have none of it."""
    await plane.tenant("acme")
    key, key_id = await key_of_crm(plane)
    live = LiveBoundLabels(plane.database)
    plane.watch.on_change(Topic.LABELS, live.reload)
    await plane.watch.refresh()
    free = {"cost_center": "forged", "product": "forged", "run": "7"}
    before = live.on(free, tenant="acme", project="crm", credential=key_id)

    await plane.call(bind(cost_center="4711", product="crm"))
    await plane.call(bind(f"{key}/boundLabels", product="crm-batch"))
    await plane.watch.refresh()

    assert before == free
    assert live.on(free, tenant="acme", project="crm", credential=key_id) == {
        "cost_center": "4711",
        "product": "crm-batch",
        "run": "7",
    }
    assert live.on({}, tenant="acme", project="crm", credential="other") == {"cost_center": "4711", "product": "crm"}
    assert live.on(free, tenant="bolt", project="crm", credential="other") == free


async def test_labels_stay_with_a_project_that_moves(plane: Plane) -> None:
    """They are bound to the project, and not to its name."""
    await plane.tenant("acme")
    await plane.call(bind(cost_center="4711"))

    await plane.call(
        departments_pb2.MergeDepartmentRequest(
            name="tenants/acme/departments/emea", into_department="tenants/acme/departments/sales"
        )
    )

    moved = "tenants/acme/departments/sales/projects/crm/boundLabels"
    assert dict((await plane.call(pb.GetBoundLabelsRequest(name=moved))).labels) == {"cost_center": "4711"}


async def test_labels_are_written_as_a_whole_and_not_on_an_old_reading(plane: Plane) -> None:
    """An empty set takes them away; what does not exist has none."""
    await plane.tenant("acme")
    read = await plane.call(pb.GetBoundLabelsRequest(name=NAME))
    first = await plane.call(bind(etag=read.etag, a="1", b="2"))

    with pytest.raises(EtagMismatch):
        await plane.call(bind(etag=read.etag, c="3"))
    cleared = await plane.call(bind(etag=first.etag))

    assert (dict(read.labels), dict(first.labels), dict(cleared.labels)) == ({}, {"a": "1", "b": "2"}, {})
    with pytest.raises(ResourceNotFound):
        await plane.call(bind("tenants/acme/departments/emea/projects/nothing/boundLabels", a="1"))


async def test_who_administers_a_department_does_not_say_whom_it_charges(plane: Plane) -> None:
    """He reads them; finance binds them."""
    await plane.tenant("acme")
    dan = await plane.key("acme", "dan", ("department-admin", "tenants/acme/departments/emea"))
    fay = await plane.key("acme", "fay", ("finance", "tenants/acme"))

    with pytest.raises(PermissionDenied):
        await plane.call(bind(cost_center="mine"), key=dan)
    await plane.call(bind(cost_center="4711"), key=fay)

    read = await plane.call(pb.GetBoundLabelsRequest(name=NAME), key=dan)
    assert dict(read.labels) == {"cost_center": "4711"}
