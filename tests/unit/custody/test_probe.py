"""What an upstream's answer to a probe says of the key."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
from tollhouse_server.custody.probe import ProbeVerdict, UpstreamProbe, destinations
from tollhouse_server.routing.models import Capability
from tollhouse_server.upstream.protocol import Broken, Destination, NotSent, Refused, UpstreamCall, UpstreamError
from tollhouse_server.vault.secret_text import SecretText

from tests.unit.routing.build import account, catalogue, model

SOMEWHERE = Destination(base_url="http://nowhere", api_version="v1", model="gemini-2.5-flash")
KEY_INVALID = {"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}}


@dataclass(frozen=True)
class Answering:
    """An upstream with one answer."""

    error: UpstreamError | None

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        del call
        if self.error is not None:
            raise self.error
        return {"totalTokens": 1}

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[dict[str, Any], None]:
        del call
        yield {}


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, ProbeVerdict.ACCEPTED),
        (Refused(401, {}), ProbeVerdict.REFUSED),
        (Refused(403, {}), ProbeVerdict.REFUSED),
        (Refused(400, KEY_INVALID), ProbeVerdict.REFUSED),
        (Refused(400, {"error": {"details": "nonsense"}}), ProbeVerdict.UNKNOWN),
        (Refused(404, {}), ProbeVerdict.UNKNOWN),
        (Refused(429, {}), ProbeVerdict.UNKNOWN),
        (Refused(503, {}), ProbeVerdict.UNKNOWN),
        (NotSent("no connection"), ProbeVerdict.UNKNOWN),
        (Broken("cut"), ProbeVerdict.UNKNOWN),
    ],
)
async def test_only_an_answer_about_the_key_decides(error: UpstreamError | None, verdict: ProbeVerdict) -> None:
    """An upstream in trouble must neither promote a key nor end its rotation at once."""
    probe = UpstreamProbe(Answering(error), lambda _: SOMEWHERE)

    assert await probe.check("main", SecretText("secret")) is verdict


async def test_an_account_that_is_not_served_tells_nothing() -> None:
    """There is nowhere to ask."""
    probe = UpstreamProbe(Answering(None), lambda _: None)

    assert await probe.check("main", SecretText("secret")) is ProbeVerdict.UNKNOWN


def test_a_probe_goes_to_the_account_whose_key_it_is() -> None:
    """With any model there that can count tokens, at the account's own address."""
    counting = model("counts", Capability.COUNT_TOKENS)
    found = destinations(lambda: catalogue(model("does-not"), counting, accounts=(account("a"), account("b"))))

    there = found("b")

    assert there is not None
    assert (there.base_url, there.model, there.project) == ("http://b", "counts", "b")
    assert found("unknown") is None
