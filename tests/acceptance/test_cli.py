"""The command line, the real server, the simulator: administration, and calls that obey it."""

import csv
import io
import json
import stat
from dataclasses import replace
from uuid import uuid4

from tests.drivers.command_line import CommandLine, Company
from tests.drivers.stack import RunningStack


def test_a_company_made_with_the_command_line_can_generate(tollhouse: CommandLine, company: Company) -> None:
    """From nothing to an answer, its price and its receipt."""
    as_people_start_it = replace(tollhouse, forks=None)

    ended = as_people_start_it("generate", "Hello there", key=company.key)

    assert ended.returncode == 0, ended.stderr
    assert "Hello there" in ended.stdout
    assert "gemini-" in ended.stderr
    assert "$0.00" in ended.stderr
    assert "receipt " in ended.stderr


def test_a_budget_refuses_with_its_numbers_and_is_raised(tollhouse: CommandLine, company: Company) -> None:
    """Exit code 6 names the limit; after the amount is raised the same call goes through."""
    create = ["limits", "create", "tiny", "--scope", "departments/research", "--tenant", company.tenant]
    tollhouse.ok(*create, "--metric", "cost", "--window", "month", "--amount", "$0.000001")

    refused = tollhouse("generate", "Hello", key=company.key)
    tollhouse.ok("limits", "update", "tiny", "--tenant", company.tenant, "--amount", "100")
    allowed = tollhouse("generate", "Hello", key=company.key)

    assert refused.returncode == 6
    assert refused.stderr.startswith("error: LIMIT_EXCEEDED: No room in ")
    assert f"tenants/{company.tenant}/limits/tiny (cost per month): amount $0.000001, held $0.00" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert allowed.returncode == 0, allowed.stderr


def test_the_settled_cost_of_a_call_is_the_budget_s_settled_amount(tollhouse: CommandLine, company: Company) -> None:
    """To the nano-dollar."""
    create = ["limits", "create", "monthly", "--tenant", company.tenant]
    tollhouse.ok(*create, "--metric", "cost", "--window", "month", "--amount", "10")

    answer = tollhouse.json("generate", "Hello", key=company.key)
    limit = tollhouse.json("limits", "show", "monthly", "--tenant", company.tenant)

    assert limit["current"]["settled"]["money"] == answer["outcome"]["cost"]
    assert limit["current"]["held"]["money"]["nanos"] == 0


def test_dry_run_changes_nothing(tollhouse: CommandLine, company: Company) -> None:
    """The server checks and previews; afterwards all is as before."""
    before = tollhouse.json("tenants", "show", company.tenant)

    preview = tollhouse.json("tenants", "update", company.tenant, "--display-name", "Bolt", "--dry-run")
    deletion = tollhouse.json("tenants", "delete", company.tenant, "--dry-run")
    creation = tollhouse("tenants", "create", f"{company.tenant}-new", "--dry-run")

    assert preview["before"] == before
    assert preview["after"]["displayName"] == "Bolt"
    assert deletion["after"]["state"] == "STATE_DELETED"
    assert creation.returncode == 0, creation.stderr
    assert tollhouse.json("tenants", "show", company.tenant) == before
    assert tollhouse("tenants", "show", f"{company.tenant}-new").returncode == 4


def test_a_dry_run_is_refused_like_the_change_itself(tollhouse: CommandLine, company: Company) -> None:
    """It is the server's own answer."""
    preview = tollhouse("tenants", "create", company.tenant, "--dry-run")
    change = tollhouse("tenants", "create", company.tenant)

    assert preview.returncode == change.returncode == 5
    assert preview.stderr == change.stderr
    assert preview.stderr.startswith("error: RESOURCE_EXISTS")


def test_the_same_request_id_creates_once(tollhouse: CommandLine, company: Company) -> None:
    """A repetition is answered with the first outcome; another body is refused."""
    request_id = str(uuid4())
    create = ["departments", "create", "legal", "--tenant", company.tenant, "--request-id", request_id]

    first = tollhouse.json(*create)
    again = tollhouse.json(*create)
    other = tollhouse(*create, "--display-name", "Other")

    assert first == again
    assert other.returncode == 5
    assert other.stderr.startswith("error: REQUEST_ID_REUSED")


def test_a_stale_etag_is_refused(tollhouse: CommandLine, company: Company) -> None:
    """Somebody else was faster."""
    etag = tollhouse.json("tenants", "show", company.tenant)["etag"]
    tollhouse.ok("tenants", "update", company.tenant, "--display-name", "First", "--etag", etag)

    second = tollhouse("tenants", "update", company.tenant, "--display-name", "Second", "--etag", etag)

    assert second.returncode == 5
    assert second.stderr.startswith("error: ETAG_MISMATCH")


def test_a_revoked_key_is_refused(tollhouse: CommandLine, company: Company) -> None:
    """With exit code 3, and without saying why."""
    key_id = company.key.split("_")[2]
    name = f"{company.department}/projects/chat/apiKeys/{key_id}"

    tollhouse.ok("keys", "revoke", name, "--yes")
    refused = tollhouse("generate", "Hello", key=company.key)

    assert refused.returncode == 3
    assert refused.stderr.startswith("error: CREDENTIALS_INVALID")
    assert company.key not in refused.stderr


def test_a_caller_s_key_may_not_administer(tollhouse: CommandLine, company: Company) -> None:
    """Whether what it asks for exists is not told."""
    existing = tollhouse("tenants", "show", "demo", key=company.key)
    missing = tollhouse("tenants", "show", "nobody-here", key=company.key)

    assert existing.returncode == missing.returncode == 3
    assert existing.stderr.replace("demo", "") == missing.stderr.replace("nobody-here", "")


def test_a_suspended_tenant_is_refused_until_it_is_resumed(tollhouse: CommandLine, company: Company) -> None:
    """Without touching its keys, and with the next call: the server that has changed something goes by it at once."""
    for _ in range(3):
        tollhouse.ok("tenants", "suspend", company.tenant, "--yes")
        refused = tollhouse("generate", "Hello", key=company.key)
        tollhouse.ok("tenants", "resume", company.tenant)
        allowed = tollhouse("generate", "Hello", key=company.key)

        assert refused.returncode == 3
        assert allowed.returncode == 0, allowed.stderr


def test_lists_go_over_pages_and_come_as_csv(tollhouse: CommandLine, company: Company) -> None:
    """A header, and a row for each."""
    for name in ("aa", "bb", "cc"):
        tollhouse.ok("departments", "create", name, "--tenant", company.tenant, "--under", "research")

    text = tollhouse.ok("departments", "list", "--tenant", company.tenant, "-o", "csv")
    two = tollhouse.json("departments", "list", "--tenant", company.tenant, "--limit", "2")

    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"].rsplit("/", 1)[-1] for row in rows] == ["aa", "bb", "cc", "research"]
    assert {row["parent_department"] for row in rows[:3]} == {company.department}
    assert len(two) == 2


def test_every_kind_of_content_goes_both_ways(tollhouse: CommandLine, company: Company) -> None:
    """Image out to a file, the same image in, tools, a schema, embeddings, a count."""
    tools = [{"name": "weather", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}]
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
    (tollhouse.directory / "tools.json").write_text(json.dumps(tools))
    (tollhouse.directory / "schema.json").write_text(json.dumps(schema))

    drawn = tollhouse("generate", "A toll house", "--tier", "flash-image", "--out", "pictures", key=company.key)
    assert drawn.returncode == 0, drawn.stderr
    (picture,) = (tollhouse.directory / "pictures").iterdir()
    seen = tollhouse.json("generate", "What is this?", "--file", str(picture), key=company.key)
    called = tollhouse.ok("generate", "Weather in Oslo?", "--tools", "tools.json", key=company.key)
    shaped = tollhouse.ok("generate", "Describe a car", "--json-schema", "schema.json", "--no-stream", key=company.key)
    embedded = tollhouse.json("embed", "one", "two", "--dimensions", "16", key=company.key)
    counted = tollhouse.json("count-tokens", "How many?", key=company.key)

    assert picture.read_bytes().startswith(b"\x89PNG")
    assert seen["candidates"]
    assert json.loads(called)["functionCall"]["name"] == "weather"
    assert "colour" in json.loads(shaped)
    assert [len(each["values"]) for each in embedded["embeddings"]] == [16, 16]
    assert counted["totalTokens"] > 0


def test_an_unknown_model_is_not_found(tollhouse: CommandLine, company: Company) -> None:
    """Exit code 4, and where the names are."""
    ended = tollhouse("generate", "Hello", "--model", "gemini-99", key=company.key)

    assert ended.returncode == 4
    assert ended.stderr.startswith("error: MODEL_UNKNOWN")


def test_a_wrong_price_file_is_refused_whole(tollhouse: CommandLine) -> None:
    """The book in force stays."""
    before = tollhouse.json("prices", "show")
    (tollhouse.directory / "prices.json").write_text('{"prices": [{"model": "m", "cost": "free"}]}')

    refused = tollhouse("prices", "import", "prices.json")

    assert refused.returncode == 5
    assert refused.stderr.startswith("error: PRICE_FILE_INVALID")
    assert tollhouse.json("prices", "show") == before


def test_an_upstream_key_is_added_disabled_and_deleted_without_being_seen(tollhouse: CommandLine) -> None:
    """Through stdin into Vault; listed by its metadata."""
    account, secret = f"acc-{uuid4().hex[:8]}", f"AIza{uuid4().hex}"
    tollhouse.ok("accounts", "create", account)
    tollhouse.ok("accounts", "disable", account, "--yes")

    added = tollhouse("upstream-keys", "add", "one", "--account", account, stdin=secret)
    disabled = tollhouse.json("upstream-keys", "disable", "one", "--account", account, "--yes")
    listed = tollhouse.ok("upstream-keys", "list", "--account", account, "-o", "csv")
    in_use = tollhouse("accounts", "delete", account, "--yes")
    tollhouse.ok("upstream-keys", "delete", "one", "--account", account, "--yes")
    tollhouse.ok("accounts", "delete", account, "--yes")

    assert added.returncode == 0, added.stderr
    assert disabled["state"] == "STATE_DISABLED"
    assert secret not in added.stdout + added.stderr + listed
    assert in_use.stderr.startswith("error: RESOURCE_IN_USE")


def test_the_local_run_is_found_without_any_setting(running_stack: RunningStack, tollhouse: CommandLine) -> None:
    """Where `make run` serves, `tollhouse generate` works at once, with the demo key."""
    local = tollhouse.directory / "checkout"
    (local / ".tollhouse").mkdir(parents=True)
    run = {"grpc": running_stack.grpc, "demo_api_key": running_stack.demo_api_key, "admin_api_key": "unused-here"}
    (local / ".tollhouse/run.json").write_text(json.dumps(run))
    plain = {key: value for key, value in tollhouse.environment.items() if not key.startswith("TOLLHOUSE_")}

    ended = CommandLine(environment=plain, directory=local)("generate", "Hello")

    assert ended.returncode == 0, ended.stderr
    assert "with its demo key" in ended.stderr


def test_a_profile_reaches_the_server(running_stack: RunningStack, tollhouse: CommandLine) -> None:
    """Stored once, used from then on."""
    plain = {key: value for key, value in tollhouse.environment.items() if not key.startswith("TOLLHOUSE_")}
    person = replace(tollhouse, environment=plain)

    person.ok("config", "set", "here", "--endpoint", running_stack.grpc, stdin=running_stack.admin_api_key)
    tenants = person.json("tenants", "list")

    file = tollhouse.directory / "tollhouse/config.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "tenants/demo" in [tenant["name"] for tenant in tenants]


def test_the_shell_completes_tenants_from_the_server(tollhouse: CommandLine, company: Company) -> None:
    """At a Tab after --tenant."""
    words = f"tollhouse departments list --tenant {company.tenant[:-2]}"
    asked = {"_TOLLHOUSE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "4"}
    shell = CommandLine(environment={**tollhouse.environment, **asked}, directory=tollhouse.directory)

    assert company.tenant in shell.ok().split()
