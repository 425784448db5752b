"""When a permit is asked for again."""

import pytest
from tollhouse_server.access.permit import LivePermit
from tollhouse_server.errors import PermissionDenied


class Knowledge:
    """What a process knows: which version, and whether it is young enough."""

    def __init__(self) -> None:
        self.version = 1
        self.is_certain = True
        self.certain_until = 7.0


class Asked:
    """Notes how often it was asked, and does something then."""

    def __init__(self, knowledge: Knowledge, *, is_revoked: bool = False) -> None:
        self.times = 0
        self._knowledge = knowledge
        self._is_revoked = is_revoked

    async def __call__(self) -> None:
        """Be asked: the answer is as the database has it now."""
        self.times += 1
        self._knowledge.is_certain = True
        if self._is_revoked:
            raise PermissionDenied(permission="limits.get", scope="tenants/acme")


async def test_what_has_not_changed_is_not_asked_for_again() -> None:
    """The usual case: a comparison, and no question."""
    knowledge = Knowledge()
    asked = Asked(knowledge)

    assert await LivePermit(knowledge, 1, asked).sure_until() == 7.0  # type: ignore[arg-type]

    assert asked.times == 0


@pytest.mark.parametrize("change", ["version", "age"])
async def test_after_a_change_or_a_silence_it_is_asked_for_once(change: str) -> None:
    """And then holds until the next."""
    knowledge = Knowledge()
    asked = Asked(knowledge)
    permit = LivePermit(knowledge, 1, asked)  # type: ignore[arg-type]
    if change == "version":
        knowledge.version = 2
    else:
        knowledge.is_certain = False

    await permit.sure_until()
    await permit.sure_until()

    assert asked.times == 1


async def test_who_was_revoked_hears_it() -> None:
    """Whatever the permit was given on."""
    knowledge = Knowledge()
    permit = LivePermit(knowledge, 0, Asked(knowledge, is_revoked=True))  # type: ignore[arg-type]

    with pytest.raises(PermissionDenied):
        await permit.sure_until()
