"""Server-sent events as Gemini sends them: `data:` lines, events ended by an empty line, CRLF or LF."""

_MAX_EVENT_BYTES = 64 * 1024 * 1024


class EventSplitter:
    """Cuts a byte stream into the data of its events, whatever the boundaries of the network's chunks."""

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._size_bytes = 0
        self._is_begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return the data of every event that is now complete.

        Raises:
            ValueError: an event is larger than 64 MiB.
        """
        # Line by line: to look for the two bytes of an empty line takes three times as long.
        *lines, rest = chunk.replace(b"\r", b"").split(b"\n")
        events: list[bytes] = []
        if lines and self._line:
            # Joined when its end has come: a large event comes in many pieces.
            lines[0] = b"".join((*self._line, lines[0]))
            self._line.clear()
        for line in lines:
            if line:
                self._take(line)
            else:
                self._end(events)
        if rest:
            self._line.append(rest)
        self._size_bytes = len(rest) if b"" in lines else self._size_bytes + len(chunk)
        if self._size_bytes > _MAX_EVENT_BYTES:
            raise ValueError(f"an event is larger than {_MAX_EVENT_BYTES} bytes")
        return events

    @property
    def is_empty(self) -> bool:
        """Tell whether no half event is left over."""
        return not self._is_begun and all(piece.isspace() for piece in self._line)

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._is_begun = True
            self._data.append(line[6:] if line.startswith(b" ", 5) else line[5:])
        elif not line.isspace():
            self._is_begun = True

    def _end(self, events: list[bytes]) -> None:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._is_begun = False
        if data:
            events.append(data)
