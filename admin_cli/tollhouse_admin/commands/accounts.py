"""`tollhouse accounts`: the Google Cloud projects with which Gemini is called."""

from typing import Annotated

import typer
from tollhouse.admin.v1 import accounts_pb2 as pb
from tollhouse.admin.v1.accounts_pb2_grpc import AccountServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.names import full_name, last_id
from tollhouse_admin.output import Layout
from tollhouse_admin.resource import DisplayName, Etag, Kind, NewId, changed, mask

app = noun("Accounts: the Google Cloud projects with which Gemini is called.")

AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Id or name.")]
GoogleProject = Annotated[str | None, typer.Option(metavar="ID", help="Id of the Google Cloud project.")]

Address = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="NAME", help="Upstream address, by its name in the server's settings."),
]
Region = Annotated[str | None, typer.Option(metavar="REGION", help="Region, where the endpoint has one.")]


def _stub(session: Session) -> AccountServiceStub:
    return session.connection.stub(AccountServiceStub)


def _read(session: Session, name: str) -> pb.Account:
    return session.connection.call(_stub(session).GetAccount, pb.GetAccountRequest(name=name))


ACCOUNT = Kind(
    Layout(["name", "display_name", "upstream", "google_project", "endpoint", "region", "state", "create_time"]), _read
)


@command(app, "create", CHANGE)
def create(
    session: Session,
    account: NewId,
    *,
    display_name: DisplayName = None,
    google_project: GoogleProject = None,
    endpoint: Address = None,
    region: Region = None,
) -> None:
    """Create an account, still without keys."""
    name = full_name(account, "accounts")
    resource = pb.Account(
        display_name=display_name or "",
        google_project=google_project or "",
        endpoint=endpoint or "",
        region=region or "",
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
    etag: Etag = None,
) -> None:
    """Change an account's display name, Google Cloud project, or where it is reached."""
    name = full_name(account, "accounts")
    fields = changed(display_name=display_name, google_project=google_project, endpoint=endpoint, region=region)
    resource = pb.Account(name=name, etag=etag or "", **fields)
    request = pb.UpdateAccountRequest(account=resource, update_mask=mask(fields))
    ACCOUNT.change(session, "update", name, _stub(session).UpdateAccount, request)


@command(app, "disable", DESTROY)
def disable(session: Session, account: AccountId) -> None:
    """Take an account out of routing; calls in flight end normally."""
    name = full_name(account, "accounts")
    request = pb.DisableAccountRequest(name=name)
    warning = f"No call will go to {name} until it is enabled."
    ACCOUNT.change(session, "disable", name, _stub(session).DisableAccount, request, warning=warning)


@command(app, "enable", CHANGE)
def enable(session: Session, account: AccountId) -> None:
    """Put an account back into routing."""
    name = full_name(account, "accounts")
    ACCOUNT.change(session, "enable", name, _stub(session).EnableAccount, pb.EnableAccountRequest(name=name))


@command(app, "delete", DESTROY)
def delete(session: Session, account: AccountId) -> None:
    """Delete an account that has no keys."""
    name = full_name(account, "accounts")
    request = pb.DeleteAccountRequest(name=name)
    warning = f"{name} will be deleted for good."
    ACCOUNT.change(session, "delete", name, _stub(session).DeleteAccount, request, warning=warning)
