"""Who looks through the calls of tenants that have a data policy."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias
from uuid import UUID

from tollhouse_server.dlp.answers import AnswerText, judging, restoring
from tollhouse_server.dlp.findings import CallSeen, FindingLog
from tollhouse_server.dlp.policy import DataPolicies, Direction, Screen
from tollhouse_server.dlp.prompts import PromptBlocked, redacted_prompt
from tollhouse_server.dlp.redaction import Blocked, Findings
from tollhouse_server.dlp.tokens import Tokens
from tollhouse_server.errors import DataPolicyBlocked, TollhouseError
from tollhouse_server.unhurried import unhurried


class DataGuard:
    """Looks through prompts by the policies of the moment; an answer is judged by those that its prompt was."""

    def __init__(self, policies: Callable[[], DataPolicies], log: FindingLog) -> None:
        self._policies = policies
        self._log = log

    def watches(self, tenant_id: str) -> bool:
        """Tell whether the tenant has a data policy."""
        return tenant_id in self._policies().tenants

    async def admit(
        self, body: Mapping[str, Any], *, tenant_id: str, department_path: tuple[str, ...], request_id: UUID
    ) -> tuple[Mapping[str, Any], "AnswerLook | None"]:
        """Return a prompt as it may be sent, and who looks through the answer, if anybody.

        Raises:
            DataPolicyBlocked: it may not be sent.
        """
        screens = self._policies().screens(tenant_id, department_path)
        department_id = department_path[-1] if department_path else ""
        call = CallSeen(tenant_id=tenant_id, department_id=department_id, request_id=request_id)
        tokens = Tokens()
        if screens.prompt is not None:
            body, tokens = await self._prompt(body, screens.prompt, call)
        if screens.answer is None and not tokens.values():
            return body, None
        back = restoring(tokens, is_json=_asks_for_json(body))
        return body, AnswerLook(call=call, screen=screens.answer, tokens=tokens, back=back, log=self._log)

    async def _prompt(
        self, body: Mapping[str, Any], screen: Screen, call: CallSeen
    ) -> tuple[Mapping[str, Any], Tokens]:
        findings = Findings()
        try:
            sent = await unhurried(redacted_prompt(body, screen, findings))
        except PromptBlocked as blocked:
            raise DataPolicyBlocked(detector=blocked.detector, direction="PROMPT", field=blocked.field) from None
        finally:
            self._log.note(call, Direction.PROMPT, findings)
        return sent.body, sent.tokens


def _asks_for_json(body: Mapping[str, Any]) -> bool:
    config = body.get("generationConfig")
    return isinstance(config, Mapping) and config.get("responseMimeType") == "application/json"


Keep: TypeAlias = Callable[[Mapping[str, Any]], None]


class AnswerLook:
    """Looks through the answer of one call; see `generation/guard.py`."""

    def __init__(
        self, *, call: CallSeen, screen: Screen | None, tokens: Tokens, back: AnswerText, log: FindingLog
    ) -> None:
        self._call = call
        self._log = log
        self._findings = Findings()
        self._judging = None if screen is None else judging(screen, self._findings, tokens)
        self._restoring = back

    async def whole(self, body: dict[str, Any], *, keep: Keep) -> dict[str, Any]:
        """Return a whole answer as its caller may read it.

        Raises:
            DataPolicyBlocked: he may not.
        """
        with self._noted():
            if self._judging is not None:
                body = await unhurried(self._judging.chunk(body, is_last=True))
            keep(body)
            return await unhurried(self._restoring.chunk(body, is_last=True))

    async def stream(self, chunks: AsyncIterator[Mapping[str, Any]], *, keep: Keep) -> AsyncIterator[Mapping[str, Any]]:
        """Yield chunks as the caller may read them, and last what was held back, also where `chunks` end in an error.

        Raises:
            DataPolicyBlocked: he may not read on.
        """
        with self._noted():
            ended_by: TollhouseError | None = None
            try:
                async for chunk in chunks:
                    yield await self._chunk(chunk, keep)
            except TollhouseError as error:
                ended_by = error
            if self._judging is not None and (held := await unhurried(self._judging.rest())):
                keep(held)
                yield await unhurried(self._restoring.chunk(held))
            if rest := await unhurried(self._restoring.rest()):
                yield rest
            if ended_by is not None:
                raise ended_by

    async def _chunk(self, chunk: Mapping[str, Any], keep: Keep) -> Mapping[str, Any]:
        if self._judging is not None:
            chunk = await unhurried(self._judging.chunk(chunk))
        keep(chunk)
        return await unhurried(self._restoring.chunk(chunk))

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Have noted what is found in the block, however it ends."""
        try:
            yield
        except Blocked as blocked:
            raise DataPolicyBlocked(detector=blocked.detector, direction="ANSWER") from None
        finally:
            self._log.note(self._call, Direction.ANSWER, self._findings)
