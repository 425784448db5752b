"""Cutting server-sent events out of bytes that come in any pieces."""

import pytest
from tollhouse_server.upstream import sse
from tollhouse_server.upstream.sse import EventSplitter

SAID = b'data: {"a": 1}\r\n\r\n: alive\n\ndata:two\ndata: lines\nid: 7\n\n\ndata:\n\ndata:  indented\r\n\r\n'
EVENTS = [b'{"a": 1}', b"two\nlines", b" indented"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(SAID)])
def test_events_are_the_same_however_they_are_cut(size: int) -> None:
    """A line, a separator, even a CRLF may come in two pieces; comments and empty events are nobody's."""
    splitter = EventSplitter()

    found = [event for at in range(0, len(SAID), size) for event in splitter.feed(SAID[at : at + size])]

    assert found == EVENTS
    assert splitter.is_empty


@pytest.mark.parametrize("left", [b"data: {", b"data: {}\n", b": comment", b"event: end\n"])
def test_what_no_empty_line_has_ended_is_left_over(left: bytes) -> None:
    """A stream that ends there was cut."""
    splitter = EventSplitter()

    found = splitter.feed(b"data: {}\n\n" + left)

    assert found == [b"{}"]
    assert not splitter.is_empty


@pytest.mark.parametrize("left", [b"", b"\n", b"\r\n", b"  ", b"  \n"])
def test_blanks_after_the_last_event_are_nothing(left: bytes) -> None:
    """Some servers end with one line more."""
    splitter = EventSplitter()

    splitter.feed(b"data: {}\n\n" + left)

    assert splitter.is_empty


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["one line", "many lines"])
def test_an_event_has_a_size_that_it_may_not_pass(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it never ends its line or its event."""
    monkeypatch.setattr(sse, "_MAX_EVENT_BYTES", 1000)
    splitter = EventSplitter()

    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        for _ in range(20):
            splitter.feed(b"data: " + b"x" * 100 + end)


@pytest.mark.parametrize("event", [b"data: " + b"x" * 100 + b"\n\n", b": " + b"x" * 100 + b"\n\n"])
def test_many_events_are_not_a_large_one(event: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are comments that keep a connection alive for hours."""
    monkeypatch.setattr(sse, "_MAX_EVENT_BYTES", 1000)
    splitter = EventSplitter()

    for _ in range(20):
        splitter.feed(event[:30])
        splitter.feed(event[30:])

    assert splitter.is_empty
