import re
from datetime import UTC, date, datetime
from pathlib import Path
from string import Formatter

import pytest
from tollhouse_server import documents
from tollhouse_server.documents.language import language_of, languages
from tollhouse_server.errors import InvalidRequest
from tollhouse_server.reporting.sums import Dimension


def _words(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("tag", sorted(languages()))
def test_every_language_has_every_label_with_the_same_words(tag: str) -> None:
    """A label that is missing, or lacks a word that is filled in, would show only to its readers."""
    english, other = languages()["en"].texts, languages()[tag].texts

    assert set(other) == set(english)
    assert {key: _words(text) for key, text in other.items()} == {key: _words(text) for key, text in english.items()}
    assert all(text.strip() for text in other.values())


def test_no_label_is_left_that_nothing_says() -> None:
    """A text that no document has would be translated for nothing."""
    room = Path(documents.__path__[0])
    said = "".join(path.read_text() for path in [*room.glob("*.py"), *room.glob("templates/*")])
    # Put together from a value: by_model, state_open, kind_rate, and the name of a division itself.
    derived = re.compile(rf"(by|state|kind)_.+|language_name|{'|'.join(Dimension)}")

    unsaid = [key for key in languages()["en"].texts if not re.search(f"[\"']{key}[\"']", said)]

    assert [key for key in unsaid if not derived.fullmatch(key)] == []


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("", "en"),
        ("en-GB", "en"),
        ("zh", "zh-Hans"),
        ("zh-CN", "zh-Hans"),
        ("zh-SG", "zh-Hans"),
        ("zh-Hans-CN", "zh-Hans"),
    ],
)
def test_a_tag_finds_the_language_that_its_readers_read(tag: str, expected: str) -> None:
    """Browsers and people say zh-CN where the texts are Simplified Chinese wherever it is read."""
    assert language_of(tag).tag == expected


@pytest.mark.parametrize("tag", ["fr", "zh-TW", "zh-Hant", "en_US", "../en", "x!"])
def test_a_language_without_a_file_is_refused_and_says_which_there_are(tag: str) -> None:
    """Traditional Chinese is not Simplified Chinese."""
    with pytest.raises(InvalidRequest) as caught:
        language_of(tag)

    assert "en, zh-Hans" in caught.value.violations[0].description


def test_amounts_are_rounded_half_to_even_and_small_ones_keep_their_digits() -> None:
    """A cost below a cent must not read as nothing."""
    english = language_of("en")

    assert english.money(1_234_565_000_000) == "$1,234.56"
    assert english.money(1_234_575_000_000) == "$1,234.58"
    assert english.money(4_200_001) == "$0.004200001"
    assert english.signed_money(-500_000_000) == "-$0.50"
    assert english.exact(1_500_000_001) == "1.500000001 USD"


def test_chinese_has_its_own_numbers_and_dates() -> None:
    """Numbers and dates are those of the language, not English ones between Chinese labels."""
    chinese = language_of("zh-Hans")

    assert chinese.month("2026-10") == "2026年10月"
    assert chinese.long_date(date(2026, 10, 5)) == "2026年10月5日"
    assert chinese.short_count(123_456_789) == "1.2亿"
    assert chinese.money(5_000_000_000) == "US$5.00"
    assert chinese.moment(datetime(2026, 11, 1, tzinfo=UTC), "Asia/Shanghai") == "2026年11月1日 08:00:00 UTC+0800"
