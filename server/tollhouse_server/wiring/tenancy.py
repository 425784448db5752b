"""The end of tenants, as the housekeeper has it."""

from contextlib import AsyncExitStack

from tollhouse_server.api.tenant_purges import TenantPurges
from tollhouse_server.database.engine import Database
from tollhouse_server.settings import Settings
from tollhouse_server.vault.tenant_keys import TenantKeys
from tollhouse_server.wiring.custody import CustodyParts
from tollhouse_server.wiring.outside import gateway_vault, required_dsn


def open_purges(settings: Settings, stack: AsyncExitStack, custody: CustodyParts) -> TenantPurges:
    """Build what purges deleted tenants; its connections are closed when the stack unwinds.

    Raises:
        InvalidRequest: an address or a file is not set.
    """
    database = Database(required_dsn(settings), pool_size=1)
    stack.push_async_callback(database.close)
    gateway = gateway_vault(settings)
    stack.push_async_callback(gateway.close)
    return TenantPurges(database, TenantKeys(database, custody.watch, gateway=gateway, custodian=custody.vault))
