"""One attempt of a call, from the place it takes to what it brought."""

from typing import Any, NamedTuple

from tollhouse_server.errors import TollhouseError
from tollhouse_server.generation.attempts import Attempt
from tollhouse_server.generation.bills import Bill
from tollhouse_server.generation.keys import ChosenKey
from tollhouse_server.generation.plans import Stop
from tollhouse_server.generation.way import Way
from tollhouse_server.traffic.places import Place
from tollhouse_server.upstream.protocol import UpstreamCall


class Stage(NamedTuple):
    """The next attempt of a call: the place it takes, what is sent there, and with which key."""

    place: Place
    stop: Stop
    key: ChosenKey


class Trial(NamedTuple):
    """One attempt at one stage, in flight."""

    way: Way
    stage: Stage
    attempt: Attempt
    upstream_call: UpstreamCall


class Served(NamedTuple):
    """What an attempt brought. `body` is empty where the chunks were passed on already.

    `cut_off` says why a stream was ended before it was finished; what it used is booked all the same. `model_version`
    and `finish_reasons` are Gemini's own words.
    """

    body: dict[str, Any]
    response_id: str
    bill: Bill
    cut_off: TollhouseError | None = None
    model_version: str = ""
    finish_reasons: tuple[str, ...] = ()
