"""DeviceService: the devices that run models themselves."""

import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import devices_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.device_messages import device_message
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Act, Answer, Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.devices import store
from tollhouse_server.devices.keys import parse_public_key
from tollhouse_server.devices.store import DeviceView
from tollhouse_server.devices.tables import DeviceRow
from tollhouse_server.devices.terms import DEFAULT_DAILY_RECEIPTS, DEFAULT_DAILY_TOKENS
from tollhouse_server.names import DeviceName, ProjectName, Scope, TenantName, invalid, parse_scope
from tollhouse_server.tenancy import store as tenancy

_CHANGEABLE = ("display_name", "max_daily_receipts", "max_daily_tokens")


class DeviceService:
    """Registers, reads, changes, revokes and deletes devices."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def create_device(self, request: pb.CreateDeviceRequest, call: Call) -> pb.Device:
        project = _project(request)
        row = _new_row(request, project)

        async def act(session: AsyncSession) -> Change[pb.Device]:
            await tenancy.active_project(session, project)
            after = device_message(DeviceView(await store.create_device(session, row), project))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Device, act)

    async def get_device(self, request: pb.GetDeviceRequest, call: Call) -> pb.Device:
        name = DeviceName.parse(request.name)
        async with self._database.within(call.domain) as session:
            return device_message(await store.find_device(session, name, _scope(request.scope)))

    async def list_devices(self, request: pb.ListDevicesRequest, call: Call) -> pb.ListDevicesResponse:
        async with self._database.within(call.domain) as session:
            views = await store.list_devices(
                session,
                TenantName.parse(request.parent, "parent").tenant,
                _scope(request.scope),
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, views)
        token = self._pages.next(request, last.row.device_id) if last else ""
        return pb.ListDevicesResponse(devices=map(device_message, page), next_page_token=token)

    async def update_device(self, request: pb.UpdateDeviceRequest, call: Call) -> pb.Device:
        values = _changes(request)
        name = DeviceName.parse(request.device.name, "device.name")
        version = version_of(request.device.etag, str(name))

        async def act(session: AsyncSession) -> Change[pb.Device]:
            view = await store.find_device(session, name, _scope(request.scope), lock=True)
            check_version(view.row, version, str(name))
            before = device_message(view)
            await change(session, view.row, **values)
            after = device_message(view)
            return Change(resource=str(name), before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Device, act)

    async def revoke_device(self, request: pb.RevokeDeviceRequest, call: Call) -> pb.Device:
        async def end(session: AsyncSession, view: DeviceView) -> Change[pb.Device]:
            before = device_message(view)
            if view.row.revoked_at is None:
                await change(session, view.row, revoked_at=datetime.now(UTC))
            after = device_message(view)
            return Change(resource=after.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Device, _on_locked(request, end))

    async def delete_device(self, request: pb.DeleteDeviceRequest, call: Call) -> Empty:
        async def end(session: AsyncSession, view: DeviceView) -> Change[Empty]:
            before = device_message(view)
            await change(session, view.row, deleted_at=datetime.now(UTC))
            return Change(resource=before.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, _on_locked(request, end))


def _on_locked(
    request: pb.RevokeDeviceRequest | pb.DeleteDeviceRequest,
    end: Callable[[AsyncSession, DeviceView], Awaitable[Change[Answer]]],
) -> Act[Answer]:
    """Return the act that does `end` to the request's device, locked and at the version that it names."""
    name = DeviceName.parse(request.name)
    version = version_of(request.etag, str(name))

    async def act(session: AsyncSession) -> Change[Answer]:
        view = await store.find_device(session, name, _scope(request.scope), lock=True)
        check_version(view.row, version, str(name))
        return await end(session, view)

    return act


def _project(request: pb.CreateDeviceRequest) -> ProjectName:
    project = ProjectName.parse(request.device.project, "device.project")
    if project.tenant != TenantName.parse(request.parent, "parent").tenant:
        raise invalid("device.project", "must be of the device's own tenant")
    return project


def _new_row(request: pb.CreateDeviceRequest, project: ProjectName) -> DeviceRow:
    device = request.device
    if not device.public_key:
        raise invalid("device.public_key", "is required")
    chosen = request.device_id or f"d-{secrets.token_hex(8)}"
    return DeviceRow(
        tenant_id=project.tenant,
        device_id=DeviceName.parse(f"{request.parent}/devices/{chosen}", "device_id").device,
        project_id=project.project,
        display_name=device.display_name,
        public_key=parse_public_key(device.public_key, "device.public_key"),
        max_daily_receipts=device.max_daily_receipts or DEFAULT_DAILY_RECEIPTS,
        max_daily_tokens=device.max_daily_tokens or DEFAULT_DAILY_TOKENS,
    )


def _changes(request: pb.UpdateDeviceRequest) -> dict[str, object]:
    fields = changed_fields(request.device, request.update_mask, _CHANGEABLE)
    defaults = {"max_daily_receipts": DEFAULT_DAILY_RECEIPTS, "max_daily_tokens": DEFAULT_DAILY_TOKENS}
    return {field: getattr(request.device, field) or defaults.get(field, "") for field in fields}


def _scope(text: str) -> Scope | None:
    return parse_scope(text) if text else None
