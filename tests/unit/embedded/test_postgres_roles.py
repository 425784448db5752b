"""The SCRAM verifier that PostgreSQL stores instead of a password."""

import base64

from tollhouse_server.embedded.postgres_roles import scram_verifier


def test_scram_verifier_agrees_with_the_example_of_rfc_7677() -> None:
    """Salt, iterations and password are those of RFC 7677 section 3; the keys follow from RFC 5802 section 3."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")

    verifier = scram_verifier("pencil", salt=salt)

    assert verifier == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_two_verifiers_of_one_password_differ() -> None:
    """Each has a salt of its own."""
    assert scram_verifier("pencil") != scram_verifier("pencil")
