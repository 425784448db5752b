"""Who looks through what a call carries, before anything is held or sent and before its caller reads the answer."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from tollhouse_server.generation.calls import GenerationCall

Keep: TypeAlias = Callable[[Mapping[str, Any]], None]


class AnswerGuard(Protocol):
    """Looks through the answer of one call, and puts back what was taken out of its prompt."""

    async def whole(self, body: dict[str, Any], *, keep: Keep) -> dict[str, Any]:
        """Return a whole answer as its caller may read it; `keep` is told it without the values of the prompt.

        Raises:
            DataPolicyBlocked: he may not; the call is booked all the same.
        """

    def stream(self, chunks: AsyncIterator[Mapping[str, Any]], *, keep: Keep) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the chunks of a stream as the caller may read them, in their order, with a bounded delay of their text.

        `keep` is told each of them without the values of the prompt.

        Raises:
            DataPolicyBlocked: he may not read on. What `chunks` raises is raised after what had been held back.
        """


class ContentGuard(Protocol):
    """Knows what each tenant lets pass."""

    def watches(self, tenant_id: str) -> bool:
        """Tell whether the tenant has anything looked for; costs next to nothing."""

    async def admit(
        self, body: Mapping[str, Any], *, tenant_id: str, department_path: tuple[str, ...], request_id: UUID
    ) -> tuple[Mapping[str, Any], AnswerGuard | None]:
        """Return the body as it may be sent, and who is to look through the answer, if anybody.

        Raises:
            DataPolicyBlocked: it may not be sent.
        """


async def admitted(guard: ContentGuard | None, call: GenerationCall) -> tuple[GenerationCall, AnswerGuard | None]:
    """Return a call as it may be planned, held for, sent and kept; nothing is held yet.

    Raises:
        DataPolicyBlocked: it may not be sent.
    """
    scope = call.scope
    if guard is None or not guard.watches(scope.tenant_id):
        return call, None
    body, answers = await guard.admit(
        call.body,
        tenant_id=scope.tenant_id,
        department_path=scope.department_path,
        request_id=call.request_id,
    )
    return (call if body is call.body else call._replace(body=body)), answers
