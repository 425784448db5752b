"""OpenAI's request and answer bodies, read into and written from Gemini's, which all of the simulator thinks in."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from tollhouse_server.simulator.errors import GeminiError, JsonObject, invalid_argument

_DATA_URI = re.compile(r"data:(?P<type>[^;,]+);base64,(?P<data>.*)", re.DOTALL)
_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "n": "candidateCount",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_FINISH = {"STOP": "stop", "MAX_TOKENS": "length"}
_READ = {"model", "messages", "stream", "stream_options", "stop", "response_format", "tools", "tool_choice"}
_KNOWN = _READ | {"reasoning_effort"} | _CONFIG.keys()


def read_object(raw: bytes) -> JsonObject:
    """Parse a body, or raise a 400."""
    try:
        parsed = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError:
        raise invalid_argument("We could not parse the JSON body of your request.") from None
    if not isinstance(parsed, dict):
        raise invalid_argument("The body is not a JSON object.")
    return {name: value for name, value in parsed.items() if value is not None}


def read_completion(body: JsonObject) -> JsonObject:
    """Give a chat completion's body as a GenerateContentRequest, or raise a 400."""
    unknown = body.keys() - _KNOWN
    if unknown:
        raise invalid_argument(f"Unrecognized request argument supplied: {min(unknown)}")
    try:
        return _request(body)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise invalid_argument(f"Invalid value in the request: {type(error).__name__}.") from None


def _request(body: JsonObject) -> JsonObject:
    names: dict[str, str] = {}
    system, contents = [], []
    for message in body["messages"]:
        if message["role"] in {"system", "developer"}:
            system += _parts(message["content"])
        else:
            contents.append(_content(message, names))
    request: JsonObject = {"contents": contents}
    if system:
        request["systemInstruction"] = {"parts": system}
    if body.get("tools"):
        request["tools"] = [{"functionDeclarations": [_declaration(tool["function"]) for tool in body["tools"]]}]
    if "tool_choice" in body:
        request["toolConfig"] = {"functionCallingConfig": _choice(body["tool_choice"])}
    return request | {"generationConfig": _config(body)}


def _content(message: JsonObject, names: dict[str, str]) -> JsonObject:
    """Read one message; `names` are the functions called so far, by the call's id."""
    role = message["role"]
    if role == "tool":
        call_id = message["tool_call_id"]
        response = {"id": call_id, "name": names[call_id], "response": {"output": message["content"]}}
        return {"role": "user", "parts": [{"functionResponse": response}]}
    if role not in {"user", "assistant"}:
        raise ValueError(role)
    parts = _parts(message.get("content") or "")
    for call in message.get("tool_calls") or ():
        names[call["id"]] = call["function"]["name"]
        args = orjson.loads(call["function"]["arguments"] or "{}")
        parts.append({"functionCall": {"id": call["id"], "name": call["function"]["name"], "args": args}})
    return {"role": "model" if role == "assistant" else "user", "parts": parts}


def _parts(content: Any) -> list[JsonObject]:
    if isinstance(content, str):
        return [{"text": content}] if content else []
    return [_part(part) for part in content]


def _part(part: JsonObject) -> JsonObject:
    if part["type"] == "text":
        return {"text": part["text"]}
    if part["type"] == "input_audio":
        audio = part["input_audio"]
        return {"inlineData": {"mimeType": _AUDIO_TYPES[audio["format"]], "data": audio["data"]}}
    found = _DATA_URI.fullmatch(part["image_url"]["url"])
    if found is None:
        raise ValueError("only data URIs")
    return {"inlineData": {"mimeType": found["type"], "data": found["data"]}}


def _declaration(function: JsonObject) -> JsonObject:
    declared = {name: function[name] for name in ("name", "description") if name in function}
    return declared | {"parametersJsonSchema": function.get("parameters") or {"type": "object"}}


def _choice(choice: Any) -> JsonObject:
    if isinstance(choice, str):
        return {"mode": _MODES[choice]}
    return {"mode": "ANY", "allowedFunctionNames": [choice["function"]["name"]]}


def _config(body: JsonObject) -> JsonObject:
    config: JsonObject = {ours: body[theirs] for theirs, ours in _CONFIG.items() if theirs in body}
    if body.get("stop"):
        config["stopSequences"] = [body["stop"]] if isinstance(body["stop"], str) else body["stop"]
    effort = body.get("reasoning_effort")
    if effort:
        asked = {"thinkingBudget": 0} if effort == "none" else {"thinkingLevel": effort.upper()}
        config["thinkingConfig"] = {"includeThoughts": True} | asked
    shape = body.get("response_format", {})
    if shape.get("type") in {"json_object", "json_schema"}:
        config["responseMimeType"] = "application/json"
    if shape.get("type") == "json_schema":
        config["responseJsonSchema"] = shape["json_schema"]["schema"]
    return config


def completion(answer: Mapping[str, Any]) -> JsonObject:
    """Give a unary answer as a chat completion; a blocked prompt is a choice without words."""
    candidates = answer.get("candidates") or [{"finishReason": "SAFETY"}]
    choices = [_choice_of(candidate, "message") for candidate in candidates]
    usage = answer.get("usageMetadata")
    return _envelope(answer, "chat.completion", choices) | ({"usage": usage_of(usage)} if usage else {})


def completion_chunks(answer: Mapping[str, Any]) -> Iterator[JsonObject]:
    """Give one chunk of a stream as chunks of a chat completion: what is said, then how it ended."""
    for candidate in answer.get("candidates") or [{"finishReason": "SAFETY"}]:
        choice = _choice_of(candidate, "delta")
        if len(choice["delta"]) > 1:
            yield _envelope(answer, "chat.completion.chunk", [choice | {"finish_reason": None}])
        if choice["finish_reason"]:
            ended = {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}
            yield _envelope(answer, "chat.completion.chunk", [ended])


def usage_chunk(answer: Mapping[str, Any]) -> JsonObject:
    """Give the chunk that tells a stream's usage: no choices."""
    return _envelope(answer, "chat.completion.chunk", []) | {"usage": usage_of(answer["usageMetadata"])}


def usage_of(usage: Mapping[str, Any]) -> JsonObject:
    """Give usage metadata as OpenAI counts: thoughts are a part of the completion."""
    prompt, thoughts = usage.get("promptTokenCount", 0), usage.get("thoughtsTokenCount", 0)
    written = usage.get("candidatesTokenCount", 0) + thoughts
    shown: JsonObject = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    shown["prompt_tokens_details"] = {"cached_tokens": usage.get("cachedContentTokenCount", 0)}
    shown["completion_tokens_details"] = {"reasoning_tokens": thoughts}
    return shown


def _envelope(answer: Mapping[str, Any], kind: str, choices: list[JsonObject]) -> JsonObject:
    named = {"id": answer["responseId"], "object": kind, "model": answer["modelVersion"]}
    return named | {"created": int(time.time()), "choices": choices}


def _choice_of(candidate: Mapping[str, Any], name: str) -> JsonObject:
    parts = candidate.get("content", {}).get("parts", [])
    message: JsonObject = {"role": "assistant"}
    for member, is_thought in (("content", False), ("reasoning_content", True)):
        text = "".join(part.get("text", "") for part in parts if bool(part.get("thought")) is is_thought)
        if text:
            message[member] = text
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    if calls:
        message["tool_calls"] = [_tool_call(call, place) for place, call in enumerate(calls)]
    reason = candidate.get("finishReason")
    finish = "tool_calls" if calls and reason == "STOP" else _FINISH.get(reason or "", "content_filter")
    choice = {"index": candidate.get("index", 0), name: message, "finish_reason": finish if reason else None}
    odds = candidate.get("logprobsResult")
    return choice | ({"logprobs": {"content": _odds(odds)}} if odds else {})


def _tool_call(call: JsonObject, place: int) -> JsonObject:
    function = {"name": call["name"], "arguments": orjson.dumps(call["args"]).decode()}
    return {"index": place, "id": call.get("id", f"call_{place}"), "type": "function", "function": function}


def _odds(result: JsonObject) -> list[JsonObject]:
    tops = result.get("topCandidates") or [{"candidates": []}] * len(result["chosenCandidates"])
    return [
        _step(chosen) | {"top_logprobs": [_step(each) for each in top["candidates"]]}
        for chosen, top in zip(result["chosenCandidates"], tops, strict=True)
    ]


def _step(chosen: JsonObject) -> JsonObject:
    return {"token": chosen["token"], "id": chosen["tokenId"], "logprob": chosen["logProbability"]}


def refusal_body(refusal: GeminiError) -> tuple[int, JsonObject, dict[str, str]]:
    """Give status, body and headers of a refusal; a key that is not accepted earns 401 here."""
    kind = next((kind for kind, holds in _KINDS.items() if holds(refusal)), "server_error")
    status = 401 if kind == "authentication_error" else refusal.code
    error = {"message": refusal.message, "type": kind, "param": None, "code": refusal.status.lower()}
    delay = next((detail["retryDelay"] for detail in refusal.details if "retryDelay" in detail), "")
    return status, {"error": error}, {"retry-after": delay.removesuffix("s")} if delay else {}


def _is_about_the_key(refusal: GeminiError) -> bool:
    reasons = {detail.get("reason") for detail in refusal.details}
    return refusal.code == 401 or "API_KEY_INVALID" in reasons or "unregistered" in refusal.message


_KINDS: Mapping[str, Callable[[GeminiError], bool]] = {
    "authentication_error": _is_about_the_key,
    "rate_limit_error": lambda refusal: refusal.code == 429,
    "permission_error": lambda refusal: refusal.code == 403,
    "invalid_request_error": lambda refusal: refusal.code < 500,
}
