"""The W3C trace context of a caller: taken over where it is whole, else as if it had not come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.telemetry.observing import Sampling
from tollhouse_server.telemetry.tracecontext import TraceContext, correlation_id, trace_context, traceparent

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_context_is_taken_over() -> None:
    """Ids, the decision of whoever began the trace, and what vendors add."""
    found = trace_context({"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=1,b=2"})

    assert found == TraceContext(TRACE, PARENT, is_sampled=True, state="a=1,b=2")
    assert traceparent(found, PARENT, is_sampled=True) == f"00-{TRACE}-{PARENT}-01"


def test_later_version_is_read_as_far_as_it_is_known() -> None:
    """The recommendation asks for it: what follows the flags is left out."""
    found = trace_context({"traceparent": f"cc-{TRACE}-{PARENT}-00-what-comes-then"})

    assert found == TraceContext(TRACE, PARENT, is_sampled=False)


@pytest.mark.parametrize(
    "parent",
    [
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01 ",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
    ],
)
def test_malformed_context_begins_a_new_trace(parent: str) -> None:
    """Half a context would put the call into a trace that nobody finds."""
    found = trace_context({"traceparent": parent, "tracestate": "a=1"})

    assert (found.parent_id, found.is_sampled, found.state) == ("", None, "")
    assert found.trace_id != TRACE


@given(st.text(), st.text(), st.text())
def test_nothing_that_a_caller_sends_fails(parent: str, state: str, said: str) -> None:
    """Metadata is anybody's text, and comes before anybody is authenticated."""
    metadata = {"traceparent": parent, "tracestate": state, "x-correlation-id": said}

    context = trace_context(metadata)

    assert len(context.trace_id) == 32
    assert 0 < len(correlation_id(context, metadata)) <= 64


def test_state_that_is_too_long_or_no_ascii_is_left_out() -> None:
    """It is handed on in a header and kept in memory."""
    states = [
        trace_context({"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": s}).state for s in ("a" * 513, "ä")
    ]

    assert states == ["", ""]


def test_trace_names_the_call_before_its_caller_does() -> None:
    """Two names for one call would be one too many; his own counts where there is no trace."""
    own = {"x-correlation-id": "order-17"}
    traced = own | {"traceparent": f"00-{TRACE}-{PARENT}-01"}

    assert correlation_id(trace_context(own), own) == "order-17"
    assert correlation_id(trace_context(traced), traced) == TRACE


@pytest.mark.parametrize("said", ["ann@example.com", "th_" + "live_k1a2b3_" + "s" * 32, "", "x" * 65, "a b"])
def test_key_or_address_is_no_correlation_id(said: str) -> None:
    """It would stand in logs, receipts and the audit trail."""
    metadata = {"x-correlation-id": said}
    context = trace_context(metadata)

    assert correlation_id(context, metadata) == context.trace_id


def test_share_of_traces_is_chosen_and_callers_decide_for_theirs() -> None:
    """Parent-based: a trace is whole or not there at all."""
    sampling = Sampling(ratio=0.1)
    chosen = [sampling.wants(trace_context({})) for _ in range(20_000)]

    assert 1_700 < sum(chosen) < 2_300
    assert all(sampling.wants(TraceContext(TRACE, PARENT, decided)) is decided for decided in (True, False))
    assert not Sampling(ratio=0.0).wants(trace_context({}))
    assert all(Sampling(ratio=1.0).wants(trace_context({})) for _ in range(1000))
