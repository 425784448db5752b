"""The TollhouseError family: a class names a fact and carries what a program needs to act on it.

Only `api/statuses.py` (and the REST doors) know status codes. `reason` is the value of `tollhouse.v1.Reason` that a
caller sees; the message is for people and must say what to do. Nothing here may carry a secret.
"""

from tollhouse_server.errors.access import DutiesConflict, GroupFull
from tollhouse_server.errors.base import FieldViolation, TollhouseError
from tollhouse_server.errors.chargeback import PeriodClosed, PeriodObstructed
from tollhouse_server.errors.content import ContentNotKept, KeyDestroyed, Unreadable
from tollhouse_server.errors.credentials import CredentialsInvalid, Fault, IdentityProviderUnavailable, PermissionDenied
from tollhouse_server.errors.custody import KeyProviderFailed, RotationUnderWay
from tollhouse_server.errors.data_policies import DataPolicyBlocked
from tollhouse_server.errors.devices import DeviceKeyInUse
from tollhouse_server.errors.documents import DeliveryNotSetUp, FontMissing
from tollhouse_server.errors.exports import ExportMismatch, MonthNotDroppable, RecordsDropped
from tollhouse_server.errors.ledger import BudgetCutOff, LimitExceeded, StoreLostMidStream, StoreUnavailable
from tollhouse_server.errors.prices import (
    ModelShutDown,
    ModelUnknown,
    ModelUnpriced,
    PriceFileInvalid,
    PriceProposalOutdated,
    PricesImplausible,
)
from tollhouse_server.errors.requests import (
    DeadlineTooShort,
    DuplicateRequest,
    InvalidRequest,
    RequestIdReused,
    RequestTooLarge,
)
from tollhouse_server.errors.resources import (
    EtagMismatch,
    RequesterOnly,
    ResourceExists,
    ResourceInUse,
    ResourceNotFound,
    SecondPersonNeeded,
    ServerDraining,
    WrongState,
)
from tollhouse_server.errors.routing import ModelNotAllowed, OnDeviceOnly, RegionNotAllowed, TierAutoOff
from tollhouse_server.errors.tenancy import DepartmentRing, MergeObstructed
from tollhouse_server.errors.traffic import Overloaded, TargetsUnhealthy
from tollhouse_server.errors.upstream import (
    NoUpstreamKey,
    UpstreamExhausted,
    UpstreamOutcomeUnknown,
    UpstreamRefused,
    UpstreamUnavailable,
    UsageMissing,
)
from tollhouse_server.errors.vault import SecretMissing, VaultDenied, VaultUnavailable

__all__ = [
    "BudgetCutOff",
    "ContentNotKept",
    "CredentialsInvalid",
    "DataPolicyBlocked",
    "DeadlineTooShort",
    "DeliveryNotSetUp",
    "DepartmentRing",
    "DeviceKeyInUse",
    "DuplicateRequest",
    "DutiesConflict",
    "EtagMismatch",
    "ExportMismatch",
    "Fault",
    "FieldViolation",
    "FontMissing",
    "GroupFull",
    "IdentityProviderUnavailable",
    "InvalidRequest",
    "KeyDestroyed",
    "KeyProviderFailed",
    "LimitExceeded",
    "MergeObstructed",
    "ModelNotAllowed",
    "ModelShutDown",
    "ModelUnknown",
    "ModelUnpriced",
    "MonthNotDroppable",
    "NoUpstreamKey",
    "OnDeviceOnly",
    "Overloaded",
    "PeriodClosed",
    "PeriodObstructed",
    "PermissionDenied",
    "PriceFileInvalid",
    "PriceProposalOutdated",
    "PricesImplausible",
    "RecordsDropped",
    "RegionNotAllowed",
    "RequestIdReused",
    "RequestTooLarge",
    "RequesterOnly",
    "ResourceExists",
    "ResourceInUse",
    "ResourceNotFound",
    "RotationUnderWay",
    "SecondPersonNeeded",
    "SecretMissing",
    "ServerDraining",
    "StoreLostMidStream",
    "StoreUnavailable",
    "TargetsUnhealthy",
    "TierAutoOff",
    "TollhouseError",
    "Unreadable",
    "UpstreamExhausted",
    "UpstreamOutcomeUnknown",
    "UpstreamRefused",
    "UpstreamUnavailable",
    "UsageMissing",
    "VaultDenied",
    "VaultUnavailable",
    "WrongState",
]
