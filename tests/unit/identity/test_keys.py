"""The text of API keys."""

import string

from hypothesis import assume, given
from hypothesis import strategies as st
from tollhouse_server.identity.keys import checksum, digest, make_key, parse_key

environments = st.sampled_from(["live", "test"])


@given(environments)
def test_a_made_key_is_read_back(environment: str) -> None:
    """Environment and id come back from the text, and no two keys are the same."""
    key = make_key(environment)

    assert parse_key(key.text) == key
    assert key.text.startswith(f"th_{environment}_{key.key_id}_")
    assert make_key(environment).text != key.text


@given(environments, st.integers(min_value=0, max_value=66), st.sampled_from(string.ascii_letters + string.digits))
def test_a_key_with_one_wrong_character_is_no_key(environment: str, position: int, character: str) -> None:
    """A typing mistake is found without asking anyone: CRC-32 finds every single wrong character."""
    text = make_key(environment).text
    assume(text[position] != character)

    assert parse_key(text[:position] + character + text[position + 1 :]) is None


@given(st.text())
def test_any_other_text_is_no_key(text: str) -> None:
    """Garbage is refused, never an exception."""
    assert parse_key(text) is None


def test_a_repr_shows_no_secret() -> None:
    """A key that lands in a log by mistake does not open anything."""
    key = make_key("live")

    assert key.text not in repr(key)
    assert key.text.rsplit("_", 1)[1] not in repr(key)


def test_the_checksum_is_fixed_for_all_time() -> None:
    """Scanners outside know this format."""
    assert checksum("th_live_abcdefghij23_" + "a" * 40) == "3mzqe8"


def test_a_digest_depends_on_the_pepper() -> None:
    """The table of digests alone is worth nothing."""
    text = make_key("live").text

    assert digest(b"one", text) != digest(b"two", text)
    assert len(digest(b"one", text)) == 32
