"""How long the current token lives, and when to renew it or to log in again."""

from dataclasses import dataclass

# Renew when a third of the life is left: two more tries fit in before the end.
RENEW_AT_FRACTION = 2 / 3
# A renewal that brings less than this share of a full life is near the token's maximum: log in again.
WORTH_RENEWING_FRACTION = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A token's life: granted at `granted_at` (monotonic seconds) for `ttl_seconds`."""

    granted_at: float
    ttl_seconds: float
    full_ttl_seconds: float
    renewable: bool

    def expired(self, now: float) -> bool:
        """Tell whether Vault has dropped the token by now. A TTL of 0 never ends."""
        return self.ttl_seconds > 0 and now >= self.granted_at + self.ttl_seconds

    def seconds_to_renewal(self, now: float) -> float:
        """Return how long to wait before the next renewal."""
        return max(0.0, self.granted_at + self.ttl_seconds * RENEW_AT_FRACTION - now)

    @property
    def worth_renewing(self) -> bool:
        """Tell whether a renewal still brings time; else log in anew."""
        return self.renewable and self.ttl_seconds >= self.full_ttl_seconds * WORTH_RENEWING_FRACTION
