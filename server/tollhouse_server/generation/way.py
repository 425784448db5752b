"""The way of one call from target to target: what it has met, and where it may still go."""

from collections.abc import Callable
from uuid import UUID

from tollhouse_server.errors import NoUpstreamKey, TollhouseError, UpstreamOutcomeUnknown
from tollhouse_server.generation.calls import GenerationCall, TargetTried
from tollhouse_server.generation.keeping import NOT_KEPT, Record
from tollhouse_server.generation.plans import Plan
from tollhouse_server.generation.refusals import Outage, is_out_of_quota, may_go_elsewhere, refusal_of
from tollhouse_server.routing.targets import Target
from tollhouse_server.upstream.protocol import Broken, Refused


class BrokenMidStream(Broken):
    """A stream broke after its first chunk was passed on: it is never begun anew."""


class Way:
    """One call under way. What is known of a failed attempt decides what may follow it."""

    def __init__(self, call: GenerationCall, plan: Plan, record: Record = NOT_KEPT) -> None:
        self.call = call
        self.plan = plan
        self.record = record
        self.tried: list[TargetTried] = []
        self.is_claimed = False
        """Whether an attempt of this call has claimed its request id."""
        self._failures: list[Outage] = []
        self._unknown: list[tuple[UUID, Broken]] = []
        self._closed: frozenset[Target] = frozenset()
        self._overloaded: frozenset[Target] = frozenset()
        self._served_rank = 0
        self._is_over = False

    @property
    def unknown_attempts(self) -> tuple[UUID, ...]:
        """Return the attempts that may have been served and charged; they are in suspense."""
        return tuple(attempt_id for attempt_id, _ in self._unknown)

    def open_targets(self, has_key: Callable[[str], bool]) -> tuple[Target, ...]:
        """Return the targets that may still serve the call, those of the lowest rank first.

        One that was overloaded is asked again when there is no other.

        Raises:
            NoUpstreamKey: none of them has a key, and no attempt was made.
        """
        left = (
            [target for target in self.plan.targets if target not in self._closed]
            if self._closed
            else self.plan.targets
        )
        keyed = {account_id for account_id in {target.account_id for target in left} if has_key(account_id)}
        usable = tuple([target for target in left if target.account_id in keyed])
        if self._overloaded:
            usable = tuple(target for target in usable if target not in self._overloaded) or usable
        # A call on its way has its key in hand: that no other is left is no reason to end it.
        if not usable and not self._failures and not self.is_claimed:
            raise NoUpstreamKey(model=left[0].model if left else self.call.model or self.call.tier or "")
        return usable

    def may_go_elsewhere(self, target: Target, has_key: Callable[[str], bool]) -> bool:
        """Tell whether another target than this one may still serve the call."""
        if self._overloaded or self._closed:
            return any(other is not target for other in self.open_targets(has_key))
        # A call's first attempt, which nearly all calls end with, asks for one other target and for no list.
        return any(other is not target and has_key(other.account_id) for other in self.plan.targets)

    def note_outage(
        self,
        target: Target,
        attempt_id: UUID | None,
        outage: Outage,
        *,
        has_other_key: bool = False,
        is_overload: bool = False,
    ) -> None:
        """Note an attempt that is known to have cost nothing.

        A target at its quota or overloaded stays open: whoever has the time may wait until there is room. So does one
        whose account has another key than the one refused.
        """
        self._failures.append(outage)
        is_exhausted = isinstance(outage, Refused) and is_out_of_quota(outage)
        refused = "EXHAUSTED" if is_exhausted else "REFUSED"
        self._note(target, attempt_id, refused if isinstance(outage, Refused) else "NOT_SENT")
        if not may_go_elsewhere(outage):
            self._is_over = True
        if is_overload:
            self._overloaded |= {target}
        elif not is_exhausted and not has_other_key:
            self._closed |= {target}

    def note_unknown(self, target: Target, attempt_id: UUID, failure: Broken) -> None:
        """Note an attempt whose outcome is not known; the call may go on only where its caller lets it be sent anew."""
        self._unknown.append((attempt_id, failure))
        self._note(target, attempt_id, "UNKNOWN")
        self._closed |= {target}
        if isinstance(failure, BrokenMidStream) or not self.plan.resend_unknown:
            self._is_over = True

    def note_served(self, target: Target, attempt_id: UUID) -> None:
        """Note the attempt that brought the answer."""
        self._served_rank = target.rank
        self._note(target, attempt_id, "ANSWERED")

    @property
    def is_fallback(self) -> bool:
        """Tell whether another target than the first choice answered."""
        return len(self.tried) > 1 or self._served_rank > self.plan.targets[0].rank

    @property
    def may_go_on(self) -> bool:
        """Tell whether what has happened lets another attempt follow."""
        return not self._is_over and len(self._closed) < len(self.plan.targets)

    def refusal(self) -> TollhouseError:
        """Return what the caller is told when no target served the call."""
        if not self._unknown:
            return refusal_of(self._failures)
        attempt_id, failure = self._unknown[-1]
        return UpstreamOutcomeUnknown(attempt_id=str(attempt_id), last_error=str(failure))

    def _note(self, target: Target, attempt_id: UUID | None, outcome: str) -> None:
        self.tried.append(
            TargetTried(
                model=target.model,
                kind=target.kind,
                account_id=target.account_id,
                region=target.region,
                outcome=outcome,
                attempt_id=attempt_id,
            )
        )
