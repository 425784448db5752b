"""What Gemini's own tools add to an answer: code execution, search grounding, URL context, file search."""

from __future__ import annotations

import re

from tollhouse_server.simulator.errors import JsonObject
from tollhouse_server.simulator.prompts import Prompt
from tollhouse_server.simulator.tokens import json_tokens
from tollhouse_server.simulator.writing import Piece

_URL = re.compile(r"https?://[^\s\"'<>)]+")
_SEARCHES = ("googleSearch", "googleSearchRetrieval", "enterpriseWebSearch")


def tool_use_tokens(prompt: Prompt) -> int:
    """Count the prompt tokens that the tools added; at most 400 for each tool named."""
    used = [name for tool in prompt.body.get("tools", ()) for name in tool if name != "functionDeclarations"]
    return sum(prompt.dice.between(f"tool-use-{name}", 40, 400) for name in used)


def code_pieces(prompt: Prompt) -> tuple[Piece, ...]:
    """Give the code that was run and what it printed, when code execution is on."""
    if not prompt.tools("codeExecution"):
        return ()
    number = prompt.dice.between("code", 2, 99)
    call_id = prompt.dice.letters("code-id", 8)
    code = {"language": "PYTHON", "code": f"print(sum(range({number})))\n", "id": call_id}
    result = {"outcome": "OUTCOME_OK", "output": f"{sum(range(number))}\n", "id": call_id}
    return (
        Piece({"executableCode": code}, json_tokens(code)),
        Piece({"codeExecutionResult": result}, json_tokens(result)),
    )


def metadata(prompt: Prompt, text: str) -> JsonObject:
    """Give the candidate's fields for search grounding, file search and URL context."""
    fields: JsonObject = {}
    if any(prompt.tools(name) for name in _SEARCHES):
        fields["groundingMetadata"] = _grounding(prompt, text)
    elif prompt.tools("fileSearch"):
        fields["groundingMetadata"] = _file_grounding(prompt, text)
    if prompt.tools("urlContext"):
        urls = _URL.findall(prompt.text) or ["https://example.com/"]
        found = [{"retrievedUrl": url, "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"} for url in urls]
        fields["urlContextMetadata"] = {"urlMetadata": found}
    return fields


def _grounding(prompt: Prompt, text: str) -> JsonObject:
    words = prompt.text.split()[:6] or ["toll"]
    queries = [" ".join(words[: max(1, len(words) - step)]) for step in range(prompt.dice.between("queries", 1, 3))]
    chunk = {
        "web": {
            "uri": "https://vertexaisearch.cloud.google.com/grounding-api-redirect/simulated",
            "title": "example.com",
        }
    }
    return {
        "searchEntryPoint": {"renderedContent": '<div class="container">simulated search suggestions</div>'},
        "groundingChunks": [chunk],
        "groundingSupports": [_support(text)],
        "webSearchQueries": queries,
    }


def _file_grounding(prompt: Prompt, text: str) -> JsonObject:
    store = prompt.tools("fileSearch")[0]
    names = store.get("fileSearchStoreNames") or store.get("file_search_store_names")
    first = names[0] if isinstance(names, list) and names else "fileSearchStores/simulated"
    context = {
        "text": "Simulated passage.",
        "fileSearchStore": first,
        "customMetadata": [{"key": "source_url", "stringValue": "https://example.com/"}],
    }
    return {"groundingChunks": [{"retrievedContext": context}], "groundingSupports": [_support(text)]}


def _support(text: str) -> JsonObject:
    # Gemini gives segment offsets in bytes of UTF-8.
    first = text.split("\n", 1)[0]
    return {"segment": {"startIndex": 0, "endIndex": len(first.encode()), "text": first}, "groundingChunkIndices": [0]}
