"""A prompt goes out as typed, and the answer is shown as it comes."""

import json
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.type.money_pb2 import Money
from tollhouse.v1 import content_pb2, generation_pb2

from tests.unit.admin_cli.canned import CannedServer, refusal
from tests.unit.admin_cli.conftest import Run

PNG = b"\x89PNG\r\n\x1a\n0123"


def piece(
    *parts: content_pb2.Part, outcome: generation_pb2.Outcome | None = None, finish_reason: str | None = None
) -> generation_pb2.GenerateContentResponse:
    """One message of an answer."""
    content = content_pb2.Content(role="model", parts=parts)
    return generation_pb2.GenerateContentResponse(
        candidates=[content_pb2.Candidate(content=content, finish_reason=finish_reason)], outcome=outcome
    )


def text(words: str) -> content_pb2.Part:
    """A part of text."""
    return content_pb2.Part(text=words)


OUTCOME = generation_pb2.Outcome(
    usage=generation_pb2.Usage(prompt_tokens=3, candidates_tokens=0, thoughts_tokens=7),
    cost=Money(currency_code="USD", nanos=1_230),
    route=generation_pb2.Route(tier="flash", model="gemini-3.8-flash", account="main", attempts=2),
    receipt=generation_pb2.Receipt(attempt_id="att-1", request_id="req-1"),
    notices=[generation_pb2.Notice(code=generation_pb2.NOTICE_CODE_FALLBACK_USED, message="Another target answered.")],
)


def test_the_answer_streams_to_stdout_and_its_price_to_stderr(server: CannedServer, run: Run) -> None:
    """So that stdout is the answer alone."""
    server.answers["StreamGenerateContent"] = [piece(text("Hel")), piece(text("lo"), outcome=OUTCOME)]

    result = run("generate", "Say hello", "--system", "Be brief.", "--label", "team=search")

    request = server.last.request
    assert result.out == "Hello\n"
    assert "gemini-3.8-flash · tier flash · account main · 2 attempts" in result.err
    assert "tokens 3 in, 0 out, 7 thinking · $0.00000123 · receipt att-1 · request req-1" in result.err
    assert "notice: fallback-used: Another target answered." in result.err
    assert request.tier == "flash"
    assert request.contents[0].parts[0].text == "Say hello"
    assert request.system_instruction.parts[0].text == "Be brief."
    assert dict(request.labels) == {"team": "search"}
    assert not request.HasField("generation_config")


def test_usage_that_was_not_reported_is_not_shown_as_zero(server: CannedServer, run: Run) -> None:
    """None is not zero."""
    outcome = generation_pb2.Outcome(usage=generation_pb2.Usage(prompt_tokens=3), cost=Money(nanos=1))
    server.answers["GenerateContent"] = piece(text("x"), outcome=outcome)

    result = run("generate", "x", "--no-stream")

    assert "tokens 3 in · $0.000000001" in result.err
    assert "out" not in result.err


def test_json_is_the_whole_response_in_one_document(server: CannedServer, run: Run) -> None:
    """A program reads it at once; bytes in base64, as proto JSON has them."""
    server.answers["GenerateContent"] = piece(text("Hello"), outcome=OUTCOME)

    result = run("generate", "Hi", "--model", "models/gemini-3.5-flash", "-o", "json")

    document = json.loads(result.out)
    assert document["candidates"][0]["content"]["parts"][0]["text"] == "Hello"
    assert document["outcome"]["cost"]["nanos"] == 1230
    assert server.last.request.model == "gemini-3.5-flash"
    assert not server.last.request.HasField("tier")


def test_a_json_stream_is_a_line_for_each_message(server: CannedServer, run: Run) -> None:
    """Read line by line."""
    server.answers["StreamGenerateContent"] = [piece(text("a")), piece(text("b"), outcome=OUTCOME)]

    result = run("generate", "Hi", "--stream", "-o", "json")

    assert [json.loads(line)["candidates"][0]["content"]["parts"][0]["text"] for line in result.out.splitlines()] == [
        "a",
        "b",
    ]


def test_files_are_sent_inline_by_their_type(server: CannedServer, run: Run, tmp_path: Path) -> None:
    """No upload, no URL."""
    (tmp_path / "cat.png").write_bytes(PNG)
    (tmp_path / "paper.pdf").write_bytes(b"%PDF")
    server.answers["StreamGenerateContent"] = [piece(text("ok"), outcome=OUTCOME)]

    run("generate", "What is it?", "--file", "cat.png", "--file", "paper.pdf")

    parts = server.last.request.contents[0].parts
    assert [part.inline_data.mime_type for part in parts[:2]] == ["image/png", "application/pdf"]
    assert parts[0].inline_data.data == PNG
    assert parts[2].text == "What is it?"


def test_images_of_the_answer_are_written_and_named(server: CannedServer, run: Run, tmp_path: Path) -> None:
    """Under names of our own; the answer has no say in them."""
    blob = content_pb2.Blob(mime_type="image/png", data=PNG, display_name="../../evil")
    image = content_pb2.Part(inline_data=blob)
    server.answers["StreamGenerateContent"] = [piece(text("Here:"), image, outcome=OUTCOME)]

    result = run("generate", "Draw", "--out", "pictures", "--modality", "image", "--modality", "text")

    files = list((tmp_path / "pictures").iterdir())
    assert [file.read_bytes() for file in files] == [PNG]
    assert files[0].name == f"tollhouse-{server.last.request.request_id[:8]}-1.png"
    assert f"wrote pictures/{files[0].name} (image/png, 12 bytes)" in result.err
    assert list(server.last.request.generation_config.response_modalities) == ["IMAGE", "TEXT"]


def test_images_without_a_directory_are_mentioned(server: CannedServer, run: Run) -> None:
    """They are paid for."""
    image = content_pb2.Part(inline_data=content_pb2.Blob(mime_type="image/png", data=PNG))
    server.answers["StreamGenerateContent"] = [piece(image, outcome=OUTCOME)]

    result = run("generate", "Draw")

    assert result.out == ""
    assert "--out DIR" in result.err


def test_settings_tools_and_schema_travel_as_gemini_names_them(server: CannedServer, run: Run, tmp_path: Path) -> None:
    """The files are Gemini's own JSON."""
    declaration = {"name": "weather", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 10}}}
    (tmp_path / "tools.json").write_text(json.dumps([declaration]))
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    server.answers["StreamGenerateContent"] = [piece(text("{}"), outcome=OUTCOME)]

    run(
        *("generate", "-", "--tools", "tools.json", "--json-schema", "schema.json", "--max-output-tokens", "50"),
        *("--thinking-budget", "0", "--temperature", "0"),
        stdin="From stdin",
    )

    request = server.last.request
    config = request.generation_config
    assert request.contents[0].parts[0].text == "From stdin"
    assert MessageToDict(request.tools[0])["functionDeclarations"] == [declaration]
    assert MessageToDict(config.response_json_schema) == schema
    assert config.response_mime_type == "application/json"
    assert config.max_output_tokens == 50
    assert config.HasField("temperature") and config.temperature == 0
    assert config.thinking_config.HasField("thinking_budget")


@pytest.mark.parametrize("content", ["{", "3", "[1]", '{"nonsense": 1}'])
def test_a_wrong_tools_file_is_a_usage_error(server: CannedServer, run: Run, tmp_path: Path, content: str) -> None:
    """Told by name, before anything is sent."""
    (tmp_path / "tools.json").write_text(content)

    result = run("generate", "x", "--tools", "tools.json")

    assert result.code == 2
    assert "tools.json cannot be used" in result.err
    assert server.received == []


def test_function_calls_are_shown_as_json(server: CannedServer, run: Run) -> None:
    """They are the answer when a tool is called."""
    call = content_pb2.FunctionCall(name="weather")
    call.args.update({"city": "Brno"})
    server.answers["StreamGenerateContent"] = [piece(content_pb2.Part(function_call=call), outcome=OUTCOME)]

    result = run("generate", "Weather?")

    assert json.loads(result.out) == {"functionCall": {"name": "weather", "args": {"city": "Brno"}}}


def test_a_stream_that_a_budget_cuts_shows_what_came_and_fails(server: CannedServer, run: Run) -> None:
    """The exit code tells a script that the answer is not whole."""
    cut = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_CUT_OFF", "The budget ended the stream.")
    server.answers["StreamGenerateContent"] = [piece(text("Once upon")), cut]

    result = run("generate", "Tell a story")

    assert result.out.startswith("Once upon")
    assert result.code == 6
    assert "BUDGET_CUT_OFF" in result.err


def test_a_blocked_prompt_says_why(server: CannedServer, run: Run) -> None:
    """It is an answer, not an error."""
    feedback = content_pb2.PromptFeedback(block_reason="SAFETY")
    response = generation_pb2.GenerateContentResponse(prompt_feedback=feedback, outcome=OUTCOME)
    server.answers["StreamGenerateContent"] = [response]

    result = run("generate", "x")

    assert result.code == 0
    assert "the prompt was blocked: SAFETY" in result.err


def test_an_answer_that_ended_early_says_so(server: CannedServer, run: Run) -> None:
    """MAX_TOKENS is not a whole answer."""
    server.answers["StreamGenerateContent"] = [piece(text("Once"), outcome=OUTCOME, finish_reason="MAX_TOKENS")]

    assert "finished: MAX_TOKENS" in run("generate", "x").err


def test_csv_is_one_row_with_the_text_and_its_cost(server: CannedServer, run: Run) -> None:
    """For a spreadsheet of prompts."""
    server.answers["GenerateContent"] = piece(text("Hello, you"), outcome=OUTCOME)

    result = run("generate", "Hi", "-o", "csv")

    header, row = result.out.splitlines()
    assert header.startswith("text,model,tier,")
    assert row.startswith('"Hello, you",gemini-3.8-flash,flash,')
    assert ",0.00000123," in row


def test_embeddings_are_whole_in_csv(server: CannedServer, run: Run) -> None:
    """Every value in its shortest exact form."""
    server.answers["EmbedContent"] = generation_pb2.EmbedContentResponse(
        embeddings=[content_pb2.ContentEmbedding(values=[0.1, -0.25, 1e-9, 3, 4])], outcome=OUTCOME
    )

    result = run("embed", "one text", "--task-type", "retrieval-query", "--dimensions", "5", "-o", "csv")

    item = server.last.request.requests[0]
    assert result.out == "index,dimensions,values\n0,5,0.1 -0.25 1e-09 3.0 4.0\n"
    assert (server.last.request.tier, item.task_type, item.output_dimensionality) == ("embedding", "RETRIEVAL_QUERY", 5)


def test_tokens_are_counted(server: CannedServer, run: Run) -> None:
    """And the model is named that counted."""
    server.answers["CountTokens"] = generation_pb2.CountTokensResponse(
        total_tokens=12, outcome=generation_pb2.Outcome(route=generation_pb2.Route(model="gemini-3.8-flash"))
    )

    result = run("count-tokens", "How many?", "-o", "csv")

    assert result.out.splitlines()[1] == "12,,gemini-3.8-flash"


@pytest.mark.parametrize("command", ["generate", "embed", "count-tokens"])
@pytest.mark.parametrize("place", [("--department", "support"), ("--tenant", "northwind"), ("-d", "a", "-t", "b")])
def test_a_place_without_a_project_is_refused(
    server: CannedServer, run: Run, command: str, place: tuple[str, ...]
) -> None:
    """The call would be charged to the caller's own project, and nobody told."""
    result = run(command, "hi", *place)

    assert (result.code, server.received) == (2, [])
    assert "--department and --tenant need --project" in result.err


def test_a_default_tenant_needs_no_project(server: CannedServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands for commands that take one."""
    monkeypatch.setenv("TOLLHOUSE_TENANT", "acme")
    server.answers["CountTokens"] = generation_pb2.CountTokensResponse(total_tokens=12)

    result = run("count-tokens", "hi")

    assert (result.code, server.last.request.parent) == (0, "")


def test_a_project_is_charged_where_it_was_named(server: CannedServer, run: Run) -> None:
    """By its department and tenant."""
    server.answers["CountTokens"] = generation_pb2.CountTokensResponse(total_tokens=12)

    run("count-tokens", "hi", "-p", "chat", "-d", "support", "-t", "northwind")

    assert server.last.request.parent == "tenants/northwind/departments/support/projects/chat"
