"""ChargeRuleService: mark-ups and discounts."""

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import charge_rules_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.charge_dates import day_of, end_after, optional_day
from tollhouse_server.api.charge_rule_requests import address_of, new_rule, rule_message
from tollhouse_server.api.limit_scopes import require_selected
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import version_of
from tollhouse_server.chargeback import rate_store as store
from tollhouse_server.chargeback.closed_month_store import require_open_days
from tollhouse_server.chargeback.rates import name_of
from tollhouse_server.database.engine import Database
from tollhouse_server.names import PLATFORM, domain_of, parse_scope
from tollhouse_server.tenancy.store import require_active


class ChargeRuleService:
    """Begins, reads and ends charge rules."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def create_charge_rule(self, request: pb.CreateChargeRuleRequest, call: Call) -> pb.ChargeRule:
        row = new_rule(request, creator=call.principal.name)

        async def act(session: AsyncSession) -> Change[pb.ChargeRule]:
            if row.scope != PLATFORM:
                await require_active(session, parse_scope(row.scope, "charge_rule.scope"))
            await require_selected(session, row.selector, "charge_rule.selector")
            await require_open_days(session, row.scope, row.starts_on, row.ends_on)
            after = rule_message(await store.create_rule(session, row, name_of(row)))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.ChargeRule, act)

    async def get_charge_rule(self, request: pb.GetChargeRuleRequest, call: Call) -> pb.ChargeRule:
        tenant, rule = address_of(request.name)
        async with self._database.within(call.domain) as session:
            return rule_message(await store.get_rule(session, tenant, rule, request.name))

    async def list_charge_rules(self, request: pb.ListChargeRulesRequest, call: Call) -> pb.ListChargeRulesResponse:
        async with self._database.within(call.domain) as session:
            rows = await store.list_rules(
                session,
                domain_of(request.parent) if request.parent else PLATFORM,
                scope=request.scope,
                on=optional_day(request.on_date, "on_date"),
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.rule_id) if last else ""
        return pb.ListChargeRulesResponse(charge_rules=map(rule_message, page), next_page_token=token)

    async def end_charge_rule(self, request: pb.EndChargeRuleRequest, call: Call) -> pb.ChargeRule:
        tenant, rule = address_of(request.name)
        version = version_of(request.etag, request.name)
        asked = day_of(request.end_date, "end_date")

        async def act(session: AsyncSession) -> Change[pb.ChargeRule]:
            row = await store.get_rule(session, tenant, rule, request.name, lock=True)
            before = rule_message(row)
            ends_on = end_after(asked, starts=row.starts_on, ended=row.ends_on, field="end_date")
            # The days on which it is not in force any more.
            await require_open_days(session, row.scope, ends_on, row.ends_on)
            await store.end_rule(session, row, ends_on, expected_version=version, name=request.name)
            after = rule_message(row)
            return Change(resource=request.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.ChargeRule, act)
