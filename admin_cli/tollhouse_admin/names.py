"""Resource names from what people type: an id with its parents as options, or the full name."""

import typer

from tollhouse_admin.failures import wrong_usage


def named(typed: str | None) -> str | None:
    """Return what an option names, None where it was not given.

    Raises:
        typer.BadParameter: an empty text was given, which must not mean everything.
    """
    if typed is not None and not typed.strip():
        raise typer.BadParameter("it is empty. Name something or leave it away; is a shell variable empty?")
    return typed


def full_name(typed: str, collection: str, parent: str = "") -> str:
    """Return `{parent}/{collection}/{id}` for an id, and a typed full name of that collection as it is.

    Raises:
        Failure: neither an id nor a name that has `collection` before its last part.
    """
    if "/" not in typed:
        return f"{parent}/{collection}/{typed}" if parent else f"{collection}/{typed}"
    if typed.split("/")[-2] != collection:
        raise wrong_usage(
            f"{typed!r} is not a name in {collection!r}", f"Give an id, or a name like {collection}/my-id."
        )
    # `departments/research` is a name that only lacks its tenant.
    whole = typed.startswith(("tenants/", "accounts/", "roles/", "tiers/", "models/", "priceBooks/"))
    return typed if whole or not parent else f"{parent}/{typed}"


def is_full(typed: str | None) -> bool:
    """Tell whether `typed` names its tenant itself."""
    return typed is not None and typed.startswith("tenants/")


def tenant_of(name: str) -> str:
    """Return the tenant's part of a full name, `tenants/{tenant}`."""
    return "/".join(name.split("/")[:2])


def last_id(name: str) -> str:
    """Return the id at the end of a name."""
    return name.rsplit("/", 1)[-1]


def scope_name(tenant: str, scope: str) -> str:
    """Return the full name of a scope typed in full, relative to `tenant`, or as `tenant` for the tenant itself.

    Raises:
        Failure: not a scope.
    """
    if scope == "platform" or is_full(scope):
        return scope
    if scope in ("tenant", tenant.removeprefix("tenants/")):
        return tenant
    if scope.startswith("departments/"):
        return f"{tenant}/{scope}"
    raise wrong_usage(
        f"{scope!r} is not a scope",
        "Write departments/research, departments/research/projects/chat, tenant, or a name from tenants/ on.",
    )
