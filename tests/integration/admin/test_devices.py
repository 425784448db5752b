"""Devices through the administration plane: registered by a key, in a part of the tree, revoked for good."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import text
from tollhouse.admin.v1 import departments_pb2, projects_pb2
from tollhouse.admin.v1 import devices_pb2 as pb
from tollhouse_server.errors import (
    DeviceKeyInUse,
    EtagMismatch,
    InvalidRequest,
    PermissionDenied,
    ResourceExists,
    ResourceNotFound,
)

from tests.drivers.devices import FieldDevice
from tests.integration.admin.plane import Plane

TENANT = "tenants/acme"
EMEA = f"{TENANT}/departments/emea"
CRM = f"{EMEA}/projects/crm"
PHONE = f"{TENANT}/devices/phone"


@pytest.fixture
async def company(plane: Plane) -> Plane:
    """Tenant acme: department sales, emea below it, project crm there."""
    await plane.tenant("acme")
    return plane


async def register(
    plane: Plane, name: str = "phone", *, key: str | None = None, project: str = CRM, **fields: Any
) -> pb.Device:
    request = pb.CreateDeviceRequest(parent=TENANT, device_id=name, validate_only=fields.pop("validate_only", False))
    device = {"project": project, "public_key": FieldDevice(name).public_key} | fields
    request.device.CopyFrom(pb.Device(**device))
    registered: pb.Device = await plane.call(request, key=key)
    return registered


def pem(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


async def test_a_key_may_come_raw_or_in_pem_and_is_shown_by_its_fingerprint(company: Plane) -> None:
    """The same key has the same fingerprint, whichever way it comes; the key itself is not given back."""
    raw = FieldDevice("phone").public_key

    device = await register(company, public_key=raw, display_name="Phone")

    assert device.name == PHONE
    assert (device.project, device.display_name, device.state) == (CRM, "Phone", pb.Device.STATE_ACTIVE)
    assert device.public_key_fingerprint.startswith("SHA256:")
    assert (device.max_daily_receipts, device.max_daily_tokens) == (10_000, 50_000_000)
    assert (device.public_key, device.HasField("last_report_time"), device.etag) == (b"", False, "v1")
    with pytest.raises(DeviceKeyInUse) as taken:
        await register(company, "other", public_key=pem(Ed25519PublicKey.from_public_bytes(raw)))
    assert taken.value.fingerprint == device.public_key_fingerprint


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"short",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        pem(generate_private_key(SECP256R1()).public_key()),
        bytes(32),
        (1).to_bytes(32, "little"),
        (2**255 - 18).to_bytes(32, "little"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    ],
    ids=["none", "short", "broken", "another kind", "order 4", "order 1", "order 1 in disguise", "order 8"],
)
async def test_what_is_no_ed25519_key_or_one_of_everybody_is_refused(company: Plane, key: bytes) -> None:
    """For a key of small order whoever likes can sign."""
    with pytest.raises(InvalidRequest) as refused:
        await register(company, public_key=key)

    assert [one.path for one in refused.value.violations] == ["device.public_key"]


async def test_a_project_must_be_there_and_of_the_devices_tenant(company: Plane) -> None:
    """A device that belongs nowhere could report for nobody."""
    await company.tenant("rival")

    with pytest.raises(ResourceNotFound):
        await register(company, project=f"{TENANT}/departments/sales/projects/crm")
    with pytest.raises(InvalidRequest):
        await register(company, project="tenants/rival/departments/emea/projects/crm")


async def test_fields_change_by_mask_and_etag_and_the_rest_stays(company: Plane) -> None:
    """Project and key cannot be changed; without a number the default holds again."""
    await register(company, max_daily_receipts=5, display_name="Phone")
    device = pb.Device(name=PHONE, max_daily_receipts=7, max_daily_tokens=9, etag="v1")

    changed = await company.call(pb.UpdateDeviceRequest(device=device))
    cleared = await company.call(
        pb.UpdateDeviceRequest(device=pb.Device(name=PHONE), update_mask=FieldMask(paths=["max_daily_receipts"]))
    )

    assert (changed.max_daily_receipts, changed.max_daily_tokens, changed.display_name) == (7, 9, "Phone")
    assert (cleared.max_daily_receipts, cleared.max_daily_tokens, cleared.etag) == (10_000, 9, "v3")
    with pytest.raises(EtagMismatch):
        await company.call(pb.UpdateDeviceRequest(device=device))
    with pytest.raises(InvalidRequest):
        await company.call(
            pb.UpdateDeviceRequest(device=pb.Device(name=PHONE), update_mask=FieldMask(paths=["project"]))
        )


async def test_a_revoked_device_stays_revoked_and_a_deleted_one_is_gone_but_for_its_id_and_key(company: Plane) -> None:
    """Were the id free again, receipts of the old device might count a second time."""
    key = FieldDevice("phone").public_key
    await register(company, public_key=key)
    revoke = pb.RevokeDeviceRequest(name=PHONE)

    revoked = await company.call(revoke)
    again = await company.call(revoke)
    await company.call(pb.DeleteDeviceRequest(name=PHONE, etag=again.etag))

    assert (revoked.state, revoked.HasField("revoke_time")) == (pb.Device.STATE_REVOKED, True)
    assert again == revoked
    with pytest.raises(ResourceNotFound):
        await company.call(pb.GetDeviceRequest(name=PHONE))
    assert not (await company.call(pb.ListDevicesRequest(parent=TENANT))).devices
    with pytest.raises(ResourceExists):
        await register(company)
    with pytest.raises(DeviceKeyInUse):
        await register(company, "tablet", public_key=key)


async def test_devices_are_listed_in_pages_and_by_parts_of_the_tree(company: Plane) -> None:
    """A department's are those of every project below it."""
    await company.call(departments_pb2.CreateDepartmentRequest(parent=TENANT, department_id="labs"))
    await company.call(projects_pb2.CreateProjectRequest(parent=f"{TENANT}/departments/labs", project_id="lamp"))
    for name in ("b-phone", "a-phone", "c-phone"):
        await register(company, name)
    await register(company, "lamp-1", project=f"{TENANT}/departments/labs/projects/lamp")

    first = await company.call(pb.ListDevicesRequest(parent=TENANT, page_size=3))
    rest = await company.call(pb.ListDevicesRequest(parent=TENANT, page_size=3, page_token=first.next_page_token))
    parts = {
        scope: await company.call(pb.ListDevicesRequest(parent=TENANT, scope=scope))
        for scope in (f"{TENANT}/departments/sales", CRM, f"{TENANT}/departments/labs")
    }

    assert [one.name.rpartition("/")[2] for one in (*first.devices, *rest.devices)] == [
        *("a-phone", "b-phone", "c-phone", "lamp-1")
    ]
    assert rest.next_page_token == ""
    assert [len(found.devices) for found in parts.values()] == [3, 3, 1]


async def test_a_department_administrator_keeps_the_devices_of_his_part_and_no_others(company: Plane) -> None:
    """He names his part of the tree; what is not in it is as if it were not there."""
    await company.call(departments_pb2.CreateDepartmentRequest(parent=TENANT, department_id="labs"))
    await company.call(projects_pb2.CreateProjectRequest(parent=f"{TENANT}/departments/labs", project_id="lamp"))
    labs = f"{TENANT}/departments/labs"
    await register(company, "lamp-1", project=f"{labs}/projects/lamp")
    chief = await company.key("acme", "chief", ("department-admin", f"{TENANT}/departments/sales"))

    await register(company, key=chief)
    seen = await company.call(pb.GetDeviceRequest(name=PHONE, scope=EMEA), key=chief)
    renamed = await company.call(
        pb.UpdateDeviceRequest(device=pb.Device(name=PHONE, display_name="Mine"), scope=CRM), key=chief
    )
    await company.call(pb.RevokeDeviceRequest(name=PHONE, scope=CRM), key=chief)

    assert (seen.project, renamed.display_name) == (CRM, "Mine")
    for request in (
        pb.GetDeviceRequest(name=f"{TENANT}/devices/lamp-1", scope=EMEA),
        pb.RevokeDeviceRequest(name=f"{TENANT}/devices/lamp-1", scope=EMEA),
        pb.UpdateDeviceRequest(device=pb.Device(name=f"{TENANT}/devices/lamp-1", display_name="x"), scope=EMEA),
    ):
        with pytest.raises(ResourceNotFound):
            await company.call(request, key=chief)
    for refused in (
        pb.GetDeviceRequest(name=PHONE),
        pb.ListDevicesRequest(parent=TENANT),
        pb.DeleteDeviceRequest(name=f"{TENANT}/devices/lamp-1", scope=labs),
        pb.CreateDeviceRequest(parent=TENANT, device=pb.Device(project=f"{labs}/projects/lamp")),
        pb.CreateDeviceRequest(parent=TENANT),
    ):
        with pytest.raises(PermissionDenied):
            await company.call(refused, key=chief)


async def test_a_dry_run_registers_nothing_and_changes_are_in_the_trail(company: Plane) -> None:
    """The trail has fingerprints, never a key."""
    await register(company, validate_only=True)
    with pytest.raises(ResourceNotFound):
        await company.call(pb.GetDeviceRequest(name=PHONE))

    device = await register(company)

    async with company.database.transaction() as session:
        connection = await session.connection()
        found = await connection.execute(
            text("SELECT resource, before, after FROM audit_event WHERE method LIKE '%.CreateDevice'")
        )
        ((resource, before, after),) = found.all()
    assert (resource, before) == (PHONE, None)
    assert after["publicKeyFingerprint"] == device.public_key_fingerprint
    assert "publicKey" not in after
