"""From Gemini's tools, toolConfig and generationConfig to the settings of a chat completion."""

from typing import Any

from tollhouse_server.upstream.openai_members import Members, inexpressible
from tollhouse_server.upstream.openai_schema import json_schema

Settings = dict[str, Any]

_SAME_MEANING = {
    "temperature": "temperature",
    "topP": "top_p",
    "maxOutputTokens": "max_tokens",
    "stopSequences": "stop",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "logprobs": "top_logprobs",
}
_EFFORTS = {"MINIMAL": "minimal", "LOW": "low", "MEDIUM": "medium", "HIGH": "high", "XHIGH": "xhigh"}
_DYNAMIC_BUDGET = -1


def tool_settings(request: Members) -> Settings:
    """Take tools and toolConfig.

    Raises:
        Refused: a tool that runs at Google, or a way of choosing that cannot be expressed.
    """
    tools = [_tool(each) for tool in request.each("tools") for each in _declarations(tool)]
    config = request.inner("toolConfig")
    calling = config.inner("functionCallingConfig") if config is not None else None
    choice: Settings = {}
    if calling is not None:
        tools, choice = _chosen(tools, calling)
    if config is not None:
        config.end()
    # A choice without tools is refused by some servers, and says nothing.
    return {"tools": tools} | choice if tools else {}


def generation_settings(request: Members) -> Settings:
    """Take generationConfig; top_k, which OpenAI itself does not know, is sent as llama.cpp, vLLM and SGLang take it.

    Raises:
        Refused: it asks for something that cannot be expressed.
    """
    config = request.inner("generationConfig")
    if config is None:
        return {}
    settings = {
        theirs: value for ours, theirs in _SAME_MEANING.items() if (value := config.take(ours)) is not None
    } | _lists(config)
    settings |= _response_format(config) | _reasoning(config)
    if config.take("responseLogprobs") is True:
        settings["logprobs"] = True
    config.end()
    return settings


def _declarations(tool: Members) -> list[Members]:
    declarations = list(tool.each("functionDeclarations"))
    tool.end()
    return declarations


def _tool(declaration: Members) -> Settings:
    function: Settings = {"name": declaration.text("name") or ""}
    description = declaration.text("description")
    if description:
        function["description"] = description
    # What the function gives back is a hint to the model for which there is no place; a call looks the same without it.
    declaration.leave("response", "responseJsonSchema")
    declaration.word("behavior", "BLOCKING")
    own, standard = declaration.take("parameters"), declaration.take("parametersJsonSchema")
    declaration.end()
    if standard is not None:
        function["parameters"] = standard
    elif own is not None:
        function["parameters"] = json_schema(own, declaration.at("parameters"))
    return {"type": "function", "function": function}


def _chosen(tools: list[Settings], calling: Members) -> tuple[list[Settings], Settings]:
    mode = calling.word("mode", "AUTO", "ANY", "NONE") or "AUTO"
    allowed = calling.take("allowedFunctionNames") or []
    if allowed and (mode != "ANY" or not isinstance(allowed, list)):
        raise inexpressible(calling.at("allowedFunctionNames"), "can be expressed with mode ANY only")
    calling.end()
    if mode != "ANY":
        return tools, {"tool_choice": mode.lower()}
    if allowed:
        # Only those may be called, so only those are offered.
        tools = [tool for tool in tools if tool["function"]["name"] in allowed]
        if not tools:
            raise inexpressible(calling.at("allowedFunctionNames"), "names no declared function")
    return tools, {"tool_choice": "required"}


def _lists(config: Members) -> Settings:
    settings: Settings = {}
    top_k, count = config.take("topK"), config.take("candidateCount")
    if top_k is not None:
        settings["top_k"] = int(top_k) if isinstance(top_k, float) and top_k.is_integer() else top_k
    # One is what everybody gives; there are servers that refuse the setting.
    if count is not None and count != 1:
        settings["n"] = count
    modalities = config.take("responseModalities")
    if modalities is not None and [str(each).upper() for each in _as_list(modalities)] not in ([], ["TEXT"]):
        raise inexpressible(config.at("responseModalities"), "only text can be asked of an OpenAI-compatible server")
    return settings


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _response_format(config: Members) -> Settings:
    own, standard = config.take("responseSchema"), config.take("responseJsonSchema")
    mime_type = config.text("responseMimeType") or "text/plain"
    schema = standard if standard is not None else own
    if mime_type not in {"text/plain", "application/json"}:
        raise inexpressible(config.at("responseMimeType"))
    if mime_type == "text/plain":
        if schema is not None:
            raise inexpressible(config.at("responseMimeType"), "must be application/json where a schema is given")
        return {}
    if schema is None:
        return {"response_format": {"type": "json_object"}}
    if standard is None:
        schema = json_schema(own, config.at("responseSchema"))
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


def _reasoning(config: Members) -> Settings:
    """Translate how much to think; whether thoughts are shown is the server's own affair, and they are passed on."""
    thinking = config.inner("thinkingConfig")
    if thinking is None:
        return {}
    thinking.leave("includeThoughts")
    level, budget = thinking.word("thinkingLevel", *_EFFORTS), thinking.take("thinkingBudget")
    thinking.end()
    if budget is not None and budget not in (0, _DYNAMIC_BUDGET):
        raise inexpressible(thinking.at("thinkingBudget"), "only 0 (none) and -1 (the model's own) can be expressed")
    if budget == 0:
        return {"reasoning_effort": "none"}
    return {"reasoning_effort": _EFFORTS[level]} if level else {}
