"""Page tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse.admin.v1.departments_pb2 import ListDepartmentsRequest
from tollhouse.admin.v1.tenants_pb2 import ListTenantsRequest
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.errors import InvalidRequest

PAGES = PageTokens(b"a key")


@given(st.text(min_size=1))
def test_a_token_leads_back_to_its_position(position: str) -> None:
    """Any position survives the way through the caller, whatever page size he asks for next."""
    request = ListDepartmentsRequest(parent="tenants/acme", page_size=3)

    token = PAGES.next(request, position)

    following = ListDepartmentsRequest(parent="tenants/acme", page_size=7, page_token=token)
    assert PAGES.after(following) == position


@pytest.mark.parametrize(
    "other",
    [
        ListDepartmentsRequest(parent="tenants/bolt"),
        ListDepartmentsRequest(parent="tenants/acme", show_deleted=True),
        ListTenantsRequest(),
    ],
)
def test_a_token_is_good_for_its_own_question_only(other: ListDepartmentsRequest | ListTenantsRequest) -> None:
    """Another parent, filter or method refuses it."""
    other.page_token = PAGES.next(ListDepartmentsRequest(parent="tenants/acme"), "sales")

    with pytest.raises(InvalidRequest):
        PAGES.after(other)


@given(st.text(max_size=60))
def test_a_forged_token_is_refused(token: str) -> None:
    """What this server did not sign is never read."""
    request = ListTenantsRequest(page_token=token)

    if token:
        with pytest.raises(InvalidRequest):
            PAGES.after(request)
    else:
        assert PAGES.after(request) == ""


def test_a_token_of_another_key_is_refused() -> None:
    """Only servers that share the key share tokens."""
    token = PageTokens(b"another key").next(ListTenantsRequest(), "acme")

    with pytest.raises(InvalidRequest):
        PAGES.after(ListTenantsRequest(page_token=token))


def test_a_page_ends_where_the_size_says() -> None:
    """One row too many was read: it tells that more follow, and stays out."""
    request = ListTenantsRequest(page_size=2)

    assert PAGES.split(request, ["a", "b", "c"]) == (["a", "b"], "b")
    assert PAGES.split(request, ["a", "b"]) == (["a", "b"], None)
    assert PAGES.split(request, []) == ([], None)
