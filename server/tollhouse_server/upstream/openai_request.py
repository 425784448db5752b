"""From Gemini's request bodies to the bodies of an OpenAI-compatible server. Pure functions.

Dropped knowingly: safetySettings (there is nothing behind such a server that knows them), labels (they go to Google's
bill; ours are in the ledger), the model's name in the body (the destination says which), what a declared function gives
back, thoughts and signatures of earlier turns, names of media. All else is translated or refused.
"""

from collections.abc import Mapping
from typing import Any

from tollhouse_server.upstream.openai_members import Members, inexpressible
from tollhouse_server.upstream.openai_messages import Message, messages_of, text_of
from tollhouse_server.upstream.openai_settings import generation_settings, tool_settings


def chat_completion(body: Mapping[str, Any], model: str, *, is_stream: bool) -> dict[str, Any]:
    """Return the body of /chat/completions for one of generateContent or streamGenerateContent.

    Raises:
        Refused: it asks for something that cannot be expressed; the error names the field.
    """
    request = Members(body, "")
    translated: dict[str, Any] = {"model": model, "messages": messages_of(request)}
    translated |= tool_settings(request) | generation_settings(request)
    _end(request)
    if is_stream:
        translated |= {"stream": True, "stream_options": {"include_usage": True}}
    return translated


def embeddings(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the body of /embeddings for one of batchEmbedContents.

    Raises:
        Refused: it asks for something that cannot be expressed; the error names the field.
    """
    batch = Members(body, "")
    batch.leave("model")
    texts, dimensions = [], []
    for request in batch.each("requests"):
        request.leave("model")
        content = request.inner("content")
        if content is None:
            raise inexpressible(request.at("content"), "is not specified")
        texts.append(text_of(content))
        dimensions.append(request.take("outputDimensionality"))
        request.word("taskType")
        request.end()
    batch.end()
    if not texts:
        raise inexpressible("requests", "is not specified")
    wanted = dimensions[0]
    if any(other != wanted for other in dimensions):
        raise inexpressible("requests[].outputDimensionality", "must be the same for all")
    return {"model": model, "input": texts} | ({} if wanted is None else {"dimensions": wanted})


def to_be_counted(body: Mapping[str, Any]) -> tuple[list[Message], list[dict[str, Any]]]:
    """Return the messages and tools whose tokens a countTokens body asks for.

    Raises:
        Refused: it asks for something that cannot be expressed, or holds media: their tokens depend on the model.
    """
    outer = Members(body, "")
    outer.leave("model")
    request = outer.inner("generateContentRequest") or outer
    messages, settings = messages_of(request), tool_settings(request)
    generation_settings(request)
    _end(request)
    if any(isinstance(message["content"], list) for message in messages):
        raise inexpressible("contents", "media cannot be counted at an OpenAI-compatible server")
    return messages, settings.get("tools", [])


def _end(request: Members) -> None:
    request.leave("model", "safetySettings", "labels")
    request.word("serviceTier", "STANDARD")
    request.end()
