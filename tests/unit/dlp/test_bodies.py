"""Texts in Gemini's JSON: all are found, the rest stays as it was, and streams say what whole answers say."""

import base64
import json
from collections.abc import Generator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollhouse_server.dlp.answers import AnswerText, judging, restoring
from tollhouse_server.dlp.leaves import leaves, rebuilt
from tollhouse_server.dlp.policy import Direction
from tollhouse_server.dlp.prompts import redacted_prompt
from tollhouse_server.dlp.redaction import Findings
from tollhouse_server.dlp.tokens import Tokens
from tollhouse_server.long_values import LongMedia

from tests.unit.dlp.builders import EVERYTHING, policy, screen

T = TypeVar("T")

EMAIL, CARD = "jane.doe@example.com", "4111 1111 1111 1111"
PROMPT = screen(policy(*EVERYTHING))
ANSWER = screen(policy("PAYMENT"), direction=Direction.ANSWER)

values = st.sampled_from([EMAIL, CARD, "hello", "[EMAIL_1]", "13800138000", "", "会议"])
bodies = st.recursive(
    st.one_of(values, st.integers(-5, 10**17), st.booleans(), st.none(), st.floats(allow_nan=False)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(values | st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def done(steps: Generator[None, None, T]) -> T:
    """Take all steps."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


def shape(value: Any) -> Any:
    """Return a JSON value without its texts and numbers."""
    if isinstance(value, Mapping):
        return [shape(one) for one in value.values()]
    if isinstance(value, list):
        return [shape(one) for one in value]
    return value if value is None or isinstance(value, bool) else "leaf"


@settings(max_examples=50, deadline=None)
@given(body=st.dictionaries(values, bodies, max_size=4))
def test_hiding_changes_texts_and_nothing_else(body: dict[str, Any]) -> None:
    """The shape stays, what has no value is the same object, and no value is left in any leaf."""
    sent = done(redacted_prompt(body, PROMPT, Findings()))

    left = [leaf.text for leaf in leaves(sent.body)]
    assert shape(sent.body) == shape(body)
    assert not any(value in text for text in left for value in (EMAIL, CARD, "13800138000"))
    if not sent.tokens.values():
        assert sent.body is body


def test_a_prompt_of_many_texts_is_gone_through_in_small_steps() -> None:
    """Others have their turn from the first of them on."""
    taken = 0

    class Part(dict[str, Any]):
        def items(self) -> Any:
            nonlocal taken
            taken += 1
            return super().items()

    parts = [Part(text="a") for _ in range(1_000)]
    steps = redacted_prompt({"contents": [{"parts": parts}]}, PROMPT, Findings())

    next(steps)
    next(steps)

    assert taken <= 100


def test_rebuilding_shares_what_is_not_changed() -> None:
    """A prompt of a million tokens with one address is not copied."""
    body = {"contents": [{"parts": [{"text": "a"}]}, {"parts": [{"text": "b"}]}]}

    changed = rebuilt(body, {(("contents", 1, "parts", 0, "text"), False): "c"})

    assert changed["contents"][0] is body["contents"][0]
    assert changed["contents"][1]["parts"][0] == {"text": "c"}


def test_a_token_that_stands_in_the_prompt_is_not_given_again() -> None:
    """What the caller wrote himself comes back as he wrote it."""
    body = {"contents": [{"parts": [{"text": f"[EMAIL_1] means {EMAIL}"}]}]}

    sent = done(redacted_prompt(body, PROMPT, Findings()))

    assert sent.body["contents"][0]["parts"][0]["text"] == "[EMAIL_1] means [EMAIL_2]"


def chunk(*parts: Mapping[str, Any], finish: str = "", index: int = 0) -> dict[str, Any]:
    """Return a chunk of one candidate."""
    candidate: dict[str, Any] = {"index": index, "content": {"role": "model", "parts": list(parts)}}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], "usageMetadata": {"x": 1}}


def told(chunks: Sequence[Mapping[str, Any]], *stages: AnswerText) -> list[Mapping[str, Any]]:
    """Return what passes through the stages, one after the other."""
    found = list(chunks)
    for stage in stages:
        found = [done(stage.chunk(one)) for one in found]
        found += [rest] if (rest := done(stage.rest())) else []
    return found


def texts(chunks: Sequence[Mapping[str, Any]], *, thoughts: bool = False) -> str:
    """Return the text of all chunks."""
    parts = [part for one in chunks for candidate in one["candidates"] for part in candidate["content"]["parts"]]
    return "".join(part.get("text", "") for part in parts if bool(part.get("thought")) is thoughts)


def stages() -> tuple[AnswerText, AnswerText]:
    """Return what judges payments in an answer, and what puts an address back."""
    prompt = Tokens()
    prompt.token("EMAIL", EMAIL)
    return judging(ANSWER, Findings(), prompt), restoring(prompt)


@settings(max_examples=150, deadline=None)
@given(places=st.lists(st.integers(0, 200), max_size=12), thought_at=st.integers(0, 12))
def test_a_stream_says_what_the_whole_answer_says(places: list[int], thought_at: int) -> None:
    """Wherever it is cut, and whatever thoughts and calls stand between the pieces."""
    text = f"Pay with {CARD}, ask [EMAIL_1] or [EMAIL_2], never 4111 1111 1111 1112; write to [EMAIL_1]"
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    chunks = [chunk({"text": piece}, finish="STOP" if at == len(pieces) - 1 else "") for at, piece in enumerate(pieces)]
    thoughts = chunk({"text": f"thinking of {CARD}", "thought": True})

    whole = told([chunk({"text": text}, finish="STOP")], *stages())
    streamed = told(chunks, *stages())
    with_thoughts = told([thoughts, *chunks], *stages())

    wanted = f"Pay with [PAYMENT_CARD_1], ask {EMAIL} or [EMAIL_2], never 4111 1111 1111 1112; write to {EMAIL}"
    assert texts(whole) == texts(streamed) == texts(with_thoughts) == wanted
    assert texts(with_thoughts, thoughts=True) == "thinking of [PAYMENT_CARD_1]"
    assert len(streamed) == len(chunks)


def test_an_answer_in_json_is_json_with_its_values_back() -> None:
    """What has line ends or quotation marks is written as a string of JSON has it; arguments of calls are no text."""
    prompt, value = Tokens(), 'a "key"\n-----'
    prompt.token("PRIVATE_KEY", value)
    call = {"functionCall": {"name": "keep", "args": {"key": "[PRIVATE_KEY_1]"}}}
    answer = chunk({"text": '{"key": "[PRIVATE_KEY_1]"}'}, call, finish="STOP")

    (found,) = told([answer], restoring(prompt, is_json=True))

    assert json.loads(texts([found])) == {"key": value}
    assert found["candidates"][0]["content"]["parts"][1]["functionCall"]["args"] == {"key": value}


@pytest.mark.parametrize(
    "kind", ["text/x-python", "application/x-javascript", "image/svg+xml", "application/ld+json", "Application/XML"]
)
def test_what_is_text_within_a_part_is_looked_through(kind: str) -> None:
    """Whatever it is called."""
    encoded = base64.b64encode(f"<a>{EMAIL}</a>".encode()).decode()
    part = {"inlineData": {"mimeType": f"{kind}; charset=utf-8", "data": encoded}}

    sent = done(redacted_prompt({"contents": [{"parts": [part]}]}, PROMPT, Findings()))

    assert base64.b64decode(sent.body["contents"][0]["parts"][0]["inlineData"]["data"]) == b"<a>[EMAIL_1]</a>"


def test_what_is_held_back_comes_before_what_is_no_text() -> None:
    """A function call ends the text before it; its arguments and their keys are whole texts."""
    call = {"functionCall": {"name": "mail", "args": {"to": "[EMAIL_1]", "[EMAIL_1]": [CARD]}}}

    found = told([chunk({"text": "I ask [EMAIL"}), chunk(call), chunk({"text": "_1] ok"}, finish="STOP")], *stages())

    parts = [part for one in found for candidate in one["candidates"] for part in candidate["content"]["parts"]]
    assert [one["text"] for one in parts if one.get("text")] == ["I ask ", "[EMAIL", "_1] ok"]
    assert {"functionCall": {"name": "mail", "args": {"to": EMAIL, EMAIL: ["[PAYMENT_CARD_1]"]}}} in parts


def test_a_stream_that_ends_without_saying_so_loses_nothing() -> None:
    """What was held back comes in a chunk of its own."""
    found = told([chunk({"text": "ask [EMAIL"}), chunk({"text": "_"})], *stages())

    assert texts(found) == "ask [EMAIL_"
    assert [texts([one]) for one in found][:2] == ["ask ", ""]


def test_what_is_nobodys_text_is_never_changed() -> None:
    """Signatures and media look like anything."""
    signature = "AKIAIOSFODNN7EXAMPLE"
    part = {"text": "hello", "thoughtSignature": signature}
    media = {"inlineData": {"mimeType": "image/png", "data": "AKIAIOSFODNN7EXAMPLE"}}
    body = {"contents": [{"role": "user", "parts": [part, media]}]}

    assert done(redacted_prompt(body, PROMPT, Findings())).body is body


def test_the_text_of_long_inline_parts_is_looked_into() -> None:
    """Media that are not in base64 yet are text all the same, where their type says so."""
    said = f"write to {EMAIL} ".encode()
    body = {"inlineData": {"mimeType": "text/plain", "data": LongMedia((said[:9], said[9:]))}}

    sent = done(redacted_prompt(body, PROMPT, Findings())).body

    assert base64.b64decode(sent["inlineData"]["data"]) == b"write to [EMAIL_1] "
    assert not list(leaves({"mimeType": "image/png", "data": LongMedia((said,))}))
