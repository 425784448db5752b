"""`tollhouse accounts`: the Google Cloud projects with which Gemini is called, and model servers of one's own."""

from typing import Annotated, Any

import typer
from tollhouse.admin.v1 import accounts_pb2 as pb
from tollhouse.admin.v1.accounts_pb2_grpc import AccountServiceStub

from tollhouse_admin.account_options import (
    Address,
    Egress,
    Environment,
    GoogleProject,
    Limits,
    OwnEnvironment,
    OwnTenant,
    Region,
    UpstreamKind,
    complete_accounts,
    environment_of,
    limits_of,
    limits_text,
    tenant_of_account,
    upstream_of,
)
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name, last_id
from tollhouse_admin.output import Layout
from tollhouse_admin.resource import DisplayName, Etag, Kind, NewId, changed, mask

app = noun("Accounts: the Google Cloud projects with which Gemini is called, and model servers of one's own.")

AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT", autocompletion=complete_accounts, help="Id or name.")]


def _stub(session: Session) -> AccountServiceStub:
    return session.connection.stub(AccountServiceStub)


def _read(session: Session, name: str) -> pb.Account:
    return session.connection.call(_stub(session).GetAccount, pb.GetAccountRequest(name=name))


COLUMNS = [
    *("name", "display_name", "upstream", "google_project", "endpoint", "region", "egress", "tenant", "environment"),
    *("state", "create_time"),
]
ACCOUNT = Kind(Layout([*COLUMNS, ("limits", limits_text)]), _read)


@command(app, "create", CHANGE)
def create(
    session: Session,
    account: NewId,
    *,
    upstream: UpstreamKind = None,
    display_name: DisplayName = None,
    google_project: GoogleProject = None,
    endpoint: Address = None,
    region: Region = None,
    egress: Egress = None,
    tenant: OwnTenant = None,
    environment: OwnEnvironment = None,
    limit: Limits = None,
) -> None:
    """Create an account, still without keys."""
    name = full_name(account, "accounts")
    resource = pb.Account(
        upstream=upstream_of(upstream),
        display_name=display_name or "",
        google_project=google_project or "",
        endpoint=endpoint or "",
        region=region or "",
        egress=egress or "",
        tenant=tenant_of_account(tenant or ""),
        environment=environment_of(environment or Environment.ALL),
        limits=limits_of(limit or []),
    )
    request = pb.CreateAccountRequest(account_id=last_id(name), account=resource)
    ACCOUNT.create(session, name, _stub(session).CreateAccount, request)


@command(app, "list", LIST)
def list_accounts(session: Session) -> None:
    """List accounts."""
    ACCOUNT.show_pages(session, _stub(session).ListAccounts, pb.ListAccountsRequest(), "accounts")


@command(app, "show", READ)
def show(session: Session, account: AccountId) -> None:
    """Show one account."""
    ACCOUNT.show(session, full_name(account, "accounts"))


@command(app, "update", CHANGE)
def update(
    session: Session,
    account: AccountId,
    *,
    display_name: DisplayName = None,
    google_project: GoogleProject = None,
    endpoint: Address = None,
    region: Region = None,
    egress: Egress = None,
    tenant: OwnTenant = None,
    environment: OwnEnvironment = None,
    limit: Limits = None,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="No limits any more.")] = False,
    etag: Etag = None,
) -> None:
    """Change an account: where it is reached and how, for whom it is, its limits; --limit replaces all that it had."""
    if limit and no_limits:
        raise wrong_usage("--limit and --no-limits do not go together", "Give one of them.")
    name = full_name(account, "accounts")
    fields: dict[str, Any] = changed(
        display_name=display_name,
        google_project=google_project,
        endpoint=endpoint,
        region=region,
        egress=egress,
        tenant=None if tenant is None else tenant_of_account(tenant),
        environment=None if environment is None else environment_of(environment),
        limit=[] if no_limits else limits_of(limit) if limit else None,
    )
    if "limit" in fields:
        fields["limits"] = fields.pop("limit")
    resource = pb.Account(name=name, etag=etag or "", **fields)
    request = pb.UpdateAccountRequest(account=resource, update_mask=mask(fields))
    ACCOUNT.change(session, "update", name, _stub(session).UpdateAccount, request)


@command(app, "disable", DESTROY)
def disable(session: Session, account: AccountId, *, etag: Etag = None) -> None:
    """Take an account out of routing; calls in flight end normally."""
    name = full_name(account, "accounts")
    request = pb.DisableAccountRequest(name=name, etag=etag or "")
    warning = f"No call will go to {name} until it is enabled."
    ACCOUNT.change(session, "disable", name, _stub(session).DisableAccount, request, warning=warning)


@command(app, "enable", CHANGE)
def enable(session: Session, account: AccountId, *, etag: Etag = None) -> None:
    """Put an account back into routing."""
    name = full_name(account, "accounts")
    ACCOUNT.change(
        session, "enable", name, _stub(session).EnableAccount, pb.EnableAccountRequest(name=name, etag=etag or "")
    )


@command(app, "delete", DESTROY)
def delete(session: Session, account: AccountId, *, etag: Etag = None) -> None:
    """Delete an account that has no keys."""
    name = full_name(account, "accounts")
    request = pb.DeleteAccountRequest(name=name, etag=etag or "")
    warning = f"{name} will be deleted for good."
    ACCOUNT.change(session, "delete", name, _stub(session).DeleteAccount, request, warning=warning)
