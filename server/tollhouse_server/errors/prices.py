"""What the catalogue and the price book do not allow."""

from dataclasses import dataclass

from tollhouse_server.errors.base import FieldViolation, TollhouseError


@dataclass(eq=False, kw_only=True)
class ModelUnknown(TollhouseError):
    """No tier, model or alias of this name in the catalogue."""

    reason = "MODEL_UNKNOWN"
    name: str

    def message(self) -> str:
        return f"No tier or model is called {self.name!r}; CatalogService.ListTiers and ListModels show the names."


@dataclass(eq=False, kw_only=True)
class ModelShutDown(TollhouseError):
    """The model's shutdown date has passed."""

    reason = "MODEL_SHUT_DOWN"
    model: str
    shutdown_on: str
    successor: str

    def message(self) -> str:
        return f"Model {self.model} was shut down on {self.shutdown_on}" + (
            f"; use {self.successor}." if self.successor else "."
        )


@dataclass(eq=False, kw_only=True)
class ModelUnpriced(TollhouseError):
    """The price book has no price for something this call could be charged for: it is refused, not free."""

    reason = "MODEL_UNPRICED"
    model: str
    sku: str

    def message(self) -> str:
        return (
            f"Model {self.model} has no price for {self.sku} today, so it cannot be called; "
            "an administrator must import one."
        )


@dataclass(eq=False, kw_only=True)
class PriceFileInvalid(TollhouseError):
    """A price or catalogue file is refused whole; the last good one stays in force."""

    reason = "PRICE_FILE_INVALID"
    violations: tuple[FieldViolation, ...]

    def message(self) -> str:
        return "The price file is refused, nothing was changed: " + "; ".join(
            f"{v.path}: {v.description}" for v in self.violations
        )


@dataclass(eq=False, kw_only=True)
class PricesImplausible(TollhouseError):
    """A well-formed price file that cannot be meant: gaps, jumps, prices of zero. The last good book stays in force."""

    reason = "PRICES_IMPLAUSIBLE"
    violations: tuple[FieldViolation, ...]

    def message(self) -> str:
        return "The prices cannot be meant, nothing was changed: " + "; ".join(
            f"{v.path}: {v.description}" for v in self.violations
        )


@dataclass(eq=False, kw_only=True)
class PriceProposalOutdated(TollhouseError):
    """The book has changed since prices were proposed: what would be approved is not what was shown."""

    reason = "PRICE_PROPOSAL_OUTDATED"
    name: str
    base_version: int
    current_version: int

    def message(self) -> str:
        return (
            f"{self.name} changes version {self.base_version} of the price book, and version {self.current_version} "
            "is in force; propose it anew."
        )
