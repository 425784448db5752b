"""From the chunks of a streamed chat completion to Gemini's chunks.

Gemini's last chunk holds the reason why the answer ended and its usage; an OpenAI-compatible server sends the usage in
a chunk of its own after that, so the last chunk is kept until it is known to be the last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tollhouse_server.upstream.openai_answers import (
    JsonObject,
    call_parts,
    choices_of,
    content_of,
    envelope_of,
    finish,
    index_of,
    kept,
    logprobs,
    rest_of_choice,
    rest_of_envelope,
    spoken_parts,
)
from tollhouse_server.upstream.openai_usage import usage_metadata
from tollhouse_server.upstream.protocol import Broken


@dataclass(slots=True)
class _Open:
    """A candidate under way. Its function calls come in pieces, and are passed on whole: Gemini sends no halves."""

    calls: list[JsonObject] = field(default_factory=list)
    is_finished: bool = False
    is_refused: bool = False
    rest: JsonObject = field(default_factory=dict)

    def add_calls(self, deltas: object) -> None:
        for delta in deltas if isinstance(deltas, list) else []:
            if isinstance(delta, Mapping):
                self._add_call(delta)

    def _add_call(self, delta: Mapping[str, Any]) -> None:
        call = self._call_of(delta)
        function = delta.get("function")
        function = function if isinstance(function, Mapping) else {}
        call["id"] = call["id"] or delta.get("id")
        call["function"]["name"] = call["function"]["name"] or function.get("name")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            begun = call["function"]["arguments"]
            call["function"]["arguments"] = begun + arguments if isinstance(begun, str) else arguments
        elif arguments:
            call["function"]["arguments"] = arguments

    def _call_of(self, delta: Mapping[str, Any]) -> JsonObject:
        """Return the call that a piece belongs to; a piece without an index begins a call if it has an id."""
        place = delta.get("index")
        for call in self.calls:
            if type(place) is int and call["place"] == place:
                return call
        if self.calls and type(place) is not int and not delta.get("id"):
            return self.calls[-1]
        begun: JsonObject = {"place": place, "id": None, "function": {"name": None, "arguments": ""}}
        self.calls.append(begun)
        return begun

    def ended(self, reason: object) -> tuple[list[JsonObject], JsonObject]:
        """Return the parts that come at the end, and how it ended."""
        self.is_finished = True
        parts, malformed = call_parts(self.calls)
        return parts, finish(reason, refused=self.is_refused, malformed=malformed) | kept(self.rest)


class ChunkTranslation:
    """Translates one stream, chunk by chunk."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._last: JsonObject | None = None
        self._envelope: JsonObject = {}
        self._rest: JsonObject = {}

    def take(self, chunk: Mapping[str, Any]) -> list[JsonObject]:
        """Return what can be passed on after this chunk.

        Raises:
            Broken: it is an error.
        """
        choices = choices_of(chunk)
        self._envelope |= envelope_of(chunk)
        self._rest |= rest_of_envelope(chunk)
        candidates = [found for choice in choices if (found := self._candidate(choice)) is not None]
        usage = usage_metadata(chunk.get("usage"))
        reported = {} if usage is None else {"usageMetadata": usage}
        if not candidates and self._last is not None:
            self._last |= reported
            return []
        body = ({"candidates": candidates} if candidates else {}) | reported
        return self._passed_on(body | self._envelope) if body else []

    def end(self, *, is_said: bool) -> list[JsonObject]:
        """Return what is left; `is_said` tells whether the server has said that the stream is complete.

        Raises:
            Broken: it has not, and an answer is not finished, or there was none.
        """
        unfinished = {index: each for index, each in self._open.items() if not each.is_finished}
        if not self._open or (unfinished and not is_said):
            raise Broken("the stream ended before the answer did")
        chunks = []
        if unfinished:
            candidates = [_candidate(index, *each.ended(None)) for index, each in unfinished.items()]
            chunks += self._passed_on({"candidates": candidates} | self._envelope)
        if self._last is not None:
            chunks.append(self._last | kept(self._rest))
        return chunks

    def _passed_on(self, body: JsonObject) -> list[JsonObject]:
        """Keep a chunk that may be the last, and return those that are not."""
        earlier = [] if self._last is None else [self._last]
        self._last = None
        if any("finishReason" in each for each in body.get("candidates", ())):
            self._last = body
            return earlier
        return [*earlier, body]

    def _candidate(self, choice: Mapping[str, Any]) -> JsonObject | None:
        """Return what is new of a candidate, None if nothing is."""
        delta = choice.get("delta")
        delta = delta if isinstance(delta, Mapping) else {}
        candidate = self._open.setdefault(index_of(choice), _Open())
        candidate.add_calls(delta.get("tool_calls"))
        candidate.is_refused = candidate.is_refused or bool(delta.get("refusal"))
        candidate.rest |= rest_of_choice(choice, delta)
        parts = spoken_parts(delta)
        end: JsonObject = {}
        if choice.get("finish_reason") and not candidate.is_finished:
            last_parts, end = candidate.ended(choice["finish_reason"])
            parts += last_parts
        odds = logprobs(choice.get("logprobs"))
        return _candidate(index_of(choice), parts, end | odds) if parts or end or odds else None


def _candidate(index: int, parts: list[JsonObject], members: JsonObject) -> JsonObject:
    return {"content": content_of(parts), "index": index} | members
