"""What detectors find and what they leave, by the corpora; edges, other scripts, and time."""

import random
import time
import tomllib
from pathlib import Path

import pytest
from tollhouse_server.dlp import checks
from tollhouse_server.dlp.detectors import detectors
from tollhouse_server.identity.keys import make_key

from tests.unit.dlp.builders import EVERYTHING, masked, policy, screen

CORPORA = tomllib.loads((Path(__file__).parent / "corpora.toml").read_text(encoding="utf-8"))
FINDS = [(name, value) for name, corpus in CORPORA.items() for value in corpus["finds"]]
LEAVES = [(name, value) for name, corpus in CORPORA.items() for value in corpus["leaves"]]
SURROUNDINGS = ["{}", "It is {}, as said.", "号码是{}，谢谢。", "({})", '"{}"', "a\n{}\nb", "两：{}！", "x={};", "'{}'"]
SURROUNDINGS += ["7,{},8"]
WRITTEN = [r'{{"a":"so:\n{}\nb"}}', r'{{"a":"\u53f7\u7801{}\u8c22"}}', "https://example.org/?q=call%20{}&r=1"]
BOUND_SECONDS_PER_KIB = 0.02


def test_every_detector_has_a_corpus() -> None:
    """A detector that nothing is tried against may find everything or nothing."""
    assert CORPORA.keys() | {"TOLLHOUSE_API_KEY"} == detectors().keys()


@pytest.mark.parametrize(("name", "value"), FINDS)
def test_a_value_is_found_in_whole_whatever_stands_around_it(name: str, value: str) -> None:
    """Also between Chinese characters, where no word has an edge."""
    by = screen(policy(name))
    label = f"[{name}_1]"

    found = [masked(around.format(value), by)[0] for around in SURROUNDINGS]

    assert found == [around.format(label) for around in SURROUNDINGS]


@pytest.mark.parametrize(("name", "value"), FINDS)
def test_what_json_or_a_url_writes_before_a_value_does_not_save_it(name: str, value: str) -> None:
    """The letter of a line end, the last digits of a Chinese character, those of a space are no part of it."""
    by = screen(policy(name))

    found = [masked(around.format(value), by)[0] for around in WRITTEN]

    assert found == [around.format(f"[{name}_1]") for around in WRITTEN]


@pytest.mark.parametrize(("name", "value"), LEAVES)
def test_what_only_looks_like_a_value_is_left(name: str, value: str) -> None:
    """Order numbers are no cards, dates no persons, versions no addresses."""
    by = screen(policy(name))

    found = [masked(around.format(value), by)[0] for around in SURROUNDINGS[:4]]

    assert found == [around.format(value) for around in SURROUNDINGS[:4]]


def test_a_tollhouse_key_is_known_by_its_checksum() -> None:
    """A key with one letter changed is none."""
    by, key = screen(policy("TOLLHOUSE_API_KEY")), make_key("live").text
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")

    assert masked(f"{key} {wrong}", by)[0] == f"[TOLLHOUSE_API_KEY_1] {wrong}"
    assert checks.tollhouse_key(key)


@pytest.mark.parametrize("invisible", ["\u200b", "\u00ad", "\u2060", "\ufeff", "\u202d"])
def test_characters_that_nobody_sees_hide_nothing(invisible: str) -> None:
    """They go with the value, and those beside it stay."""
    value = invisible.join("4111111111111111")

    found, tokens, _ = masked(f"a{invisible} {value}{invisible} b", screen(policy("PAYMENT_CARD")))

    assert found == f"a{invisible} [PAYMENT_CARD_1]{invisible} b"
    assert tokens.values() == {"[PAYMENT_CARD_1]": value}


def test_a_number_that_hides_the_beginning_of_another_does_not_save_it() -> None:
    """The first sixteen digits happen to be a card; the real one begins four digits later."""
    text = "2671 4111 1111 1111 1111"

    assert masked(text, screen(policy("PAYMENT_CARD")))[0] == "[PAYMENT_CARD_1]"


@pytest.mark.parametrize(
    "evil",
    [
        "1 2 3 4 5 6 7 8 9 0 ",
        "1234 5678 ",
        "411111 11111 ",
        "12-34-56 78.",
        "+1 2 3 ",
        "a@b.c",
        "@@@@@@",
        "<@a.bc",
        "a.b.c.d.e@",
        "-----BEGIN ",
        "-----BEGIN RSA PRIVATE \x4bEY-----\nAAAA\n",
        "eyJaaaaaaaaaaaaaaaa.",
        "AB12 CD34 ",
        "1.2.3.4.",
        "a:b:c:",
        "9" * 50,
        "\u200b4",
        "ghp_sk-AIza",
        "(((((",
        "00 0 (0) ",
    ],
)
def test_no_text_takes_long(evil: str) -> None:
    """Twice as much text takes about twice as long, and a kibibyte of the worst a bounded time."""
    by = screen(policy(*EVERYTHING))
    text = (evil * (1 << 16))[: 1 << 16]

    started_at = time.process_time()
    masked(text, by)
    seconds = time.process_time() - started_at

    assert seconds < BOUND_SECONDS_PER_KIB * 64


def test_check_digits_catch_every_single_wrong_digit() -> None:
    """Of Luhn, Verhoeff, and ISO 7064: no digit of a right number can be replaced by another."""
    generator = random.Random(5)
    for check, right in ((checks.luhn, "4111111111111111"), (checks.verhoeff, "234567890124")):
        at = generator.randrange(len(right))
        wrong = [right[:at] + digit + right[at + 1 :] for digit in "0123456789" if digit != right[at]]
        assert check(right)
        assert not any(map(check, wrong))


def test_ordinary_business_text_passes() -> None:
    """What has digits and is no secret: ids, hashes, times, numbers of orders and parcels, prices, versions."""
    text = (
        "Order 20240115-000123 (SO-2024-0098712) of 2024-01-15T10:30:45.123456Z,"
        " ref 550e8400-e29b-41d4-a716-446655440abc, commit 9fceb02d0ae598e95dc970b74767f19372d61af8,"
        " sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855,"
        " parcel 1Z999AA10123456784, EAN 4006381333931, ISBN 978-3-16-148410-0, total 1,234,567.89 EUR,"
        " at 1700000000000 ms,"
        " v1.2.3-rc.4+build.567, 10:30:45, 15/01/2024, error 0x80070005, MAC 00:1A:2B:3C:4D:5E, 3.14159265358979,"
        " 第 1234567 号订单，金额 98,765.43 元，日期 2024年01月15日，std::vector<a::b>, SKU ABC-123-XYZ, +12.5 %."
    )

    assert masked(text, screen(policy(*EVERYTHING)))[0] == text
