"""Decompression of answers as they come, in bounded pieces: a small body must not become a large one unseen."""

import zlib
from collections.abc import Iterator

_PIECE_BYTES = 256 * 1024
_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class Inflating:
    """Decompresses one body."""

    def __init__(self, window_bits: int) -> None:
        self._inflater = zlib.decompressobj(window_bits)

    def feed(self, compressed: bytes) -> Iterator[bytes]:
        """Yield what the next bytes decompress to, nothing for bytes that are only the beginning of something.

        Raises:
            ValueError: they are not compressed that way, or come after the end.
        """
        if self._inflater.eof:
            # zlib would keep them all, and copy them for each that comes.
            raise ValueError("bytes after the end of the compressed body")
        piece = b""
        # A full piece can leave output behind although all input is consumed.
        while compressed or len(piece) == _PIECE_BYTES:
            try:
                piece = self._inflater.decompress(compressed, _PIECE_BYTES)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            if piece:
                yield piece
            compressed = self._inflater.unconsumed_tail

    @property
    def is_whole(self) -> bool:
        """Tell whether the end of the compressed body was seen."""
        return self._inflater.eof


def inflating(content_encoding: bytes) -> Inflating | None:
    """Return what decompresses a body with that Content-Encoding, None where there is nothing to do.

    Raises:
        ValueError: the encoding is not known.
    """
    encoding = content_encoding.strip().lower()
    if encoding in {b"", b"identity"}:
        return None
    if encoding not in _WINDOW_BITS:
        raise ValueError("an unknown content encoding")
    return Inflating(_WINDOW_BITS[encoding])
