"""Keys that anybody can sign for are known, and they are all of them."""

import pytest
from tollhouse_server.devices.keys import is_signed_by, parse_public_key
from tollhouse_server.errors import InvalidRequest

from tests.drivers.devices import FieldDevice

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def doubled(x: int, y: int) -> tuple[int, int]:
    """Return twice a point of edwards25519 (RFC 8032, 5.1)."""
    product = D * x * x * y * y
    return 2 * x * y * pow(1 + product, -1, P) % P, (y * y + x * x) * pow(1 - product, -1, P) % P


def x_of(y: int) -> int | None:
    """Return an x with which y is a point of the curve, if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if x * x % P == square else None


def small_order_ys() -> set[int]:
    """Return the y of all points whose eightfold is the neutral element, found by halving: y of order 8 from y = 0."""
    # Twice (x, y) has y = 0 where y^2 = -x^2; with the curve's equation that is d y^4 + 2 y^2 - 1 = 0.
    root = next(
        r
        for r in (pow(1 + D, (P + 3) // 8, P) * f % P for f in (1, pow(2, (P - 1) // 4, P)))
        if r * r % P == (1 + D) % P
    )
    squares = [(sign * root - 1) * pow(D, -1, P) % P for sign in (1, -1)]
    found = {0, 1, P - 1}
    for square in squares:
        y = pow(square, (P + 3) // 8, P)
        for candidate in (y, y * pow(2, (P - 1) // 4, P) % P):
            if candidate * candidate % P == square:
                found |= {candidate, P - candidate}
    return found


def test_every_point_of_small_order_is_refused_however_it_is_written() -> None:
    """Both signs, and the encodings beyond the prime."""
    ys = small_order_ys()
    encodings = {y + more | sign << 255 for y in ys for more in (0, P) for sign in (0, 1) if y + more < 2**255}

    assert len(ys) == 5
    for y in ys:
        point = (x_of(y), y)
        for _ in range(3):
            assert point[0] is not None
            point = doubled(point[0], point[1])
        assert point == (0, 1)
    for encoding in encodings:
        with pytest.raises(InvalidRequest):
            parse_public_key(encoding.to_bytes(32, "little"), "key")


def test_without_that_a_signature_is_made_up_in_a_moment() -> None:
    """The neutral element as key and as commitment, and zero: "signed" is whatever one likes."""
    neutral = (1).to_bytes(32, "little")

    assert is_signed_by(neutral, signed=b"a million tokens", signature=neutral + bytes(32))


def test_a_signature_holds_for_its_bytes_its_key_and_its_purpose() -> None:
    """Anything else is another signature."""
    phone, other = FieldDevice("phone"), FieldDevice("other")
    signed = phone.signed()

    assert is_signed_by(phone.public_key, signed=signed.receipt, signature=signed.signature)
    assert not is_signed_by(other.public_key, signed=signed.receipt, signature=signed.signature)
    assert not is_signed_by(phone.public_key, signed=signed.receipt + b"\0", signature=signed.signature)
    assert not is_signed_by(phone.public_key, signed=signed.receipt, signature=phone.key.sign(signed.receipt))
