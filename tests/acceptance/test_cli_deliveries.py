"""Schedules of deliveries with the command line, against the real server."""

from tests.drivers.command_line import CommandLine, Company


def test_a_deployment_without_a_way_says_what_would_open_it(tollhouse: CommandLine, company: Company) -> None:
    """Neither a directory nor a mail server is set here; a wrong format is told before that."""
    here = ("--tenant", company.tenant)

    refused = tollhouse("deliveries", "schedule", "monthly", *here, "--format", "pdf", "--to", "cfo@acme.example")
    wrong = tollhouse("deliveries", "schedule", "monthly", *here, "--format", "docx", "--folder")
    nowhere = tollhouse("deliveries", "schedule", "monthly", *here, "--format", "pdf")

    assert refused.stderr.startswith("error: DELIVERY_NOT_SET_UP")
    assert "TOLLHOUSE_SMTP_HOST" in refused.stderr
    assert "json, csv, xlsx" in wrong.stderr
    assert "--folder, --bucket, --to" in nowhere.stderr
    assert tollhouse.json("deliveries", "schedules", *here) == []
    assert tollhouse.json("deliveries", "list", *here, "--state", "failed") == []
