"""`tollhouse upstream-keys`: the keys with which Tollhouse calls Gemini; they go to Vault and are never shown."""

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from tollhouse.admin.v1 import accounts_pb2
from tollhouse.admin.v1 import upstream_keys_pb2 as pb
from tollhouse.admin.v1.accounts_pb2_grpc import AccountServiceStub
from tollhouse.admin.v1.upstream_keys_pb2_grpc import UpstreamKeyServiceStub

from tollhouse_admin.account_options import complete_accounts
from tollhouse_admin.command import CHANGE, DESTROY, LIST, READ, Session, command, noun
from tollhouse_admin.completion import offered
from tollhouse_admin.connection import Connection
from tollhouse_admin.dry_run import Change, perform
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.key_rotations import ROTATION_LAYOUT, wait_for_end
from tollhouse_admin.names import full_name, last_id, named
from tollhouse_admin.output import Layout, show_list, show_one
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import DisplayName, Etag, Kind, NewId, changed, mask
from tollhouse_admin.scopes import OFFERED
from tollhouse_admin.secret_source import KeyFile, read_key

app = noun("Upstream keys: with them Tollhouse calls Gemini. They go to Vault and are never shown.")


def _complete_keys(context: typer.Context, incomplete: str) -> list[str]:
    """Offer the ids of keys of the account that was typed before."""

    def entries(connection: Connection) -> Iterator[str]:
        if account := context.params.get("account"):
            stub = connection.stub(UpstreamKeyServiceStub)
            request = pb.ListUpstreamKeysRequest(parent=full_name(account, "accounts"))
            for key in connection.pages(stub.ListUpstreamKeys, request, "upstream_keys", limit=OFFERED):
                yield key.name

    return offered(incomplete, entries, profile=context.params.get("profile"))


UpstreamKeyId = Annotated[
    str,
    typer.Argument(metavar="KEY", autocompletion=_complete_keys, help="Id or name; an id needs --account."),
]
Account = Annotated[
    str | None,
    typer.Option(
        "--account",
        "-a",
        metavar="ID",
        callback=named,
        autocompletion=complete_accounts,
        help="Account that the key belongs to.",
    ),
]


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


def _read_rotation(session: Session, name: str) -> pb.KeyRotation:
    return session.connection.call(_stub(session).GetKeyRotation, pb.GetKeyRotationRequest(name=name))


def _read_policy(session: Session, name: str) -> pb.KeyPolicy:
    return session.connection.call(_stub(session).GetKeyPolicy, pb.GetKeyPolicyRequest(name=name))


def _of_account(account: str | None) -> str:
    if account is None:
        raise wrong_usage("The account is not named", "Add --account ID.")
    return full_name(account, "accounts")


ROTATION = Kind(ROTATION_LAYOUT, _read_rotation)
POLICY = Kind(Layout(["name", "provider", "rotation_period_days", "drain_seconds", "update_time"]), _read_policy)
UPSTREAM_KEY = Kind(Layout(["name", "display_name", "state", "fingerprint", "vault_version", "create_time"]), _read)


@command(app, "add", CHANGE)
def add(
    session: Session,
    key: NewId,
    *,
    account: Account = None,
    display_name: DisplayName = None,
    key_file: KeyFile = None,
    replaces: Annotated[
        str | None, typer.Option(metavar="KEY", help="Key whose place it takes, once it was tried.")
    ] = None,
) -> None:
    """Store a key in Vault and put it to use; the key comes from a file, stdin or a prompt."""
    name = _name(key, account)
    request = pb.AddUpstreamKeyRequest(
        parent=name.rsplit("/", 2)[0],
        upstream_key_id=last_id(name),
        upstream_key=pb.UpstreamKey(display_name=display_name or ""),
        secret=read_key(key_file, prompt="Key as Google issued it"),
        replaces=last_id(replaces) if replaces else "",
    )
    UPSTREAM_KEY.create(session, name, _stub(session).AddUpstreamKey, request)


@command(app, "list", LIST)
def list_upstream_keys(session: Session, *, account: Account = None) -> None:
    """List the keys of an account."""
    request = pb.ListUpstreamKeysRequest(parent=_of_account(account))
    UPSTREAM_KEY.show_pages(session, _stub(session).ListUpstreamKeys, request, "upstream_keys")


@command(app, "show", READ)
def show(session: Session, key: UpstreamKeyId, *, account: Account = None) -> None:
    """Show what is known about one key."""
    UPSTREAM_KEY.show(session, _name(key, account))


@command(app, "disable", DESTROY)
def disable(session: Session, key: UpstreamKeyId, *, account: Account = None, etag: Etag = None) -> None:
    """Take a key out of use; calls in flight end normally."""
    name = _name(key, account)
    request = pb.DisableUpstreamKeyRequest(name=name, etag=etag or "")
    warning = f"{name} will not be used until it is enabled."
    UPSTREAM_KEY.change(session, "disable", name, _stub(session).DisableUpstreamKey, request, warning=warning)


@command(app, "enable", CHANGE)
def enable(session: Session, key: UpstreamKeyId, *, account: Account = None, etag: Etag = None) -> None:
    """Put a disabled key back to use."""
    name = _name(key, account)
    request = pb.EnableUpstreamKeyRequest(name=name, etag=etag or "")
    UPSTREAM_KEY.change(session, "enable", name, _stub(session).EnableUpstreamKey, request)


@command(app, "delete", DESTROY)
def delete(session: Session, key: UpstreamKeyId, *, account: Account = None, etag: Etag = None) -> None:
    """Remove a key from use and its secret from Vault; at Google it stays valid."""
    name = _name(key, account)
    request = pb.DeleteUpstreamKeyRequest(name=name, etag=etag or "")
    warning = f"{name} and its secret will be deleted for good."
    UPSTREAM_KEY.change(session, "delete", name, _stub(session).DeleteUpstreamKey, request, warning=warning)


Wait = Annotated[bool, typer.Option("--wait", help="Show each step until the end; Ctrl-C leaves it going on.")]
RotationId = Annotated[
    str, typer.Argument(metavar="ROTATION", help="Id or name, as `upstream-keys rotations` shows it.")
]


@command(app, "rotate", CHANGE)
def rotate(
    session: Session, key: UpstreamKeyId, *, account: Account = None, wait: Wait = False, etag: Etag = None
) -> None:
    """Replace a key by a new one without failing a call: issue, try, use, drain, delete."""
    name = _name(key, account)
    request = pb.RotateUpstreamKeyRequest(name=name, etag=etag or "")
    _start(
        session,
        Change(
            verb="rotate",
            subject=name,
            method=_stub(session).RotateUpstreamKey,
            request=request,
            layout=ROTATION.layout,
        ),
        wait=wait,
    )


@command(app, "revoke", DESTROY)
def revoke(
    session: Session, key: UpstreamKeyId, *, account: Account = None, wait: Wait = False, etag: Etag = None
) -> None:
    """End a key in an emergency: out of use at once, deleted at its provider, destroyed in Vault."""
    name = _name(key, account)
    change = Change(
        verb="revoke",
        subject=name,
        method=_stub(session).RevokeUpstreamKey,
        request=pb.RevokeUpstreamKeyRequest(name=name, etag=etag or ""),
        layout=ROTATION.layout,
        warning=f"{name} will never be used again, and calls in flight with it may fail.",
    )
    _start(session, change, wait=wait)


def _start(session: Session, change: Change, *, wait: bool) -> None:
    started = perform(session, change)
    if not isinstance(started, pb.KeyRotation):
        return
    ended = wait_for_end(session, started, _read_rotation) if wait else started
    show_one(session.options.output, ROTATION.layout, ended)


@command(app, "rotations", LIST)
def rotations(session: Session, *, account: Account = None) -> None:
    """List the rotations and revocations of an account, newest first."""
    request = pb.ListKeyRotationsRequest(parent=_of_account(account))
    ROTATION.show_pages(session, _stub(session).ListKeyRotations, request, "key_rotations")


@command(app, "show-rotation", READ)
def show_rotation(session: Session, rotation: RotationId, *, account: Account = None) -> None:
    """Show how a rotation or revocation stands."""
    ROTATION.show(session, _rotation_name(rotation, account))


@command(app, "cancel-rotation", DESTROY)
def cancel_rotation(session: Session, rotation: RotationId, *, account: Account = None) -> None:
    """Call off a rotation whose new key is not in use yet."""
    name = _rotation_name(rotation, account)
    request = pb.CancelKeyRotationRequest(name=name)
    warning = f"{name} will be rolled back and its new key destroyed."
    method = _stub(session).CancelKeyRotation
    ROTATION.change(session, "cancel-rotation", name, method, request, warning=warning)


def _rotation_name(rotation: str, account: str | None) -> str:
    return full_name(rotation, "keyRotations") if "/" in rotation else f"{_of_account(account)}/keyRotations/{rotation}"


STATUS = Layout(
    [
        *("name", "state", "vault_version", "fingerprint"),
        ("age_days", lambda key: (datetime.now(UTC) - key.create_time.ToDatetime(tzinfo=UTC)).days),
        *("rotation_due_time", "last_use_time"),
        ("rotation", lambda key: key.rotation.rpartition("/")[2]),
        ("unusual_uses", lambda key: len(key.unusual_uses)),
    ]
)


@command(app, "status", LIST)
def status(session: Session, *, account: Account = None) -> None:
    """Show how old keys are, when they are due, when they were last used, and what was unusual about that."""
    show_list(session.options.output, STATUS, _keys(session, account))


def _keys(session: Session, account: str | None) -> Iterator[pb.UpstreamKey]:
    connection, limit = session.connection, session.options.limit
    accounts = [full_name(account, "accounts")] if account else _accounts(session)
    listed = 0
    for parent in accounts:
        request = pb.ListUpstreamKeysRequest(parent=parent)
        left = None if limit is None else limit - listed
        if left == 0:
            return
        for key in connection.pages(_stub(session).ListUpstreamKeys, request, "upstream_keys", limit=left):
            listed += 1
            yield key


def _accounts(session: Session) -> list[str]:
    stub = session.connection.stub(AccountServiceStub)
    pages = session.connection.pages(stub.ListAccounts, accounts_pb2.ListAccountsRequest(), "accounts", limit=None)
    return [account.name for account in pages]


class Provider(StrEnum):
    """Who issues and retires keys."""

    MANUAL = "manual"
    GOOGLE = "google"
    SIMULATOR = "simulator"


policy = noun("Policies: after how many days the keys of an account are rotated, and who issues them.")
app.add_typer(policy, name="policy")


@command(policy, "get", READ)
def get_policy(session: Session, *, account: Account = None) -> None:
    """Show how an account's keys are rotated."""
    POLICY.show(session, f"{_of_account(account)}/keyPolicy")


@command(policy, "set", CHANGE)
def set_policy(
    session: Session,
    *,
    account: Account = None,
    provider: Annotated[Provider | None, typer.Option(help="Who issues and retires the keys.")] = None,
    period: Annotated[
        int | None, typer.Option("--period", min=30, max=90, metavar="DAYS", help="Age at which a key is rotated.")
    ] = None,
    drain: Annotated[
        int | None,
        typer.Option(
            "--drain", min=0, max=86400, metavar="SECONDS", help="From its last use to its deletion at the provider."
        ),
    ] = None,
    credential_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON key of a service account that manages the project's keys; - is stdin."),
    ] = None,
    etag: Etag = None,
) -> None:
    """Set how an account's keys are rotated."""
    given = {"provider": provider, "rotation_period_days": period, "drain_seconds": drain}
    only_credential = credential_file is not None and all(value is None for value in given.values())
    fields = {} if only_credential else changed(**given)
    if provider is not None:
        fields["provider"] = enum_number(pb.KeyProvider.DESCRIPTOR, provider.value)
    name = f"{_of_account(account)}/keyPolicy"
    request = pb.UpdateKeyPolicyRequest(
        key_policy=pb.KeyPolicy(name=name, etag=etag or "", **fields),
        update_mask=mask(fields),
        provider_credential=read_key(credential_file, prompt="Credential") if credential_file else "",
    )
    POLICY.change(session, "set-policy", name, _stub(session).UpdateKeyPolicy, request)
