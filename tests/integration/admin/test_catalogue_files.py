"""Whole catalogues as files through the administration plane, on a real PostgreSQL."""

from datetime import UTC, datetime
from typing import Any

import pytest
from tollhouse.admin.v1 import models_pb2 as pb
from tollhouse_server.errors import EtagMismatch, InvalidRequest, ResourceNotFound, TollhouseError
from tollhouse_server.routing.catalogue_file import packaged_catalogue

from tests.integration.admin.catalogue import OWN, SUNSET, catalogue, epoch, moment, read, trail, update
from tests.integration.admin.plane import Plane

FILE = """
[api_versions.vertex]
"generateContent" = "v1"

[[models]]
model = "smollm2"
display_name = "Smol"
upstreams = ["openai_compatible"]
capabilities = ["GENERATE_CONTENT"]
input_token_limit = 8192
output_token_limit = 2048
source = "own machine"
aliases = [{ alias = "smol" }, { alias = "nano-banana-2.1" }]

[[tiers]]
tier = "edge"
display_name = "Edge"
description = "On own machines."
targets = [{ model = "smollm2", rank = 0, weight = 3 }, { model = "gemma-4-31b-it", rank = 0 }]
"""


async def import_file(plane: Plane, content: str, **fields: Any) -> pb.ImportCatalogueResponse:
    answer: pb.ImportCatalogueResponse = await plane.call(pb.ImportCatalogueRequest(content=content, **fields))
    return answer


async def export(plane: Plane) -> pb.CatalogueFile:
    found: pb.CatalogueFile = await plane.call(pb.GetCatalogueFileRequest())
    return found


async def test_an_import_tells_first_what_it_changes_and_then_changes_that(shop: Plane) -> None:
    """Added, changed and unchanged entries; nothing that the file does not name is touched."""
    before = await export(shop)

    preview = await import_file(shop, FILE, validate_only=True)
    untouched = await export(shop)
    done = await import_file(shop, FILE, etag=before.etag)
    again = await import_file(shop, FILE, etag=done.etag)

    assert preview == done
    assert untouched == before
    assert [(one.name, one.added) for one in done.changes] == [
        ("apiVersions/vertex/generateContent", True),
        ("models/smollm2", True),
        ("aliases/nano-banana-2.1", False),
        ("aliases/smol", True),
        ("tiers/edge", True),
    ]
    [moved] = done.changes[2].fields
    assert (moved.field, moved.before, moved.after) == ("model", '"gemini-nano-banana-2.1"', '"smollm2"')
    assert (list(again.changes), again.unchanged_count, again.etag) == ([], 5, done.etag)
    found = await catalogue(shop)
    assert [one.weight for one in found.get_tier("edge").choices] == [3, 1]
    assert found.get_model("smol").model == "smollm2"
    assert len(await trail(shop, "catalogue")) == 2


async def test_importing_an_export_changes_nothing(shop: Plane) -> None:
    """The catalogue as a file is the catalogue: edited entries, dates, odd texts, ranks and all."""
    await import_file(shop, FILE)
    odd = 'a "quoted" \\ back\tslash, line\nbreak, \x7f and é 🎉'
    await update(
        shop,
        OWN,
        "display_name",
        "notice_time",
        "shutdown_time",
        "tool_prompt_tokens",
        display_name=odd,
        notice_time=moment(datetime(2027, 1, 1, 1, 2, 3, 456789, tzinfo=UTC)),
        shutdown_time=moment(SUNSET),
        tool_prompt_tokens=0,
    )
    exported, before = await export(shop), await epoch(shop)

    answer = await import_file(shop, exported.content)

    assert (list(answer.changes), answer.etag) == ([], exported.etag)
    assert answer.unchanged_count > len(packaged_catalogue().models)
    assert await epoch(shop) == before
    assert (await read(shop, OWN)).display_name == odd
    assert (await read(shop, "models/gemini-2.5-pro")).origin == pb.CATALOGUE_ORIGIN_PACKAGED
    assert await export(shop) == exported


async def test_an_edited_export_changes_what_was_edited(shop: Plane) -> None:
    """Only that entry becomes the administrator's."""
    content = (await export(shop)).content.replace('display_name = "Gemini 2.5 Pro"', 'display_name = "Ours"')

    answer = await import_file(shop, content)

    assert [(one.name, [field.field for field in one.fields]) for one in answer.changes] == [
        ("models/gemini-2.5-pro", ["display_name"])
    ]
    listed = await shop.call(pb.ListModelsRequest(origin=pb.CATALOGUE_ORIGIN_EDITED))
    assert [one.name for one in listed.models] == ["models/gemini-2.5-pro"]


async def test_a_file_that_is_refused_changes_nothing(shop: Plane) -> None:
    """Whether it has a defect, someone was quicker, or the account of a target is not there."""
    before = await export(shop)
    refusals: list[tuple[str, str, type[TollhouseError], str]] = [
        (FILE.replace('model = "gemma-4-31b-it"', 'model = "nobody"'), "", InvalidRequest, r"tiers\[0\]\.targets\[1\]"),
        (FILE.replace('alias = "smol"', 'alias = "gemini-2.5-pro"'), "", InvalidRequest, "is a model of the catalogue"),
        (FILE, "stale", EtagMismatch, "catalogue was changed"),
        (FILE.replace("weight = 3 }", 'account_id = "nobody" }'), "", ResourceNotFound, "accounts/nobody"),
    ]

    for content, etag, error, words in refusals:
        with pytest.raises(error, match=words):
            await import_file(shop, content, etag=etag)

    assert await export(shop) == before
