"""`tollhouse upstream-keys`: the keys with which Tollhouse calls Gemini; they go to Vault and are never shown."""

from typing import Annotated

import typer
from tollhouse.admin.v1 import upstream_keys_pb2 as pb
from tollhouse.admin.v1.upstream_keys_pb2_grpc import UpstreamKeyServiceStub

from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name, last_id
from tollhouse_admin.output import Layout
from tollhouse_admin.resource import DisplayName, Kind, NewId
from tollhouse_admin.secret_source import KeyFile, read_key

app = noun("Upstream keys: with them Tollhouse calls Gemini. They go to Vault and are never shown.")

UpstreamKeyId = Annotated[str, typer.Argument(metavar="KEY", help="Id or name; an id needs --account.")]
Account = Annotated[str | None, typer.Option("--account", "-a", metavar="ID", help="Account that the key belongs to.")]


def _stub(session: Session) -> UpstreamKeyServiceStub:
    return session.connection.stub(UpstreamKeyServiceStub)


def _read(session: Session, name: str) -> pb.UpstreamKey:
    return session.connection.call(_stub(session).GetUpstreamKey, pb.GetUpstreamKeyRequest(name=name))


def _name(key: str, account: str | None) -> str:
    if "/" in key:
        return full_name(key, "upstreamKeys")
    if account is None:
        raise wrong_usage(f"The account of key {key!r} is not named", "Add --account ID.")
    return full_name(key, "upstreamKeys", full_name(account, "accounts"))


UPSTREAM_KEY = Kind(Layout(["name", "display_name", "state", "fingerprint", "vault_version", "create_time"]), _read)


@command(app, "add", CHANGE)
def add(
    session: Session,
    key: NewId,
    *,
    account: Account = None,
    display_name: DisplayName = None,
    key_file: KeyFile = None,
) -> None:
    """Store a key in Vault and put it to use; the key comes from a file, stdin or a prompt."""
    name = _name(key, account)
    request = pb.AddUpstreamKeyRequest(
        parent=name.rsplit("/", 2)[0],
        upstream_key_id=last_id(name),
        upstream_key=pb.UpstreamKey(display_name=display_name or ""),
        secret=read_key(key_file, prompt="Key as Google issued it"),
    )
    UPSTREAM_KEY.create(session, name, _stub(session).AddUpstreamKey, request)


@command(app, "list", LIST)
def list_upstream_keys(session: Session, *, account: Account = None) -> None:
    """List the keys of an account."""
    if account is None:
        raise wrong_usage("The account is not named", "Add --account ID.")
    request = pb.ListUpstreamKeysRequest(parent=full_name(account, "accounts"))
    UPSTREAM_KEY.show_pages(session, _stub(session).ListUpstreamKeys, request, "upstream_keys")


@command(app, "show", READ)
def show(session: Session, key: UpstreamKeyId, *, account: Account = None) -> None:
    """Show what is known about one key."""
    UPSTREAM_KEY.show(session, _name(key, account))


@command(app, "disable", DESTROY)
def disable(session: Session, key: UpstreamKeyId, *, account: Account = None) -> None:
    """Take a key out of use; calls in flight end normally."""
    name = _name(key, account)
    request = pb.DisableUpstreamKeyRequest(name=name)
    warning = f"{name} will not be used until it is enabled."
    UPSTREAM_KEY.change(session, "disable", name, _stub(session).DisableUpstreamKey, request, warning=warning)


@command(app, "enable", CHANGE)
def enable(session: Session, key: UpstreamKeyId, *, account: Account = None) -> None:
    """Put a disabled key back to use."""
    name = _name(key, account)
    request = pb.EnableUpstreamKeyRequest(name=name)
    UPSTREAM_KEY.change(session, "enable", name, _stub(session).EnableUpstreamKey, request)


@command(app, "delete", DESTROY)
def delete(session: Session, key: UpstreamKeyId, *, account: Account = None) -> None:
    """Remove a key from use and its secret from Vault; at Google it stays valid."""
    name = _name(key, account)
    request = pb.DeleteUpstreamKeyRequest(name=name)
    warning = f"{name} and its secret will be deleted for good."
    UPSTREAM_KEY.change(session, "delete", name, _stub(session).DeleteUpstreamKey, request, warning=warning)
