"""What policies of several scopes come to, and what exceptions cover."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.dlp.custom import PatternRefused, compile_pattern
from tollhouse_server.dlp.policy import Action, DataException, DataPolicies, DataPolicy, Direction, NamedPattern

from tests.unit.dlp.builders import KEY, masked, policy, screen

EMAIL = "jane.doe@example.com"
actions = st.sampled_from(list(Action))


@given(above=actions, below=actions, is_excepted_below=st.booleans())
def test_what_stands_below_never_weakens_what_stands_above(
    above: Action, below: Action, is_excepted_below: bool
) -> None:
    """Of both judgements the stricter counts; an exception below takes back only what is said below."""
    exceptions = (DataException(digest=KEY.digest("acme", EMAIL)),) if is_excepted_below else ()
    lower = DataPolicy(rules=policy("EMAIL", action=below).rules, exceptions=exceptions)

    found = screen(policy("EMAIL", action=above), lower).judge("EMAIL", EMAIL)

    assert found == (above if is_excepted_below else max(above, below))


@pytest.mark.parametrize("written", ["+49 30 901820", "+49-30-901820", "+4930901820", "＋49 30 901820"])
def test_an_exception_covers_a_number_however_it_is_written(written: str) -> None:
    """Its digest is of the digits."""
    given = DataPolicy(
        rules=policy("PHONE").rules, exceptions=(DataException(digest=KEY.digest("acme", "+49 30 901820")),)
    )

    assert screen(given).judge("PHONE", written) is None
    assert screen(given).judge("PHONE", "+49 30 901821") is Action.MASK


def test_an_exception_may_be_a_pattern_for_some_detectors() -> None:
    """It covers whole values only."""
    exception = DataException(pattern="[a-z]{1,20}@example\\.com", detectors=("EMAIL",))
    by = screen(DataPolicy(rules=policy("EMAIL", "PHONE").rules, exceptions=(exception,)))

    assert masked("ann@example.com ann@example.com.evil.org", by)[0] == "ann@example.com [EMAIL_1]"


def test_patterns_of_two_scopes_may_have_one_name() -> None:
    """Each scope's rules mean its own."""
    above = policy("custom:id", patterns=[NamedPattern(name="id", pattern="A-[0-9]{3}")])
    below = policy("custom:id", patterns=[NamedPattern(name="id", pattern="B-[0-9]{3}")], action=Action.BLOCK)

    by = screen(above, below)

    assert by.judge("custom:id", "A-123") is Action.MASK
    assert masked("A-123", by)[0] == "[ID_1]"
    with pytest.raises(Exception, match="custom:id"):
        masked("B-123", by)


def test_a_tenant_without_rules_is_not_watched() -> None:
    """Patterns and exceptions alone look for nothing."""
    policies = DataPolicies(
        {"tenants/a": DataPolicy(), "tenants/b/departments/x": policy("EMAIL", directions=[Direction.ANSWER])}, KEY
    )

    assert policies.tenants == {"b"}
    assert policies.screens("b").answer is None
    assert policies.screens("b", ("x",)).prompt is None
    assert policies.screens("b", ("x",)).answer is not None


@pytest.mark.parametrize("evil", ["(a{1,8}){1,8}b", "(?:a|a?){3,60}c", "(x{1,4}x{1,4}){1,20}y", "a{0,100}a{100}"])
def test_a_pattern_cannot_take_long(evil: str) -> None:
    """What a backtracking engine would not end is over in a moment, or refused."""
    try:
        by = screen(policy("custom:evil", patterns=[NamedPattern(name="evil", pattern=evil)]))
    except PatternRefused:
        return

    started_at = time.process_time()
    masked("a" * 20_000 + "x" * 20_000, by)

    assert time.process_time() - started_at < 4


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+b", "a*bcd", ".{1,300}", "ab", "a?b?c?", "x" * 600, "["),
        *("^abc", "abc$", r"\Aabc", r"abc\Z", "(?=a)bcd", "(?<!a)bcd", r"(a)bc\1"),
    ],
)
def test_what_is_not_in_the_dialect_is_refused(pattern: str) -> None:
    """Unbounded, too short, anchored, or beyond a linear engine."""
    with pytest.raises(PatternRefused):
        compile_pattern(pattern)


def test_departments_that_say_nothing_share_what_their_tenant_says() -> None:
    """A thousand of them are looked through by one screen; one that says something has its own, as have those below."""
    policies = DataPolicies({"tenants/acme": policy("EMAIL"), "tenants/acme/departments/hr": policy("PHONE")}, KEY)

    of_tenant = policies.screens("acme")
    of_hr = policies.screens("acme", ("hr",))

    assert all(policies.screens("acme", (f"d{number}",)) is of_tenant for number in range(1000))
    assert policies.screens("acme", ("hr", "payroll")) is of_hr is not of_tenant
