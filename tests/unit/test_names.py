"""Resource names are parsed strictly and formatted exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.errors import InvalidRequest
from tollhouse_server.names import (
    PLATFORM,
    DepartmentName,
    ProjectKeyName,
    ProjectName,
    TenantKeyName,
    TenantName,
    domain_of,
    parse_api_key,
    parse_scope,
    scope_of,
)

ids = st.from_regex(r"[a-z][a-z0-9-]{1,62}", fullmatch=True)
key_ids = st.from_regex(r"[a-z2-7]{12}", fullmatch=True)


@given(ids, ids, ids, key_ids)
def test_a_name_is_read_back_as_it_was_written(tenant: str, department: str, project: str, key: str) -> None:
    """Formatting and parsing are inverse for every kind of name."""
    names = (
        TenantName(tenant),
        DepartmentName(tenant, department),
        ProjectName(tenant, department, project),
    )
    keys = (ProjectKeyName(tenant, department, project, key), TenantKeyName(tenant, key))

    assert tuple(parse_scope(str(name)) for name in names) == names
    assert tuple(parse_api_key(str(name)) for name in keys) == keys


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tenants/",
        "tenants/a",
        "tenants/Acme",
        "tenants/acme\n",
        "tenants/acme/",
        "/tenants/acme",
        "tenants/acme/departments/../departments/hr",
        "tenants/acme/departments/hr/projects",
        "tenants/" + "a" * 64,
        "tenants/äcme",
    ],
)
def test_what_is_not_a_name_is_refused(text: str) -> None:
    """Nothing is trimmed, repaired or half read."""
    with pytest.raises(InvalidRequest):
        parse_scope(text)
    with pytest.raises(InvalidRequest):
        scope_of(text)


@pytest.mark.parametrize("text", ["tenants/acme\n", "tenants/acme/departments/hr", " tenants/acme"])
def test_a_name_of_one_kind_is_nothing_else(text: str) -> None:
    """The whole text must fit, to the last character."""
    with pytest.raises(InvalidRequest, match="tenants/"):
        TenantName.parse(text)


@given(st.text())
def test_any_text_has_a_scope_or_is_refused(text: str) -> None:
    """The look-up of a scope never fails in another way."""
    try:
        scope = scope_of(text)
    except InvalidRequest:
        return
    assert scope == PLATFORM or str(parse_scope(scope)) == scope


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("tenants/acme", "tenants/acme"),
        ("tenants/acme/principals/ann", "tenants/acme"),
        ("tenants/acme/departments/-", "tenants/acme"),
        ("tenants/acme/departments/hr", "tenants/acme/departments/hr"),
        ("tenants/acme/departments/hr/projects/cv/apiKeys/abcdefghij23", "tenants/acme/departments/hr/projects/cv"),
        ("tenants/acme/apiKeys/abcdefghij23", "tenants/acme"),
        ("accounts/one/upstreamKeys/two", PLATFORM),
        ("priceBooks/current", PLATFORM),
        (PLATFORM, PLATFORM),
    ],
)
def test_a_name_belongs_to_its_innermost_scope(name: str, scope: str) -> None:
    """Who may touch a thing is decided where it lies."""
    assert scope_of(name) == scope
    assert domain_of(scope) == ("acme" if scope.startswith("tenants/") else PLATFORM)


@pytest.mark.parametrize(
    ("text", "expected"), [("ab", True), ("a", False), ("2b", False), ("a_b", False), ("a-b", True)]
)
def test_an_id_is_a_slug(text: str, expected: bool) -> None:
    """Two to 63 lower-case letters, digits and hyphens, a letter first."""
    try:
        TenantName.parse(f"tenants/{text}")
        is_id = True
    except InvalidRequest:
        is_id = False

    assert is_id is expected
