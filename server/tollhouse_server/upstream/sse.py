"""Server-sent events as Gemini sends them: `data:` lines, events ended by an empty line, CRLF or LF."""

_MAX_EVENT_BYTES = 64 * 1024 * 1024


class EventSplitter:
    """Cuts a byte stream into the data of its events, whatever the boundaries of the network's chunks."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return the data of every event that is now complete.

        Raises:
            ValueError: an event is larger than 64 MiB.
        """
        self._buffer += chunk.replace(b"\r", b"")
        events = []
        while (end := self._buffer.find(b"\n\n", self._searched)) >= 0:
            events.append(_data_of(bytes(self._buffer[:end])))
            del self._buffer[: end + 2]
            self._searched = 0
        # The next chunk may complete a separator whose first byte is already here.
        self._searched = max(0, len(self._buffer) - 1)
        if len(self._buffer) > _MAX_EVENT_BYTES:
            raise ValueError(f"an event is larger than {_MAX_EVENT_BYTES} bytes")
        return [event for event in events if event]

    @property
    def is_empty(self) -> bool:
        """Tell whether no half event is left over."""
        return not self._buffer.strip()


def _data_of(event: bytes) -> bytes:
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines)
