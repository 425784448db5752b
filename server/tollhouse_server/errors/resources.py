"""What is wrong with a resource that is asked for or changed."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


@dataclass(eq=False, kw_only=True)
class ResourceNotFound(TollhouseError):
    """The caller may see this scope, and there is nothing of this name in it."""

    reason = "RESOURCE_NOT_FOUND"
    name: str

    def message(self) -> str:
        return f"{self.name} does not exist."


@dataclass(eq=False, kw_only=True)
class ResourceExists(TollhouseError):
    """A resource of this name exists already."""

    reason = "RESOURCE_EXISTS"
    name: str

    def message(self) -> str:
        return f"{self.name} exists already; choose another id, for those of deleted ones stay taken, or update it."


@dataclass(eq=False, kw_only=True)
class ResourceInUse(TollhouseError):
    """The resource cannot be removed or changed while others depend on it."""

    reason = "RESOURCE_IN_USE"
    name: str
    used_by: str

    def message(self) -> str:
        return f"{self.name} is used by {self.used_by}; remove or move that first."


@dataclass(eq=False, kw_only=True)
class EtagMismatch(TollhouseError):
    """Someone changed the resource since it was read."""

    reason = "ETAG_MISMATCH"
    name: str

    def message(self) -> str:
        return f"{self.name} was changed since you read it; read it again and repeat the change on the new version."


@dataclass(eq=False, kw_only=True)
class WrongState(TollhouseError):
    """The resource is in a state from which the step does not lead on."""

    reason = "WRONG_STATE"
    name: str
    state: str
    needed: str

    def message(self) -> str:
        return f"{self.name} is {self.state}; it must be {self.needed} for that."


@dataclass(eq=False, kw_only=True)
class SecondPersonNeeded(TollhouseError):
    """Whoever asked for it cannot approve it, with whichever credential."""

    reason = "SECOND_PERSON_NEEDED"
    name: str

    def message(self) -> str:
        return f"{self.name} was requested by you; someone else must approve it."


@dataclass(eq=False, kw_only=True)
class RequesterOnly(TollhouseError):
    """Only whoever asked for it may take it back."""

    reason = "REQUESTER_ONLY"
    name: str

    def message(self) -> str:
        return f"{self.name} was requested by someone else; only the requester can withdraw it."


@dataclass(eq=False, kw_only=True)
class ServerDraining(TollhouseError):
    """This worker is shutting down and takes no new calls."""

    reason = "SERVER_DRAINING"

    def message(self) -> str:
        return "This server is shutting down; try again, another one will answer."
