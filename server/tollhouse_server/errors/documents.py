"""What keeps a statement from being written or delivered."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


@dataclass(eq=False, kw_only=True)
class FontMissing(TollhouseError):
    """A PDF has letters that no font on the server has; any one of `fonts` would do."""

    reason = "FONT_MISSING"
    fonts: tuple[str, ...]

    def message(self) -> str:
        return (
            f"The server has no font with the document's letters; install one of {', '.join(self.fonts)} there, or "
            "take another format."
        )


@dataclass(eq=False, kw_only=True)
class DeliveryNotSetUp(TollhouseError):
    """The deployment has no such way to deliver; `setting` names what would open it."""

    reason = "DELIVERY_NOT_SET_UP"
    way: str
    setting: str

    def message(self) -> str:
        return f"This deployment does not deliver {self.way}; whoever runs it can set {self.setting}."
