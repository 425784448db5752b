"""What the trail is told of calls: where they come from, that they were refused, and that somebody has read."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from tollhouse_server.api.permissions import permission_for
from tollhouse_server.audit.personal import PersonalData, Source
from tollhouse_server.audit.refusals import Refusal, RefusalLog
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.errors import CredentialsInvalid, PermissionDenied, TollhouseError
from tollhouse_server.identity.networks import Network, client_address
from tollhouse_server.identity.principal import Principal
from tollhouse_server.names import PLATFORM, domain_of

if TYPE_CHECKING:
    from tollhouse_server.api.call import Call
    from tollhouse_server.api.chain import Arrival, Method

_MOST_CHARACTERS = 256


class Witness:
    """Knows where a call comes from, behind proxies that are trusted, and seals it. Hears of refusals for the chain."""

    def __init__(self, personal: PersonalData, refusals: RefusalLog, trusted_proxies: Iterable[Network] = ()) -> None:
        self.personal = personal
        self._refusals = refusals
        self._trusted_proxies = tuple(trusted_proxies)

    async def sealing(self, call: "Call") -> Callable[[AuditEventRow], None]:
        """Return what seals into events of a call where it comes from; to be asked for before a transaction is open."""
        sealer = await self.personal.sealer(call.domain)
        return partial(sealer.protect, source=self._source(call.peer, call.forwarded_for, call.user_agent))

    async def reading(self, call: "Call", resource: str) -> AuditEventRow:
        """Return the event of a reading that is to be on record itself; to be asked for as `sealing` is."""
        rule = permission_for(call.rpc)
        event = AuditEventRow(
            tenant_id=domain_of(resource),
            actor=call.principal.name,
            credential_id=call.principal.credential_id,
            method=rule.rpc,
            permission=rule.permission or "",
            resource=resource,
            request_id="",
            correlation_id=call.correlation_id,
        )
        (await self.sealing(call))(event)
        return event

    def refused(
        self,
        error: TollhouseError,
        method: "Method",
        arrival: "Arrival",
        principal: Principal | None,
        correlation_id: str,
    ) -> None:
        """Note a refusal: in the trail of the tenant that the principal is of, or in the platform's."""
        denied = error if isinstance(error, PermissionDenied) else None
        metadata = arrival.metadata
        self._refusals.note(
            Refusal(
                kind="AUTHENTICATION_FAILURE" if principal is None else "PERMISSION_DENIED",
                tenant_id=PLATFORM if principal is None else principal.tenant_id,
                actor="" if principal is None else principal.name,
                credential_id="" if principal is None else principal.credential_id,
                method=method.rpc.replace("/", "."),
                permission=denied.permission if denied else "",
                resource=denied.scope[:_MOST_CHARACTERS] if denied else "",
                reason=_reason(error),
                correlation_id=correlation_id,
                source=self._source(arrival.peer, metadata.get("x-forwarded-for"), metadata.get("user-agent", "")),
            )
        )

    def _source(self, peer: str, forwarded_for: str | None, user_agent: str) -> Source:
        address = client_address(peer, forwarded_for, self._trusted_proxies)
        return Source(address="" if address is None else str(address), user_agent=user_agent)


def _reason(error: TollhouseError) -> str:
    if isinstance(error, CredentialsInvalid):
        return f"{error.reason}:{error.fault.name}"
    return error.reason
