"""Gemini's requests as an OpenAI-compatible server is asked them, and what is refused because it cannot be asked."""

from typing import Any

import pytest
from tollhouse_server.upstream.openai_request import chat_completion, embeddings, to_be_counted
from tollhouse_server.upstream.protocol import Refused


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def model(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def asking(**members: Any) -> dict[str, Any]:
    return {"contents": [user({"text": "Hello"})], **members}


def translated(body: dict[str, Any]) -> dict[str, Any]:
    return chat_completion(body, "gemma", is_stream=False)


def test_a_conversation_becomes_messages() -> None:
    """System instruction, turns and pieces of one answer, without thoughts and signatures."""
    body = {
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
        "contents": [
            {"parts": [{"text": "What is this?"}, {"text": "And that?"}]},
            model({"text": "Hm.", "thought": True}, {"text": "A "}, {"text": "bridge.", "thoughtSignature": "eA=="}),
            user({"text": "Thanks"}),
        ],
    }

    assert translated(body)["messages"] == [
        {"role": "system", "content": "Be brief.\nBe kind."},
        {"role": "user", "content": "What is this?\nAnd that?"},
        {"role": "assistant", "content": "A bridge."},
        {"role": "user", "content": "Thanks"},
    ]


def test_media_become_data_uris_and_audio() -> None:
    """Inline media travel with the text that they stand beside, in its order."""
    picture = {"inlineData": {"mimeType": "image/png", "data": "iVBO-_8="}}
    sound = {"inlineData": {"mimeType": "audio/mpeg", "data": "SUQz"}}

    [message] = translated({"contents": [user({"text": "What?"}, picture, sound)]})["messages"]

    assert message["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO+/8="}},
        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
    ]


def test_function_calls_keep_their_ids() -> None:
    """A response answers the call that has its id, in a message of its own before what the user says."""
    body = {
        "contents": [
            user({"text": "Weather?"}),
            model({"functionCall": {"id": "a1", "name": "look", "args": {"city": "Brno"}}}),
            user({"text": "Well?"}, {"functionResponse": {"id": "a1", "name": "look", "response": {"degrees": 3}}}),
        ]
    }

    _, call, response, said = translated(body)["messages"]

    function = {"name": "look", "arguments": '{"city":"Brno"}'}
    assert call == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a1", "type": "function", "function": function}],
    }
    assert response == {"role": "tool", "tool_call_id": "a1", "content": '{"degrees":3}'}
    assert said == {"role": "user", "content": "Well?"}


def test_calls_without_ids_are_answered_in_their_order() -> None:
    """Older models give no ids: the first response of a name answers the first open call of that name."""
    body = {
        "contents": [
            model({"functionCall": {"name": "look"}}, {"functionCall": {"name": "look"}}),
            {
                "role": "function",
                "parts": [
                    {"functionResponse": {"name": "look", "response": {"n": 1}}},
                    {"functionResponse": {"name": "look", "response": {"n": 2}}},
                ],
            },
        ]
    }

    call, first, second = translated(body)["messages"]

    assert [each["id"] for each in call["tool_calls"]] == [first["tool_call_id"], second["tool_call_id"]]
    assert first["tool_call_id"] != second["tool_call_id"]


def test_settings_get_their_other_names() -> None:
    """Every setting that both sides know."""
    config = {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40.0,
        "maxOutputTokens": 64,
        "stopSequences": ["END"],
        "seed": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "candidateCount": 2,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseModalities": ["TEXT"],
        "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True},
    }

    asked = translated(asking(generationConfig=config))

    del asked["messages"]
    assert asked == {
        "model": "gemma",
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "max_tokens": 64,
        "stop": ["END"],
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "reasoning_effort": "low",
    }


def test_a_stream_asks_for_its_usage() -> None:
    """Without that a server says nothing of what a stream has used."""
    asked = chat_completion(asking(), "gemma", is_stream=True)

    assert asked["stream"] is True
    assert asked["stream_options"] == {"include_usage": True}


def test_a_schema_of_geminis_becomes_json_schema() -> None:
    """Types in small letters, null allowed, counts as numbers, properties in the order asked for."""
    schema = {
        "type": "OBJECT",
        "propertyOrdering": ["name", "ages"],
        "properties": {
            "ages": {"type": "ARRAY", "minItems": "1", "items": {"type": "INTEGER", "format": "int32"}},
            "name": {"type": "STRING", "nullable": True, "enum": ["x"]},
        },
        "required": ["name"],
    }
    config = {"responseMimeType": "application/json", "responseSchema": schema}

    described = translated(asking(generationConfig=config))["response_format"]

    found = described["json_schema"]["schema"]
    assert described["type"] == "json_schema"
    assert found == {
        "type": "object",
        "properties": {
            "name": {"type": ["string", "null"], "enum": ["x", None]},
            "ages": {"type": "array", "minItems": 1, "items": {"type": "integer"}},
        },
        "required": ["name"],
    }
    assert list(found["properties"]) == ["name", "ages"]


def test_json_without_a_schema_is_asked_as_an_object() -> None:
    """And a JSON Schema goes as it is."""
    plain = {"responseMimeType": "application/json"}
    own = {"type": "object", "properties": {"nullable": {"type": "boolean"}}}

    assert translated(asking(generationConfig=plain))["response_format"] == {"type": "json_object"}
    described = translated(asking(generationConfig=plain | {"responseJsonSchema": own}))["response_format"]
    assert described["json_schema"]["schema"] == own


@pytest.mark.parametrize(
    ("calling", "names", "choice"),
    [
        (None, ["add", "look"], None),
        ({"mode": "AUTO"}, ["add", "look"], "auto"),
        ({"mode": "NONE"}, ["add", "look"], "none"),
        ({"mode": "ANY"}, ["add", "look"], "required"),
        ({"mode": "ANY", "allowedFunctionNames": ["look"]}, ["look"], "required"),
    ],
)
def test_tools_and_how_to_choose_among_them(
    calling: dict[str, Any] | None, names: list[str], choice: str | None
) -> None:
    """Functions are declared by JSON Schema; only those that may be called are offered."""
    declared = [
        {"name": "add", "parametersJsonSchema": {"type": "object"}},
        {"name": "look", "description": "Looks.", "parameters": {"type": "OBJECT"}},
    ]
    config = {"toolConfig": {"functionCallingConfig": calling}} if calling else {}

    asked = translated(asking(tools=[{"functionDeclarations": declared}], **config))

    assert [tool["function"]["name"] for tool in asked["tools"]] == names
    assert asked["tools"][-1]["function"] == {
        "name": "look",
        "description": "Looks.",
        "parameters": {"type": "object"},
    }
    assert asked.get("tool_choice") == choice


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"tools": [{"googleSearch": {}}]}, "tools[0].googleSearch"),
        ({"tools": [{"codeExecution": {}}]}, "tools[0].codeExecution"),
        ({"cachedContent": "cachedContents/x"}, "cachedContent"),
        ({"contents": [user({"fileData": {"fileUri": "gs://x"}})]}, "contents[0].parts[0].fileData"),
        (
            {"contents": [user({"inlineData": {"mimeType": "video/mp4", "data": ""}})]},
            "contents[0].parts[0].inlineData.mimeType",
        ),
        ({"contents": [user({"text": "x", "videoMetadata": {"fps": 1}})]}, "contents[0].parts[0].videoMetadata"),
        ({"contents": [{"role": "critic", "parts": []}]}, "contents[0].role"),
        ({"contents": []}, "contents"),
        ({"contents": "Hello"}, "contents[0]"),
        ({"contents": [user({"text": 5})]}, "contents[0].parts[0].text"),
        ({"contents": [user({"functionResponse": {"name": "f"}})]}, "contents[0].parts[0].functionResponse"),
        ({"generationConfig": {"speechConfig": {}}}, "generationConfig.speechConfig"),
        ({"generationConfig": {"responseModalities": ["IMAGE"]}}, "generationConfig.responseModalities"),
        ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseMimeType"),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 99}}},
            "generationConfig.thinkingConfig.thinkingBudget",
        ),
        ({"generationConfig": {"somethingNew": 1}}, "generationConfig.somethingNew"),
        (
            {"toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}}},
            "toolConfig.functionCallingConfig.mode",
        ),
        ({"serviceTier": "flex"}, "serviceTier"),
        ({"modelArmorConfig": {}}, "modelArmorConfig"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_its_name(members: dict[str, Any], field: str) -> None:
    """A caller is told which member is in the way; nothing is left out in silence."""
    with pytest.raises(Refused) as raised:
        translated(asking() | members)

    error = raised.value.error
    assert (raised.value.http_status, error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["details"][0]["fieldViolations"][0]["field"] == field


@pytest.mark.parametrize(
    "members",
    [
        {"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]},
        {"labels": {"team": "x"}},
        {"model": "models/gemma", "serviceTier": "SERVICE_TIER_UNSPECIFIED"},
        {"generationConfig": {"candidateCount": 1, "enableEnhancedCivicAnswers": False, "seed": None}},
        {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
    ],
)
def test_what_makes_no_difference_is_left_out(members: dict[str, Any]) -> None:
    """Settings of Google's own, and settings that ask for nothing."""
    assert translated(asking(**members)) == translated(asking())


def test_texts_are_embedded_in_one_request() -> None:
    """All requests of a batch go as one, with the dimensions that they share."""
    requests = [
        {"model": "models/e", "content": {"parts": [{"text": text}]}, "outputDimensionality": 8} for text in "ab"
    ]

    assert embeddings({"requests": requests}, "e") == {"model": "e", "input": ["a", "b"], "dimensions": 8}


@pytest.mark.parametrize(
    ("second", "field"),
    [
        ({"outputDimensionality": 9}, "requests[].outputDimensionality"),
        ({"taskType": "RETRIEVAL_QUERY"}, "requests[1].taskType"),
        ({"title": "x"}, "requests[1].title"),
        ({"content": {"parts": [{"inlineData": {}}]}}, "requests[1].content.parts[0].inlineData"),
    ],
)
def test_an_embedding_that_cannot_be_asked_for_is_refused(second: dict[str, Any], field: str) -> None:
    """Dimensions hold for the whole request, and a purpose cannot be named."""
    text = {"content": {"parts": [{"text": "a"}]}}

    with pytest.raises(Refused) as raised:
        embeddings({"requests": [text, text | second]}, "e")

    assert raised.value.error["details"][0]["fieldViolations"][0]["field"] == field


def test_what_is_counted_is_the_conversation_and_its_tools() -> None:
    """Both forms of countTokens; media are refused, because their tokens depend on the model."""
    inner = asking(tools=[{"functionDeclarations": [{"name": "add"}]}])

    messages, tools = to_be_counted({"generateContentRequest": inner})

    assert messages == [{"role": "user", "content": "Hello"}]
    assert [tool["function"]["name"] for tool in tools] == ["add"]
    with pytest.raises(Refused):
        to_be_counted({"contents": [user({"inlineData": {"mimeType": "image/png", "data": ""}})]})


def test_a_schema_nested_without_end_is_refused() -> None:
    """It is a caller's input, and must not exhaust the stack."""
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(200):
        schema = {"type": "ARRAY", "items": schema}

    with pytest.raises(Refused):
        translated(asking(generationConfig={"responseMimeType": "application/json", "responseSchema": schema}))
