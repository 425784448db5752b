"""What is kept of calls, and what a call is to those who keep it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID

from tollhouse_server.long_values import Json
from tollhouse_server.names import DepartmentName, ProjectName

DEFAULT_RETENTION_DAYS: Final = 30


class Keep(StrEnum):
    """How much of a call is kept."""

    NONE = "NONE"
    PROMPTS = "PROMPTS"
    PROMPTS_AND_ANSWERS = "PROMPTS_AND_ANSWERS"


class Caller(Protocol):
    """Who makes a call, and where in the tree, from the top down."""

    @property
    def tenant_id(self) -> str: ...

    @property
    def department_path(self) -> tuple[str, ...]: ...

    @property
    def project_id(self) -> str: ...

    @property
    def principal_id(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPolicy:
    """What of a tenant's calls is kept: those of all, or only those of some `departments` and `projects`."""

    keep: Keep
    retention_days: int
    must_keep: bool = False
    departments: frozenset[str] = frozenset()
    projects: frozenset[str] = frozenset()

    def covers(self, caller: Caller) -> bool:
        """Tell whether something of this caller's calls is kept."""
        if self.keep is Keep.NONE:
            return False
        if not self.departments and not self.projects:
            return True
        return caller.project_id in self.projects or not self.departments.isdisjoint(caller.department_path)


def narrowed_to(scopes: tuple[DepartmentName | ProjectName, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the ids of the departments and of the projects among `scopes`."""
    return (
        frozenset(scope.department for scope in scopes if isinstance(scope, DepartmentName)),
        frozenset(scope.project for scope in scopes if isinstance(scope, ProjectName)),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptCall:
    """One call as it is to be kept, not packed yet. `answer` is None where only the prompt is wanted."""

    caller: Caller
    attempt_id: UUID
    request_id: UUID
    method: str
    model: str
    settled_at: datetime
    retention_days: int
    prompt: Json = field(repr=False)
    answer: Json | None = field(repr=False)
    answer_truncated: bool

    @property
    def size_bytes(self) -> int:
        """Return how much memory it takes while it waits."""
        return len(self.prompt) + len(self.answer or b"")


class Part(StrEnum):
    """The two things that are sealed of a call."""

    PROMPT = "prompt"
    ANSWER = "answer"


def context_of(tenant_id: str, attempt_id: UUID, part: Part) -> bytes:
    """Return what a sealed part is bound to: in another call's place, or as the other part, it does not open."""
    return f"tollhouse.content/1\n{tenant_id}\n{attempt_id}\n{part}".encode()
