"""The catalogue on the command line: what is typed becomes the right request, mistakes never leave the terminal."""

import json
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty
from tollhouse.admin.v1 import models_pb2 as pb
from tollhouse.v1 import catalog_pb2 as v1
from tollhouse.v1 import generation_pb2 as g
from tollhouse_admin.account_options import Upstream
from tollhouse_admin.model_options import Capability, capability_numbers, upstream_numbers

from tests.unit.admin_cli.canned import CannedServer
from tests.unit.admin_cli.conftest import Run

ADD = ("models", "add", "smollm2", "--upstream", "openai-compatible", "--input-tokens", "8192", "--output-tokens", "2k")
CHANGES = pb.ImportCatalogueResponse(
    changes=[
        pb.CatalogueChange(
            name="models/smollm2",
            added=True,
            fields=[pb.CatalogueFieldChange(field="input_token_limit", after="8192")],
        ),
        pb.CatalogueChange(
            name="aliases/smol", fields=[pb.CatalogueFieldChange(field="model", before='"a"', after='"smollm2"')]
        ),
    ],
    unchanged_count=4,
    etag="abc",
)


def test_a_model_is_added_with_what_was_typed(server: CannedServer, run: Run) -> None:
    """It generates unless something else is said; numbers are typed as people write them."""
    server.answers["CreateModel"] = pb.Model(name="models/smollm2")

    result = run(*ADD, "--shutdown", "2031-01-01", "--successor", "gemma", "--tool-prompt-tokens", "0", "-o", "json")

    request = server.last.request
    assert (result.code, json.loads(result.out)["name"]) == (0, "models/smollm2")
    assert request.model_id == "smollm2"
    assert list(request.model.upstreams) == [g.UPSTREAM_KIND_OPENAI_COMPATIBLE]
    assert list(request.model.capabilities) == [v1.CAPABILITY_GENERATE_CONTENT, v1.CAPABILITY_STREAM_GENERATE_CONTENT]
    assert (request.model.input_token_limit, request.model.output_token_limit) == (8192, 2000)
    assert (request.model.HasField("tool_prompt_tokens"), request.model.successor) == (True, "models/gemma")
    assert request.model.shutdown_time.ToJsonString() == "2031-01-01T00:00:00Z"
    assert request.request_id


def test_an_update_names_what_it_changes_and_what_it_clears(server: CannedServer, run: Run) -> None:
    """Nothing else is touched."""
    server.answers["UpdateModel"] = pb.Model(name="models/smollm2")

    result = run(
        "models", "update", "smollm2", "--images", "0", "--clear", "successor", "--clear", "tool-prompt-tokens"
    )

    assert result.code == 0
    assert list(server.last.request.update_mask.paths) == ["images_per_answer", "successor", "tool_prompt_tokens"]
    assert not server.last.request.model.HasField("tool_prompt_tokens")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ((*ADD, "--capability", "sing"), "structured-output"),
        ((*ADD[:4], "bedrock", *ADD[5:]), "openai-compatible"),
        ((*ADD[:-1], "many"), "is not a count"),
        ((*ADD, "--shutdown", "soon"), "is neither a date nor a span"),
        (("models", "update", "smollm2"), "Nothing to change"),
        (("models", "update", "smollm2", "--successor", "x", "--clear", "successor"), "both set and cleared"),
        (("models", "shut-down", "smollm2", "--on", "now"), "Add --yes"),
        (("models", "delete", "smollm2"), "Add --yes"),
        (("models", "alias", "delete", "smol"), "Add --yes"),
        (("models", "alias", "update", "smol"), "Nothing to change"),
        (("catalogue", "import", "nowhere.toml"), "cannot be read"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(
    server: CannedServer, run: Run, command: tuple[str, ...], says: str
) -> None:
    """An unknown value is answered with the known ones; what destroys asks first."""
    result = run(*command)

    assert result.code == 2
    assert says in result.err
    assert server.received == []


def test_a_shutdown_dates_the_model_and_names_the_successor(server: CannedServer, run: Run) -> None:
    """And leaves the rest alone."""
    server.answers["UpdateModel"] = pb.Model(name="models/old")

    run("models", "shut-down", "old", "--on", "2031-01-01T12:00Z", "--successor", "models/new", "--etag", "v3", "--yes")

    request = server.last.request
    assert list(request.update_mask.paths) == ["shutdown_time", "successor"]
    assert request.model.shutdown_time.ToJsonString() == "2031-01-01T12:00:00Z"
    assert (request.model.successor, request.model.etag) == ("models/new", "v3")


def test_an_alias_is_added_pointed_elsewhere_and_deleted(server: CannedServer, run: Run) -> None:
    """By ids or by full names."""
    server.answers |= {"CreateAlias": pb.ModelAlias(), "UpdateAlias": pb.ModelAlias(), "DeleteAlias": Empty()}

    run("models", "alias", "add", "latest", "gemini-3.7-flash")
    run("models", "alias", "update", "aliases/latest", "--model", "gemini-3.8-flash")
    run("models", "alias", "delete", "latest", "--yes")

    added, pointed, deleted = (one.request for one in server.received)
    assert (added.alias_id, added.alias.model) == ("latest", "models/gemini-3.7-flash")
    assert (pointed.alias.name, pointed.alias.model) == ("aliases/latest", "models/gemini-3.8-flash")
    assert list(pointed.update_mask.paths) == ["model"]
    assert deleted.name == "aliases/latest"


def test_an_import_shows_what_it_would_change(server: CannedServer, run: Run, home: Path) -> None:
    """Every field with its old and new value, and the numbers of entries."""
    server.answers["ImportCatalogue"] = CHANGES
    file = home / "catalogue.toml"
    file.write_text("[[models]]")

    result = run("catalogue", "import", str(file), "--etag", "old", "--dry-run", "-o", "csv")

    request = server.last.request
    assert (request.content, request.etag, request.validate_only) == ("[[models]]", "old", True)
    assert "dry run, nothing was changed: 1 added, 1 changed, 4 unchanged, none removed; version abc" in result.err
    assert result.out.splitlines()[1:] == [
        "models/smollm2,input_token_limit,,8192",
        'aliases/smol,model,"""a""","""smollm2"""',
    ]


def test_an_export_is_the_file_and_nothing_else(server: CannedServer, run: Run) -> None:
    """Stdout can go into a file; the version is said beside it."""
    server.answers["GetCatalogueFile"] = pb.CatalogueFile(content="revision = 2\n", etag="abc")

    result = run("catalogue", "export")

    assert result.out == "revision = 2\n"
    assert "abc" in result.err


def test_every_kind_and_capability_of_the_server_can_be_typed() -> None:
    """What is added to the protos is added here."""
    assert len(upstream_numbers(Upstream)) == len(g.UpstreamKind.values()) - 1
    assert len(capability_numbers(Capability)) == len(v1.Capability.values()) - 1
