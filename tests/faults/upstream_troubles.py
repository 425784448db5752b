"""What can befall a part of the upstream while another part is sound, and how it is taken back."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tollhouse.v1 import generation_pb2 as g

from tests.faults.upstream_rig import CENTRAL, KEYS, PROJECTS, WEST, UpstreamRig, accounts_in

_RETRY_SECONDS = 5.0
_QUOTA = 600
"""Requests a minute of a project, a fifth of what it would get at full rate."""
_ONE_ACCOUNT = "a-west"
_ONE_DEVELOPER = "a-developer"

Act = Callable[[UpstreamRig], Awaitable[None]]


async def _clear(rig: UpstreamRig) -> None:
    await rig.simulator.clear_faults()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something that befalls a part of the upstream.

    The breakers of the accounts in `opens` must open, those in `may_open` may, no others. With `stops_midway` streams
    stand still until their callers' time is up.
    """

    name: str
    strike: Act
    mend: Act = _clear
    opens: tuple[str, ...] = ()
    may_open: tuple[str, ...] = ()
    stops_midway: bool = False
    again_seconds: float | None = None
    """After so long it strikes again; None: once is enough."""

    kind: "g.UpstreamKind.ValueType" = g.UPSTREAM_KIND_VERTEX


def faults(*plans: tuple[str, dict[str, Any]]) -> Act:
    """Return what sets these fault plans of the simulator's, each a kind and its settings."""

    async def strike(rig: UpstreamRig) -> None:
        for kind, settings in plans:
            await rig.simulator.add_fault(kind, **settings)

    return strike


def region_fault(name: str, kind: str, *, stops_midway: bool = False, **settings: Any) -> Trouble:
    """Return a trouble of a whole region."""
    plan = (kind, {"region": CENTRAL, **settings})
    accounts = accounts_in(region="central")
    return Trouble(name=name, strike=faults(plan), opens=accounts, stops_midway=stops_midway)


async def _revoke_service_account(rig: UpstreamRig) -> None:
    email = rig.secrets.email(_ONE_ACCOUNT)
    await rig.simulator.change_service_account(email, enabled=False)
    await rig.simulator.revoke_tokens(email)


async def _restore_service_account(rig: UpstreamRig) -> None:
    await rig.simulator.change_service_account(rig.secrets.email(_ONE_ACCOUNT), enabled=True)
    await rig.enable_key(_ONE_ACCOUNT, KEYS[0])


async def _revoke_api_key(rig: UpstreamRig) -> None:
    await rig.simulator.refuse_key(rig.secrets.api_keys[_ONE_DEVELOPER, KEYS[0]])


async def _restore_api_key(rig: UpstreamRig) -> None:
    await rig.simulator.accept_key(rig.secrets.api_keys[_ONE_DEVELOPER, KEYS[0]], project=PROJECTS[_ONE_DEVELOPER[0]])
    await rig.enable_key(_ONE_DEVELOPER, KEYS[0])


async def _leak_both_keys(rig: UpstreamRig) -> None:
    for key in KEYS:
        await rig.simulator.refuse_key(rig.secrets.api_keys[_ONE_DEVELOPER, key], leaked=True)


async def _replace_both_keys(rig: UpstreamRig) -> None:
    for key in KEYS:
        secret = rig.secrets.api_keys[_ONE_DEVELOPER, key]
        await rig.simulator.accept_key(secret, project=PROJECTS[_ONE_DEVELOPER[0]])
        await rig.enable_key(_ONE_DEVELOPER, key)


async def _kill_region(rig: UpstreamRig) -> None:
    await rig.simulator.close_port(rig.ports["central"])


async def _revive_region(rig: UpstreamRig) -> None:
    await _clear(rig)
    await rig.simulator.open_port(CENTRAL, rig.ports["central"])


async def _cut_connections(rig: UpstreamRig) -> None:
    await _kill_region(rig)
    await _revive_region(rig)


async def _kill_all_but_one(rig: UpstreamRig) -> None:
    await _kill_region(rig)
    await rig.simulator.add_fault("503", project=PROJECTS["a"], region=WEST)


async def _set_quota(rig: UpstreamRig) -> None:
    await rig.simulator.set_quota(PROJECTS["a"], requests_per_minute=_QUOTA)


async def _clear_quota(rig: UpstreamRig) -> None:
    await rig.simulator.clear_quotas()


_LAST_WEST = {"project": PROJECTS["a"], "region": WEST}
_ALL_BUT_ONE = tuple(one for one in accounts_in() if one != "b-west")

TROUBLES = (
    Trouble(name="one key revoked", strike=_revoke_service_account, mend=_restore_service_account),
    Trouble(
        name="one project at 429 with RetryInfo",
        strike=faults(("429", {"project": PROJECTS["a"], "retry_delay_seconds": _RETRY_SECONDS})),
    ),
    Trouble(name="one project at its quota", strike=_set_quota, mend=_clear_quota),
    region_fault("one region 503", "503"),
    region_fault("one region hanging", "hang"),
    region_fault("one region resetting, charged", "reset"),
    region_fault("one region resetting, not charged", "reset", served=False),
    region_fault("one region truncating before the first chunk", "truncate"),
    region_fault("one region truncating after the first chunk", "truncate", after_chunks=1),
    region_fault("one region ending streams after the first chunk", "cut", after_chunks=1),
    region_fault("one region hanging after the first chunk", "hang", after_chunks=1, stops_midway=True),
    region_fault("one region answering garbage", "garbage"),
    Trouble(
        name="one region refusing connections",
        strike=_kill_region,
        mend=_revive_region,
        opens=accounts_in(region="central"),
    ),
    Trouble(
        name="one region cutting all connections every two seconds",
        strike=_cut_connections,
        may_open=accounts_in(region="central"),
        again_seconds=2.0,
    ),
    Trouble(name="all but one target dead", strike=_kill_all_but_one, mend=_revive_region, opens=_ALL_BUT_ONE),
    Trouble(
        name="all but one target hanging",
        strike=faults(("hang", {"region": CENTRAL}), ("hang", _LAST_WEST)),
        opens=_ALL_BUT_ONE,
    ),
    Trouble(
        name="API keys: one key revoked",
        strike=_revoke_api_key,
        mend=_restore_api_key,
        kind=g.UPSTREAM_KIND_GEMINI_API,
    ),
    Trouble(
        name="API keys: both keys of one project leaked",
        strike=_leak_both_keys,
        mend=_replace_both_keys,
        kind=g.UPSTREAM_KIND_GEMINI_API,
    ),
    Trouble(
        name="API keys: one project at 429 with RetryInfo",
        strike=faults(("429", {"project": PROJECTS["a"], "retry_delay_seconds": _RETRY_SECONDS})),
        kind=g.UPSTREAM_KIND_GEMINI_API,
    ),
)
