"""From list price to charge with the command line, against the real server: rules, allocations, wallets, labels."""

from tests.drivers.command_line import CommandLine, Company
from tests.drivers.stack import RunningStack


def nanos(money: dict[str, str]) -> int:
    """An amount as proto JSON writes it."""
    return int(money.get("units", 0)) * 10**9 + int(money.get("nanos", 0))


def test_rules_and_shared_costs_stand_in_the_statement(tollhouse: CommandLine, company: Company) -> None:
    """What is charged is the cost, and each entry with its rule and reason; a dry run adds none."""
    here = ("--tenant", company.tenant)
    tollhouse.json("generate", "Hello", key=company.key)
    rule = (
        "charge-rules",
        "create",
        "overhead",
        *here,
        "--percent",
        "5",
        "--reason",
        "Overhead",
        "--from",
        "2026-01-01",
    )
    fee = ("allocations", "create", "fee", *here, "--title", "Platform fee", "--amount", "10", "--method", "evenly")

    preview = tollhouse.json(*rule, "--dry-run")
    tollhouse.ok(*rule)
    tollhouse.ok(*fee, "--reason", "Contract 7", "--from", "this", "--once")
    statement = tollhouse.json("report", "show", *here)
    listed = tollhouse.json("charge-rules", "list", *here)
    (shared,) = tollhouse.json("allocations", "list", *here, "--month", "this")

    cost, entries = nanos(statement["totals"]["cost"]), statement["entries"]
    assert preview["after"]["rateMillionths"] == "50000"
    assert [one["name"].rsplit("/", 1)[1] for one in listed] == ["overhead"]
    assert shared["method"] == "SHARED_COST_METHOD_EVENLY"
    assert [(one["rule"].rsplit("/", 1)[1], one["department"]) for one in entries] == [
        ("overhead", company.department),
        ("fee", company.department),
    ]
    assert [entry["reason"].partition(" (")[0] for entry in entries] == ["Overhead", "Platform fee: Contract 7"]
    assert nanos(entries[1]["amount"]) == 10 * 10**9
    assert nanos(statement["totals"]["charge"]) == cost + sum(nanos(entry["amount"]) for entry in entries)


def test_a_wallet_lets_be_spent_what_was_paid(tollhouse: CommandLine, company: Company) -> None:
    """Empty it refuses; topped up it pays for the call, and says what is left."""
    here = ("--tenant", company.tenant)
    tollhouse.ok("wallets", "create", "purse", *here)

    refused = tollhouse("generate", "Hello", key=company.key)
    tollhouse.ok("wallets", "top-up", "purse", "$5", *here, "--expires", "30d", "--reference", "invoice 7")
    served = tollhouse("generate", "Hello", key=company.key)
    wallet = tollhouse.json("wallets", "show", "purse", *here)
    (top_up,) = tollhouse.json("wallets", "top-ups", "purse", *here)
    changed = tollhouse("limits", "update", "purse", *here, "--amount", "$100")

    assert (refused.returncode, served.returncode) == (6, 0), served.stderr
    assert nanos(wallet["spent"]) > 0
    assert nanos(wallet["balance"]) == 5 * 10**9 - nanos(wallet["spent"])
    assert nanos(top_up["remaining"]) == nanos(wallet["balance"])
    assert changed.stderr.startswith("error: RESOURCE_IN_USE")


def test_a_bound_label_is_on_the_record_and_not_the_callers(
    tollhouse: CommandLine, company: Company, running_stack: RunningStack
) -> None:
    """The caller's other labels are kept beside it."""
    place = ("--tenant", company.tenant, "--department", "research")
    bound = tollhouse.json("labels", "bind", "chat", *place, "--label", "cost_center=4711")

    labels: list[dict[str, str]] = []
    for _ in range(100):
        tollhouse.ok("generate", "Hi", "--label", "cost_center=mine", "--label", "run=7", key=company.key)
        found = running_stack.query(f"SELECT labels FROM usage_record WHERE tenant_id = '{company.tenant}'")  # noqa: S608
        labels = [row[0] for row in found]
        if any("4711" in str(one) for one in labels):
            break

    listed = tollhouse.json("labels", "list", "--tenant", company.tenant)
    assert {"label": "run", "valueCount": "1"} in listed
    assert bound["labels"] == {"cost_center": "4711"}
    assert any("4711" in str(one) and "run" in str(one) for one in labels)
