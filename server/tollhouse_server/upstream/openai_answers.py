"""From the answers of an OpenAI-compatible server to Gemini's. Pure functions.

Members without a counterpart in Gemini's JSON are kept under `openai`, in the candidate or beside the candidates, and
reach the caller as `extra`; only `object`, the roles and empty members are dropped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tollhouse_server.upstream.openai_usage import embedding_usage, usage_metadata
from tollhouse_server.upstream.protocol import Broken

JsonObject = dict[str, Any]

REST = "openai"
"""The member under which everything is kept that has no place in Gemini's JSON."""

_FINISH_REASONS = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "tool_calls": "STOP",
    "function_call": "STOP",
}
_ENVELOPE = frozenset({"choices", "usage", "model", "id", "object"})
_CHOICE = frozenset({"index", "message", "delta", "finish_reason", "logprobs"})
_MESSAGE = frozenset({"role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call"})


def generated(body: Mapping[str, Any]) -> JsonObject:
    """Return a chat completion as an answer to generateContent.

    Raises:
        Broken: it is none; it may have been charged.
    """
    choices = choices_of(body)
    if not choices:
        raise Broken("the answer has no choice")
    answer: JsonObject = {"candidates": [_candidate(choice) for choice in choices]}
    usage = usage_metadata(body.get("usage"))
    if usage is not None:
        answer["usageMetadata"] = usage
    return answer | envelope_of(body) | kept(rest_of_envelope(body))


def embedded(body: Mapping[str, Any], *, count: int) -> JsonObject:
    """Return embeddings as an answer to batchEmbedContents for that many texts.

    Raises:
        Broken: it is not one vector for each of them.
    """
    items = [item for item in _list(body.get("data")) if isinstance(item, Mapping)]
    vectors = {str(item.get("index", place)): item.get("embedding") for place, item in enumerate(items)}
    ordered = [vectors.get(str(place)) for place in range(count)]
    if len(items) != count or not all(isinstance(vector, list) for vector in ordered):
        raise Broken("the answer has not one embedding for each text")
    usage = embedding_usage(body.get("usage"))
    return {"embeddings": [{"values": vector} for vector in ordered]} | (
        {} if usage is None else {"usageMetadata": usage}
    )


def choices_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the choices of an answer or a chunk.

    Raises:
        Broken: it is an error that came as a success.
    """
    if body.get("error"):
        raise Broken("the answer carries an error")
    return [choice for choice in _list(body.get("choices")) if isinstance(choice, Mapping)]


def index_of(choice: Mapping[str, Any]) -> int:
    """Return a choice's place among the choices."""
    index = choice.get("index")
    return index if type(index) is int else 0


def envelope_of(body: Mapping[str, Any]) -> JsonObject:
    """Return what says which model gave which answer."""
    named = {"modelVersion": body.get("model"), "responseId": body.get("id")}
    return {name: value for name, value in named.items() if isinstance(value, str) and value}


def rest_of_envelope(body: Mapping[str, Any]) -> JsonObject:
    """Return what an answer has beside what is translated."""
    return _rest(body, _ENVELOPE)


def rest_of_choice(choice: Mapping[str, Any], message: Mapping[str, Any]) -> JsonObject:
    """Return what a choice has beside what is translated."""
    return _rest(choice, _CHOICE) | _rest(message, _MESSAGE)


def kept(rest: JsonObject) -> JsonObject:
    """Return what is left over under the name by which it reaches the caller, nothing if nothing is."""
    return {REST: rest} if rest else {}


def content_of(parts: Sequence[JsonObject]) -> JsonObject:
    """Return a candidate's content; without parts it has only its role, as with Gemini."""
    return {"parts": list(parts), "role": "model"} if parts else {"role": "model"}


def spoken_parts(message: Mapping[str, Any]) -> list[JsonObject]:
    """Return thoughts and text of a message or of a stream's delta."""
    thought = message.get("reasoning_content") or message.get("reasoning")
    texts = [*_texts(message.get("content")), *_texts(message.get("refusal"))]
    parts: list[JsonObject] = [{"text": text, "thought": True} for text in _texts(thought)]
    return parts + [{"text": text} for text in texts]


def finish(reason: object, *, refused: bool, malformed: str) -> JsonObject:
    """Return how a candidate ended; a reason that Gemini has no word for stands in the message."""
    known = _FINISH_REASONS.get(str(reason), "OTHER")
    if known == "STOP" and malformed:
        known = "MALFORMED_FUNCTION_CALL"
    elif known == "STOP" and refused:
        known = "SAFETY"
    said = f"The server's reason: {str(reason)[:200]}." if reason else "The server gave no reason."
    message = malformed or (said if known == "OTHER" else "")
    return {"finishReason": known} | ({"finishMessage": message} if message else {})


def call_parts(calls: Sequence[Mapping[str, Any]]) -> tuple[list[JsonObject], str]:
    """Return tool calls as functionCall parts, and the text of those that are no calls: cut off, or not JSON."""
    parts, malformed = [], []
    for call in calls:
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        name, arguments = str(function.get("name") or ""), function.get("arguments")
        args = _arguments(arguments)
        if args is None:
            malformed.append(f"Malformed function call: {name}({arguments})")
            continue
        call_id = {"id": call["id"]} if isinstance(call.get("id"), str) and call["id"] else {}
        parts.append({"functionCall": {**call_id, "name": name, "args": args}})
    return parts, "\n".join(malformed)


def logprobs(report: object) -> JsonObject:
    """Return the log probabilities of an answer's tokens, or of a chunk's."""
    steps = [step for step in _list(report.get("content")) if _is_step(step)] if isinstance(report, Mapping) else []
    if not steps:
        return {}
    result: JsonObject = {"chosenCandidates": [_logprob(step) for step in steps]}
    if any(step.get("top_logprobs") for step in steps):
        result["topCandidates"] = [
            {"candidates": [_logprob(top) for top in _list(step.get("top_logprobs")) if _is_step(top)]}
            for step in steps
        ]
    return {"logprobsResult": result}


def _candidate(choice: Mapping[str, Any]) -> JsonObject:
    message = choice.get("message")
    message = message if isinstance(message, Mapping) else {}
    calls = [call for call in _list(message.get("tool_calls")) if isinstance(call, Mapping)]
    if message.get("function_call"):
        calls.append({"function": message["function_call"]})
    called, malformed = call_parts(calls)
    candidate: JsonObject = {"content": content_of([*spoken_parts(message), *called]), "index": index_of(choice)}
    candidate |= finish(choice.get("finish_reason"), refused=bool(message.get("refusal")), malformed=malformed)
    return candidate | _averaged(logprobs(choice.get("logprobs"))) | kept(rest_of_choice(choice, message))


def _averaged(odds: JsonObject) -> JsonObject:
    if not odds:
        return {}
    chosen = [step["logProbability"] for step in odds["logprobsResult"]["chosenCandidates"]]
    return odds | {"avgLogprobs": sum(chosen) / len(chosen)}


def _texts(content: object) -> list[str]:
    """Return the texts of a content, which is a string or, with some servers, a list of parts."""
    if isinstance(content, str):
        return [content] if content else []
    parts = [part.get("text") for part in _list(content) if isinstance(part, Mapping)]
    return [text for text in parts if isinstance(text, str) and text]


def _arguments(arguments: object) -> JsonObject | None:
    """Return a call's arguments, None if they are no JSON object; some servers send the object itself."""
    if isinstance(arguments, dict) or arguments in (None, ""):
        return arguments if isinstance(arguments, dict) else {}
    try:
        parsed = orjson.loads(str(arguments))
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _is_step(step: object) -> bool:
    return isinstance(step, Mapping) and isinstance(step.get("logprob"), int | float)


def _logprob(step: Mapping[str, Any]) -> JsonObject:
    token_id = {"tokenId": step["id"]} if type(step.get("id")) is int else {}
    return {"token": str(step.get("token", "")), "logProbability": step["logprob"]} | token_id


def _rest(value: Mapping[str, Any], translated: frozenset[str]) -> JsonObject:
    empty: tuple[object, ...] = (None, "", [], {})
    return {name: inner for name, inner in value.items() if name not in translated and inner not in empty}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
