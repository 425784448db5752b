"""`tollhouse prices`: what is typed becomes the right request, and what a draft cannot say is said."""

import json
from pathlib import Path

import pytest
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import prices_pb2 as pb

from tests.unit.admin_cli.canned import CannedServer
from tests.unit.admin_cli.conftest import Run

DRAFT = pb.PriceDraft(
    content='note = "drafted"\n',
    base_version=4,
    source_version="genai-prices 0.2.3",
    notes=[
        pb.PriceDraftNote(
            kind=pb.PriceDraftNote.KIND_NOT_MAPPED, model="gemini-x", subject="cache_write_mtok", explanation="no SKU"
        )
    ],
)
CHANGE = pb.PriceChange(
    before=pb.Price(model="m", sku="input_text", amount=Money(units=2), per_units=1_000_000),
    after=pb.Price(model="m", sku="input_text", amount=Money(units=4), per_units=1_000_000),
)
PROPOSAL = pb.PriceProposal(
    name="priceProposals/pp-1",
    state=pb.PriceProposal.STATE_REQUESTED,
    proposer="tenants/platform/principals/ann",
    changes=[CHANGE],
)


def test_a_draft_is_shown_and_what_it_cannot_say_beside_it(server: CannedServer, run: Run) -> None:
    """The file on standard output, to be looked at or redirected; the notes on standard error."""
    server.answers["GetPriceDraft"] = DRAFT

    result = run("prices", "draft", "--model", "models/gemini-x")

    assert result.out == DRAFT.content
    assert "not mapped: gemini-x cache_write_mtok: no SKU" in result.err
    assert list(server.last.request.models) == ["gemini-x"]


def test_an_import_from_a_source_is_of_its_draft_over_the_version_it_was_made_from(
    server: CannedServer, run: Run
) -> None:
    """Between the draft and the import nobody else's prices are lost."""
    server.answers["GetPriceDraft"] = DRAFT
    server.answers["ImportPrices"] = pb.ImportPricesResponse(price_book=pb.PriceBook(version=5))

    result = run("prices", "import", "--from", "genai-prices")

    request = server.last.request
    assert result.code == 0
    assert (request.content, request.base_version, request.format) == (DRAFT.content, 4, pb.PRICE_FILE_FORMAT_TOML)


def test_an_import_that_waits_for_a_second_person_says_so(server: CannedServer, run: Run, tmp_path: Path) -> None:
    """Nobody should believe that his prices are in force."""
    (tmp_path / "prices.yaml").write_text("note: x")
    server.answers["ImportPrices"] = pb.ImportPricesResponse(proposal=PROPOSAL, changes=[CHANGE], unchanged_count=3)

    result = run("prices", "import", "prices.yaml", "--allow-jumps", "--reason", "a contract", "--max-jump", "20")

    allowances = server.last.request.allowances
    assert (allowances.allow_jumps, allowances.reason, allowances.max_jump_factor) == (True, "a contract", 20)
    assert "priceProposals/pp-1 waits for another person's approval, nothing is in force: 1 changed" in result.err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("import",), "Either a FILE or --from"),
        (("import", "prices.toml", "--from", "genai-prices"), "Either a FILE or --from"),
        (("import", "prices.toml", "--allow-jumps"), "--reason"),
        (("propose", "prices.txt"), "--format"),
        (("rerate", "--month", "2026-09", "-t", "acme", "--prices", "no-such.toml"), "neither a version"),
    ],
)
def test_mistakes_never_leave_the_terminal(
    server: CannedServer, run: Run, tmp_path: Path, typed: tuple[str, ...], said: str
) -> None:
    """What to type instead is said."""
    for name in ("prices.toml", "prices.txt"):
        (tmp_path / name).write_text("# prices")

    result = run("prices", *typed)

    assert result.code == 2
    assert said in result.err
    assert server.received == []


def test_a_source_that_says_nothing_new_imports_nothing(server: CannedServer, run: Run) -> None:
    """An empty file would be refused with a riddle."""
    server.answers["GetPriceDraft"] = pb.PriceDraft(source_version="genai-prices 0.2.3", base_version=4)

    result = run("prices", "import", "--from", "genai-prices")

    assert result.code == 2
    assert "says nothing that version 4 does not say already" in result.err


def test_a_proposal_is_shown_with_what_it_changes(server: CannedServer, run: Run) -> None:
    """Field by field, as an import shows it."""
    server.answers["GetPriceProposal"] = PROPOSAL

    table, document = run("prices", "proposal", "pp-1"), run("prices", "proposal", "pp-1", "-o", "json")

    assert server.last.request.name == "priceProposals/pp-1"
    assert "requested" in table.out.lower()
    assert "2.00" in table.out
    assert "4.00" in table.out
    assert len(json.loads(document.out)["changes"]) == 1


def test_a_proposal_is_approved_with_a_reason(server: CannedServer, run: Run) -> None:
    """By its id or its name."""
    server.answers["GetPriceProposal"] = PROPOSAL
    server.answers["ApprovePriceProposal"] = PROPOSAL

    result = run("prices", "approve", "priceProposals/pp-1", "--reason", "as agreed", "--etag", "v1")

    request = server.last.request
    assert result.code == 0
    assert (request.name, request.decision_reason, request.etag) == ("priceProposals/pp-1", "as agreed", "v1")


def test_a_list_asks_for_both_times_of_a_price(server: CannedServer, run: Run) -> None:
    """When it holds, and when that was known."""
    server.answers["ListPrices"] = pb.ListPricesResponse()

    run("prices", "list", "--at", "2026-12-15", "--known-at", "2026-11-01")

    request = server.last.request
    assert request.effective_at.ToJsonString() == "2026-12-15T00:00:00Z"
    assert request.known_at.ToJsonString() == "2026-11-01T00:00:00Z"


def test_a_rerating_is_asked_for_with_a_version_or_a_file(server: CannedServer, run: Run, tmp_path: Path) -> None:
    """A number is a version; --scope platform is everybody."""
    (tmp_path / "contract.toml").write_text("# prices")
    server.answers["GetRerateReport"] = pb.RerateReport(
        booked=Money(units=10), rerated=Money(units=4), notes=["gemini-x has no price there."]
    )

    with_version = run("prices", "rerate", "--month", "2026-09", "-t", "acme", "--prices", "3", "--tier", "batch")
    first = server.last.request
    run("prices", "rerate", "--month", "2026-09", "--scope", "platform", "--prices", "contract.toml")
    second = server.last.request

    assert (first.parent, first.version, first.service_tier) == ("tenants/acme", 3, "batch")
    assert "booked $10.00, would have been $4.00: $6.00 less" in with_version.err
    assert "gemini-x has no price there." in with_version.err
    assert (second.parent, second.content, second.format) == ("", "# prices", pb.PRICE_FILE_FORMAT_TOML)
