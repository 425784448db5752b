"""However a text is cut into pieces, the same is found and nothing is lost."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollhouse_server.dlp.redaction import Findings, Redactor
from tollhouse_server.dlp.tokens import Restorer, Tokens, Values

from tests.unit.dlp.builders import EVERYTHING, STAFF, masked, policy, screen
from tests.unit.dlp.test_detectors import FINDS, LEAVES

ALL = screen(policy(*EVERYTHING, "custom:staff-number", patterns=[STAFF]))
BUILT_IN = screen(policy(*EVERYTHING))

fragments = st.one_of(
    st.sampled_from([value for _, value in FINDS + LEAVES]),
    st.sampled_from(
        ["工号 123456", "工号", "[EMAIL_1]", "[", " ", ", ", "。", "\n", "-----BEGIN ", "\u200b", "＋", "1 2 3 4"]
    ),
    st.text(max_size=12),
    st.text("0123456789 +-./()@:AXab\u200b", max_size=30),
)
texts = st.lists(fragments, max_size=12).map("".join)


def cut(text: str, places: Sequence[int]) -> list[str]:
    """Return a text in pieces."""
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@settings(max_examples=200, deadline=None)
@given(text=texts, places=st.lists(st.integers(0, 10**6), max_size=30))
def test_pieces_come_to_what_the_whole_comes_to(text: str, places: list[int]) -> None:
    """Built-in detectors and patterns, tokens and counts are the same."""
    for by in (ALL, BUILT_IN):
        whole, _, found = masked(text, by)

        pieces, _, found_in_pieces = masked(text, by, cut(text, places))

        assert pieces == whole
        assert found_in_pieces.counts == found.counts


@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_single_characters_come_to_what_the_whole_comes_to(text: str) -> None:
    """The finest cut there is."""
    assert masked(text, ALL, list(text))[0] == masked(text, ALL)[0]


@settings(max_examples=150, deadline=None)
@given(text=texts, places=st.lists(st.integers(0, 10**6), max_size=30))
def test_masking_and_restoring_is_the_identity(text: str, places: list[int]) -> None:
    """What comes back through any cut is the text, and with nothing hidden in between it is whole."""
    hidden, tokens, _ = masked(text, ALL)
    restorer = Restorer(Values(tokens.values()))

    restored = [run(restorer, piece, is_last=False) for piece in cut(hidden, places)]

    assert "".join(restored) + run(restorer, "", is_last=True) == text


def run(restorer: Restorer, piece: str, *, is_last: bool) -> str:
    """Take the one step of a restorer."""
    steps = restorer.steps(piece, is_last=is_last)
    try:
        next(steps)
    except StopIteration as stop:
        return str(stop.value)
    raise AssertionError("more than one step")


def test_of_plain_text_hardly_more_than_a_word_is_held_back() -> None:
    """A reader of a stream does not wait for words that can be nothing."""
    redactor = Redactor(BUILT_IN, Findings(), Tokens().token)
    text = "The meeting is on Tuesday at ten, in the room behind the kitchen; bring your own coffee. 会议在三楼举行。"

    held = [len(text[: at + 1]) - len(passed) for at, passed in enumerate(accumulated(redactor, text))]

    assert max(held) <= 10


def test_of_an_unbroken_run_a_bounded_part_is_held_back() -> None:
    """Base64 without an end goes on as it comes, a few thousand characters later."""
    redactor = Redactor(BUILT_IN, Findings(), Tokens().token)
    text = "aB3" * 4000

    held = [
        3000 * number - len(passed)
        for number, passed in enumerate(
            accumulated(redactor, [text[at : at + 3000] for at in range(0, 12000, 3000)]), 1
        )
    ]

    assert max(held) <= 3_700


def accumulated(redactor: Redactor, pieces: Sequence[str]) -> list[str]:
    """Return all that was passed on after each piece."""
    passed, found = "", []
    for piece in pieces:
        passed += redactor.take(piece, is_last=False)
        found.append(passed)
    return found


def test_the_beginning_of_a_token_waits_for_the_rest_of_it() -> None:
    """And what begins like one and is none goes on as soon as that is seen."""
    restorer = Restorer(Values({"[EMAIL_1]": "a@b.de"}))

    passed = [run(restorer, piece, is_last=False) for piece in ["to [", "EMA", "IL_1", "] or [EMAIL_", "2] or [x"]]

    assert passed == ["to ", "", "", "a@b.de or ", "[EMAIL_2] or [x"]


@pytest.mark.parametrize("written", ["[EMAIL_1]", "[email_1]", "[Email_1]", r"[EMAIL\_1]", r"\[EMAIL\_1\]"])
def test_a_token_is_known_however_a_model_writes_it(written: str) -> None:
    """In other letters, or with the backslashes of Markdown; wherever a stream cuts it."""
    values = Values({"[EMAIL_1]": "a@b.de"})

    for pieces in ([written], list(written), [written[:1], written[1:]]):
        restorer = Restorer(values)
        passed = [run(restorer, piece, is_last=False) for piece in ["to ", *pieces, " or [EMAIL_2]"]]
        assert "".join(passed) == "to a@b.de or [EMAIL_2]"


def test_a_private_key_is_held_back_until_its_end() -> None:
    """Line by line: none of it goes on before its last line has come, and then a token in its place."""
    body = "\n".join(["MIIEowIBAAKCAQEAx8vT2mPq0Zk1yD3uLw9sRf7nB5cH6gJ4"] * 30)
    text = "The key: -----BEGIN RSA {0}-----\n{1}\n-----END RSA {0}-----\nKeep it.".format("PRIVATE KEY", body)
    redactor = Redactor(BUILT_IN, Findings(), Tokens().token)

    passed = accumulated(redactor, text.splitlines(keepends=True))

    assert passed[-1].startswith("The key: [PRIVATE_KEY_1]\n")
    assert all(one == "The key: " for one in passed[:-2])
