"""Wrapped secrets show themselves to nobody who does not ask."""

import copy
import pickle

import pytest
from tollhouse_server.vault.secret_text import SecretFields, SecretText

CANARY = "canary-0b6f"


def test_a_secret_prints_as_stars_in_every_form() -> None:
    """Logs, f-strings, errors and containers all go through these."""
    secret = SecretText(CANARY)

    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r}", f"{[secret]}", "%s" % secret]  # noqa: UP031

    assert all("***" in text and CANARY not in text for text in shown)
    assert secret.reveal() == CANARY


def test_a_secret_cannot_be_written_out() -> None:
    """Neither a pickle nor a copy leaves the process."""
    for secret in (SecretText(CANARY), SecretFields({"key": CANARY}, version=1)):
        with pytest.raises(TypeError):
            pickle.dumps(secret)
        with pytest.raises(TypeError):
            copy.copy(secret)


def test_secrets_compare_by_content() -> None:
    """Equal text is equal, other types are not."""
    assert SecretText(CANARY) == SecretText(CANARY)
    assert SecretText(CANARY) != SecretText("other")
    assert SecretText(CANARY) != CANARY


def test_fields_show_names_and_never_values() -> None:
    """A field's name helps to find a mistake, its value helps an attacker."""
    fields = SecretFields({"key": CANARY}, version=3)

    assert repr(fields) == "SecretFields(version=3, key=***)"
    assert CANARY not in f"{fields}"
    assert dict(fields) == {"key": CANARY}
