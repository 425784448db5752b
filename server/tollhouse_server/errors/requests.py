"""What is wrong with a request."""

from dataclasses import dataclass

from tollhouse_server.errors.base import FieldViolation, TollhouseError


@dataclass(eq=False, kw_only=True)
class InvalidRequest(TollhouseError):
    """Fields of the request are wrong; nothing was booked."""

    reason = "INVALID_REQUEST"
    violations: tuple[FieldViolation, ...]

    def message(self) -> str:
        return "Invalid request: " + "; ".join(
            f"{v.path}: {v.description}" if v.path else v.description for v in self.violations
        )


@dataclass(eq=False, kw_only=True)
class RequestTooLarge(TollhouseError):
    """The request, or its metadata, is bigger than the server takes."""

    reason = "REQUEST_TOO_LARGE"
    size_bytes: int
    limit_bytes: int
    part: str = ""

    def message(self) -> str:
        what = f"The request's {self.part} has" if self.part else "The request has"
        return f"{what} {self.size_bytes} bytes; the limit is {self.limit_bytes}."


@dataclass(eq=False, kw_only=True)
class RequestIdReused(TollhouseError):
    """The same request id came with another body within 24 hours."""

    reason = "REQUEST_ID_REUSED"
    request_id: str

    def message(self) -> str:
        return (
            f"Request id {self.request_id} was used for another request within 24 hours; "
            "make a new id for each new request."
        )


@dataclass(eq=False, kw_only=True)
class DuplicateRequest(TollhouseError):
    """The same request came again; it was dispatched once and is not sent again."""

    reason = "DUPLICATE_REQUEST"
    request_id: str
    state: str

    def message(self) -> str:
        return (
            f"Request id {self.request_id} was dispatched already (state {self.state}) and is never sent twice; "
            "its receipt is in UsageService."
        )


@dataclass(eq=False, kw_only=True)
class DeadlineTooShort(TollhouseError):
    """The caller's deadline ended before the call could be dispatched; nothing was sent upstream.

    `retry_after_seconds` is for one who has waited for a place in vain: how long those in front of him need.
    """

    reason = "DEADLINE_TOO_SHORT"
    retry_after_seconds: float | None = None

    def message(self) -> str:
        return "The deadline ended before the call could be sent upstream; nothing was booked. Allow more time."
