"""RoutingPolicyService: what scopes allow and prefer in routing, and the models behind tiers."""

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import routing_policies_pb2 as pb

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.permissions import GRANT_PRIORITY
from tollhouse_server.api.routing_policy_messages import (
    READERS,
    choice_of,
    origin_messages,
    policy_message,
    target_messages,
    values_of,
)
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic, lock
from tollhouse_server.names import Scope, TierName, invalid, parse_scope
from tollhouse_server.routing import policy_store, store
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.tables import RoutingPolicyRow, TierRow

_SUFFIX = "/routingPolicy"


class RoutingPolicyService:
    """Reads and changes policies and the targets of tiers; both are in force with the next catalogue."""

    def __init__(self, database: Database, mutations: Mutations, authorizer: Authorizer) -> None:
        self._database = database
        self._mutations = mutations
        self._authorizer = authorizer

    async def get_routing_policy(self, request: pb.GetRoutingPolicyRequest, call: Call) -> pb.RoutingPolicy:
        scope = _scope(request.name, "name")
        async with self._database.within(call.domain) as session:
            return await _read(session, scope)

    async def update_routing_policy(self, request: pb.UpdateRoutingPolicyRequest, call: Call) -> pb.RoutingPolicy:
        policy = request.routing_policy
        scope = _scope(policy.name, "routing_policy.name")
        values = values_of(policy, changed_fields(policy, request.update_mask, READERS))
        version = version_of(policy.etag, policy.name)
        if (highest := values.get("highest_priority")) is not None and highest < Priority.DEFAULT:
            await self._authorizer.authorize(call.principal, GRANT_PRIORITY, str(scope))

        async def act(session: AsyncSession) -> Change[pb.RoutingPolicy]:
            before = await _read(session, scope)
            await policy_store.change_policy(session, scope, values, version=version)
            after = await _read(session, scope)
            return Change(resource=policy.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.RoutingPolicy, act)

    async def delete_routing_policy(self, request: pb.DeleteRoutingPolicyRequest, call: Call) -> Empty:
        scope = _scope(request.name, "name")
        version = version_of(request.etag, request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            before = await _read(session, scope)
            await policy_store.delete_policy(session, scope, version=version)
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act)

    async def get_tier_targets(self, request: pb.GetTierTargetsRequest, call: Call) -> pb.TierTargets:
        tier = TierName.parse(request.name).tier
        async with self._database.within(call.domain) as session:
            return await _tier(session, await store.get_tier(session, tier))

    async def set_tier_targets(self, request: pb.SetTierTargetsRequest, call: Call) -> pb.TierTargets:
        tier = TierName.parse(request.name).tier
        choices = [choice_of(one) for one in request.targets]
        version = version_of(request.etag, request.name)

        async def act(session: AsyncSession) -> Change[pb.TierTargets]:
            # First, as all do who change the catalogue: two that lock its rows in another order would deadlock.
            await lock(session, Topic.CATALOGUE)
            before = await _tier(session, await store.get_tier(session, tier, lock=True))
            after = await _tier(session, await store.set_tier_choices(session, tier, choices, version=version))
            return Change(resource=request.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.TierTargets, act)


def _scope(name: str, field: str) -> Scope:
    if not name.endswith(_SUFFIX):
        raise invalid(field, f"must be the name of a tenant, department or project and {_SUFFIX}")
    return parse_scope(name.removesuffix(_SUFFIX), field)


async def _read(session: AsyncSession, scope: Scope) -> pb.RoutingPolicy:
    """Return what a scope says and what is in force there."""
    row: RoutingPolicyRow | None = await policy_store.find_policy(session, scope)
    effective = await policy_store.policy_in_force(session, scope)
    message = policy_message(policy_store.policy_of(row))
    message.name = f"{scope}{_SUFFIX}"
    message.etag = etag(0 if row is None else row.version)
    message.effective.CopyFrom(policy_message(effective.policy))
    message.effective_origins.extend(origin_messages(effective))
    if row is not None:
        moments = pb.RoutingPolicy(create_time=timestamp(row.created_at), update_time=timestamp(row.updated_at))
        message.MergeFrom(moments)
    return message


async def _tier(session: AsyncSession, row: TierRow) -> pb.TierTargets:
    return pb.TierTargets(
        name=str(TierName(row.tier)),
        targets=target_messages(await store.tier_choices(session, row.tier)),
        edited=row.origin != "PACKAGED",
        etag=etag(row.version),
    )
