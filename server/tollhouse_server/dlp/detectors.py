"""Every detector there is, by name and by group."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from tollhouse_server.dlp.accounts import ACCOUNTS
from tollhouse_server.dlp.addresses import ADDRESSES
from tollhouse_server.dlp.credentials import CREDENTIALS
from tollhouse_server.dlp.detector import Detector, Group
from tollhouse_server.dlp.national_ids import NATIONAL_IDS
from tollhouse_server.dlp.phones import PHONE


@cache
def detectors() -> Mapping[str, Detector]:
    """Return the built-in detectors by name."""
    return MappingProxyType({one.name: one for one in (PHONE, *ADDRESSES, *ACCOUNTS, *NATIONAL_IDS, *CREDENTIALS)})


@cache
def members() -> Mapping[str, frozenset[str]]:
    """Return the names of detectors by what a rule may call them: a group, or a detector itself."""
    groups = {group.value: frozenset(one.name for one in detectors().values() if one.group is group) for group in Group}
    return MappingProxyType(groups | {name: frozenset({name}) for name in detectors()})
