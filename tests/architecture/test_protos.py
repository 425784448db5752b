"""The protos follow the rules of the API, and the stubs beside them are current."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import protovalidate
import pytest
from google.protobuf.descriptor import FieldDescriptor
from tollhouse.v1 import content_pb2, errors_pb2, generation_pb2
from tollhouse_server import errors

ROOT = Path(__file__).resolve().parents[2]
TOLLHOUSE = ROOT / "protos" / "tollhouse"
MIRRORED_ROOTS = (
    "GenerateContentRequest",
    "GenerateContentResponse",
    "CountTokensRequest",
    "CountTokensResponse",
    "EmbedContentRequest",
    "EmbedContentResponse",
)
REQUEST_ID = "0d9a0e9c-51ad-4dba-9a1c-24d7f7b1f2a4"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def validator() -> Any:
    build: Any = protovalidate.Validator
    return build()


def messages(file: Any) -> list[Any]:
    return list(file.DESCRIPTOR.message_types_by_name.values())


def test_committed_stubs_equal_what_the_protos_generate() -> None:
    """Nobody can forget to run the generator, or edit a stub."""
    done = run("protos/generate.py", "--check")

    assert done.returncode == 0, done.stdout + done.stderr


def test_protos_pass_bufs_style_and_comment_rules() -> None:
    """Every service, call, message, field and value is named by the rules and commented."""
    done = run("protos/lint.py", "lint")

    assert done.returncode == 0, done.stdout + done.stderr


def test_protos_break_nothing_that_was_released() -> None:
    """Callers built on a released version keep working."""
    done = run("protos/lint.py", "breaking")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(p.stem for p in TOLLHOUSE.rglob("*.proto")))
def test_every_rule_in_the_protos_compiles(name: str) -> None:
    """A CEL expression or regular expression with a mistake would fail only on the first call."""
    path = next(TOLLHOUSE.rglob(f"{name}.proto")).relative_to(ROOT / "protos").with_suffix("")
    stub = importlib.import_module(".".join(path.parts) + "_pb2")
    checks = validator()

    for message in messages(stub):
        checks.collect_violations(getattr(stub, message.name)())


def test_every_mirrored_message_has_extra_and_presence() -> None:
    """Without presence a 0 would be lost, without extra a new field."""
    mirrored = messages(content_pb2) + [generation_pb2.DESCRIPTOR.message_types_by_name[n] for n in MIRRORED_ROOTS]

    without_extra = [m.name for m in mirrored if m.fields_by_number[100].name != "extra"]
    without_presence = [f.full_name for m in mirrored for f in m.fields if not (f.is_repeated or f.has_presence)]

    assert without_extra == without_presence == []


def test_mirrored_messages_know_only_kinds_of_fields_that_stay_exact() -> None:
    """A float would round, and a protobuf enum would drop new values."""
    mirrored = [f for m in messages(content_pb2) for f in m.fields]

    kinds = {f.type for f in mirrored}

    assert not kinds & {FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_UINT64}


def test_every_error_class_has_a_documented_reason() -> None:
    """What a program reads in ErrorInfo.reason stands in the enum."""
    reasons = {name.removeprefix("REASON_") for name in errors_pb2.Reason.keys()}  # noqa: SIM118
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.TollhouseError)]

    undocumented = sorted({c.reason for c in classes} - reasons)

    assert undocumented == []


def request(**fields: Any) -> generation_pb2.GenerateContentRequest:
    return generation_pb2.GenerateContentRequest(**{"contents": [content_pb2.Content()], "tier": "flash"} | fields)


@pytest.mark.parametrize(
    ("changed", "rules"),
    [
        ({}, set()),
        ({"parent": "tenants/acme/departments/rnd/projects/chat", "request_id": REQUEST_ID}, set()),
        ({"tier": None, "model": "gemini-3.5-flash", "labels": {"team": "search"}}, set()),
        ({"model": "gemini-3.5-flash"}, {"tier_or_model"}),
        ({"tier": None}, {"tier_or_model"}),
        ({"contents": []}, {"repeated.min_items"}),
        ({"parent": "tenants/acme"}, {"string.pattern"}),
        ({"parent": "tenants/acme/departments/rnd/projects/chat\n"}, {"string.pattern"}),
        ({"request_id": "7"}, {"string.uuid"}),
        ({"request_id": ""}, {"string.uuid_empty"}),
        ({"labels": {f"k{i}": "v" for i in range(17)}}, {"map.max_pairs"}),
        ({"labels": {"team": "x" * 129}}, {"string.max_len"}),
    ],
)
def test_generation_requests_are_held_to_their_rules(changed: dict[str, Any], rules: set[str]) -> None:
    """Exactly one of tier and model, a well-formed parent and request id, bounded labels."""
    violations = validator().collect_violations(request(**changed))

    assert {violation.proto.rule_id for violation in violations} == rules
