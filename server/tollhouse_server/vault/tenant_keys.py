"""A data key for each tenant: Vault wraps it, PostgreSQL holds it wrapped, memory alone holds it bare.

Destroying the transit key that wraps it makes unreadable at once all that was ever sealed under it, wherever copies of
that or of the wrapped key lie. A transit key is named `tenant-<id>.<version>` and never made a second time, so that a
deletion that arrives late cannot hit the key that came after.
"""

import asyncio
import base64
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Protocol
from weakref import WeakValueDictionary

from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.errors import InvalidRequest, KeyDestroyed, StoreUnavailable, Unreadable, VaultUnavailable
from tollhouse_server.vault import store
from tollhouse_server.vault.paths import tenant_transit_key
from tollhouse_server.vault.sealing import DataKey, sealed_version
from tollhouse_server.vault.secret_text import SecretText
from tollhouse_server.vault.store import WrappedKey

MAX_STALENESS_SECONDS: Final = 2.0
"""Keys in memory are used no longer than this without word from the database that nobody has destroyed them."""

_CATCH_UP_SECONDS: Final = 2.0
_MOST_TENANTS: Final = 4096


class KeyUser(Protocol):
    """What of Vault is needed to use keys: the gateway's role may."""

    async def new_wrapped_key(self, key: str) -> tuple[SecretText, bytes]: ...

    async def unwrap_key(self, key: str, wrapped: bytes) -> SecretText: ...


class KeyMaker(Protocol):
    """What of Vault is needed to make and destroy keys: the custodian's role may, which can unwrap none."""

    async def make_wrapping_key(self, key: str) -> None: ...

    async def destroy_wrapping_key(self, key: str) -> None: ...


@dataclass(slots=True, eq=False)
class _Ring:
    """The keys of one tenant in memory; `newest` is the version to seal with, which may not be among them yet."""

    newest: int
    keys: dict[int, DataKey] = field(default_factory=dict)


class TenantKeys:
    """Seals and opens under tenants' data keys. While Vault is away, the keys in memory go on.

    Raises:
        VaultUnavailable, VaultDenied: from every method, where a key is wanted that is not in memory.
        StoreUnavailable: from every method, where PostgreSQL has not been heard of for two seconds.
    """

    def __init__(self, database: Database, watch: EpochWatch, *, gateway: KeyUser, custodian: KeyMaker) -> None:
        """Prepare; asks nobody before the first sealing. `database` should be a pool of its own."""
        self._database = database
        self._watch = watch
        self._gateway = gateway
        self._custodian = custodian
        self._rings: OrderedDict[str, _Ring] = OrderedDict()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._catching_up = asyncio.Lock()
        self._generation = 0
        watch.on_change(Topic.TENANT_KEYS, self._reload)

    async def seal(self, tenant_id: str, plaintext: bytes, *, context: bytes) -> bytes:
        """Return `plaintext` sealed under the tenant's newest key, to be opened with the same context alone.

        The first sealing makes the key, and the first after a destruction a new one.

        Raises:
            KeyDestroyed: Vault does not have the key that PostgreSQL, restored from a backup, calls alive.
        """
        key = await self.sealing_key(tenant_id)
        return key.seal(plaintext, context=context)

    async def sealing_key(self, tenant_id: str) -> DataKey:
        """Return the tenant's newest key, for who must not wait while he seals; not to be held for longer than that.

        Raises:
            KeyDestroyed: as `seal`.
        """
        await self._catch_up()
        if (key := self._held_to_seal(tenant_id)) is not None:
            return key
        async with self._turn(tenant_id):
            if (key := self._held_to_seal(tenant_id)) is not None:
                return key
            try:
                return await self._load_to_seal(tenant_id)
            except VaultUnavailable:
                # It has only opened so far: what opens is alive, and as good to seal with.
                ring = self._rings.get(tenant_id)
                if ring is None:
                    raise
                return ring.keys[max(ring.keys)]

    async def open(self, tenant_id: str, sealed: bytes, *, context: bytes) -> bytes:
        """Return what was sealed for this tenant and context.

        Raises:
            KeyDestroyed: its key is destroyed.
            Unreadable: it was not sealed so, or was changed.
        """
        version = sealed_version(tenant_id, sealed)
        key = await self._opening_key(tenant_id, version)
        return key.open(sealed, context=context)

    async def destroy(self, tenant_id: str) -> None:
        """Destroy the tenant's keys: what was sealed is readable nowhere any more, backups included.

        May be called again at any time, and must be, if it was interrupted. Other processes forget within two seconds.
        """
        async with self._database.transaction() as session:
            transit_keys = await store.mark_destroyed(session, tenant_id)
        self._forget(tenant_id)
        for transit_key in transit_keys:
            await self._destroy_in_vault(tenant_id, transit_key)

    async def finish_destruction(self, tenant_id: str) -> None:
        """Destroy in Vault the keys of a tenant that are marked as destroyed; may be called again at any time."""
        self._forget(tenant_id)
        async with self._database.transaction() as session:
            unfinished = await store.unfinished_destructions(session)
        for owner, transit_key in unfinished:
            if owner == tenant_id:
                await self._destroy_in_vault(owner, transit_key)

    async def finish_destructions(self) -> None:
        """Do so for all tenants; the housekeeper calls it now and then."""
        async with self._database.transaction() as session:
            unfinished = await store.unfinished_destructions(session)
        for tenant_id, transit_key in unfinished:
            await self._destroy_in_vault(tenant_id, transit_key)

    async def _destroy_in_vault(self, tenant_id: str, transit_key: str) -> None:
        async with self._database.transaction() as session:
            # Versions that were made under it while it was being destroyed go with it.
            await store.mark_wrapped_destroyed(session, tenant_id, transit_key)
        await self._custodian.destroy_wrapping_key(transit_key)
        async with self._database.transaction() as session:
            await store.forget_wrapped(session, tenant_id, transit_key)

    async def _opening_key(self, tenant_id: str, version: int) -> DataKey:
        await self._catch_up()
        if (key := self._held(tenant_id, version)) is not None:
            return key
        async with self._turn(tenant_id):
            if (key := self._held(tenant_id, version)) is not None:
                return key
            generation = self._generation
            async with self._database.transaction() as session:
                wrapped = await store.find_key(session, tenant_id, version)
            if wrapped is None:
                raise Unreadable(tenant=tenant_id)
            key = await self._unwrapped(wrapped)
            self._remember(key, generation)
            return key

    async def _load_to_seal(self, tenant_id: str) -> DataKey:
        generation = self._generation
        newest = await self._newest(tenant_id)
        if newest is None or newest.destroyed:
            return await self._make(tenant_id, after=newest)
        key = await self._unwrapped(newest)
        self._remember(key, generation, newest=newest.version)
        return key

    async def _make(self, tenant_id: str, *, after: WrappedKey | None) -> DataKey:
        """Make the version after `after`, which is destroyed; the first of all to write it has made it for all."""
        generation = self._generation
        version = 1 if after is None else after.version + 1
        transit_key = tenant_transit_key(tenant_id, version)
        await self._custodian.make_wrapping_key(transit_key)
        try:
            secret, wrapped = await self._gateway.new_wrapped_key(transit_key)
        except InvalidRequest as error:
            raise KeyDestroyed(tenant=tenant_id) from error
        row = WrappedKey(tenant_id=tenant_id, version=version, transit_key=transit_key, wrapped=wrapped)
        async with self._database.transaction() as session:
            added = await store.add_key(session, row, after=after)
        if not added:
            return await self._load_to_seal(tenant_id)
        key = _bare(row, secret)
        self._remember(key, generation, newest=version)
        return key

    async def _newest(self, tenant_id: str) -> WrappedKey | None:
        async with self._database.transaction() as session:
            return await store.newest_key(session, tenant_id)

    async def _unwrapped(self, key: WrappedKey) -> DataKey:
        if key.destroyed:
            raise KeyDestroyed(tenant=key.tenant_id)
        try:
            return _bare(key, await self._gateway.unwrap_key(key.transit_key, key.wrapped))
        except InvalidRequest as error:
            # Vault has no such key, or a later one of that name: the database is older than the destruction.
            raise KeyDestroyed(tenant=key.tenant_id) from error

    def _turn(self, tenant_id: str) -> asyncio.Lock:
        """One look-up per tenant, however many sealings of it arrive together."""
        return self._turns.setdefault(tenant_id, asyncio.Lock())

    def _held(self, tenant_id: str, version: int) -> DataKey | None:
        ring = self._rings.get(tenant_id)
        return None if ring is None else ring.keys.get(version)

    def _held_to_seal(self, tenant_id: str) -> DataKey | None:
        ring = self._rings.get(tenant_id)
        return None if ring is None else ring.keys.get(ring.newest)

    def _remember(self, key: DataKey, generation: int, *, newest: int | None = None) -> None:
        # What was read before a change was announced may not be kept after it.
        if generation != self._generation:
            return
        ring = self._rings.setdefault(key.tenant_id, _Ring(newest or 0))
        ring.newest = newest or ring.newest
        ring.keys[key.version] = key
        self._rings.move_to_end(key.tenant_id)
        if len(self._rings) > _MOST_TENANTS:
            self._rings.popitem(last=False)

    def _forget(self, tenant_id: str) -> None:
        self._generation += 1
        self._rings.pop(tenant_id, None)

    async def _reload(self) -> None:
        self._generation += 1
        if not self._rings:
            return
        async with self._database.transaction() as session:
            found = await store.standings(session, self._rings)
        for tenant_id, ring in list(self._rings.items()):
            newest, destroyed = found.get(tenant_id, (0, 0))
            ring.newest = newest
            ring.keys = {version: key for version, key in ring.keys.items() if destroyed < version <= newest}
            if not ring.keys:
                del self._rings[tenant_id]

    async def _catch_up(self) -> None:
        if self._watch.staleness_seconds <= MAX_STALENESS_SECONDS:
            return
        try:
            async with asyncio.timeout(_CATCH_UP_SECONDS), self._catching_up:
                if self._watch.staleness_seconds > MAX_STALENESS_SECONDS:
                    await self._watch.refresh()
        except TimeoutError:
            raise StoreUnavailable(detail="no word from the database of destroyed keys") from None


def _bare(key: WrappedKey, secret: SecretText) -> DataKey:
    return DataKey(tenant_id=key.tenant_id, version=key.version, secret=base64.b64decode(secret.reveal()))
