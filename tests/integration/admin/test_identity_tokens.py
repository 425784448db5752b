"""Tokens of a real issuer: who gets in with one, and what keeps others out."""

import asyncio
import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tollhouse.admin.v1 import identity_providers_pb2 as pb
from tollhouse.admin.v1 import principals_pb2, roles_pb2
from tollhouse_server.errors import (
    CredentialsInvalid,
    Fault,
    IdentityProviderUnavailable,
    InvalidRequest,
    PermissionDenied,
    ResourceExists,
)
from tollhouse_server.identity.issuers import PAUSE_SECONDS, REFRESH_SECONDS

from tests.drivers.issuer import new_key, serving_issuer, unsigned
from tests.integration.admin.identity_plane import PROVIDER, IdentityPlane, identity_plane
from tests.integration.admin.plane import Plane

ADA = "tenants/acme/principals/ada"
CRM = "tenants/acme/departments/emea/projects/crm"


@pytest.fixture
async def acme(plane: Plane) -> AsyncIterator[IdentityPlane]:
    """Tenant acme with an issuer, and ada, who is subject ada of it."""
    async with serving_issuer() as issuer, identity_plane(plane, issuer) as found:
        await plane.tenant("acme")
        await plane.key("acme", "ada", ("read-only", "tenants/acme"))
        await found.register("ada", "ada")
        await found.add_provider(project_claim="project")
        yield found


async def refusal(acme: IdentityPlane, token: str) -> Fault:
    """Return why a token is refused."""
    with pytest.raises(CredentialsInvalid) as refused:
        await acme.admitted(token)
    return refused.value.fault


async def test_a_good_token_stands_for_the_registered_principal(acme: IdentityPlane) -> None:
    """Issuer and subject lead to a principal of the tenant that the audience belongs to."""
    principal = await acme.admitted(acme.issuer.token())

    assert (principal.name, principal.project_id, principal.environment) == (ADA, None, "live")
    assert principal.credential_name == PROVIDER


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "Ed25519"])
async def test_every_accepted_algorithm_is_accepted(acme: IdentityPlane, algorithm: str) -> None:
    """RSA in both ways of signing, and Ed25519, beside the P-256 of the other tests."""
    key = new_key(algorithm, "second")
    acme.issuer.keys.append(key)

    assert (await acme.admitted(acme.issuer.token(key=key, algorithm=algorithm))).name == ADA


async def test_a_token_that_names_a_project_pays_from_it(acme: IdentityPlane) -> None:
    """The claim is a project's id; one that the tenant has not refuses the token."""
    principal = await acme.admitted(acme.issuer.token(project="crm"))

    assert (principal.project_id, principal.department_ids) == ("crm", ("sales", "emea"))
    assert await refusal(acme, acme.issuer.token(project="ghost")) is Fault.CLAIMS


NOW = int(time.time())
WRONG_CLAIMS: list[tuple[dict[str, Any], Fault]] = [
    ({"aud": "other"}, Fault.UNKNOWN),
    ({"aud": None}, Fault.UNKNOWN),
    ({"iss": "https://elsewhere.example"}, Fault.UNKNOWN),
    ({"iss": ["x"]}, Fault.UNKNOWN),
    ({"exp": NOW - 3600}, Fault.EXPIRED),
    ({"exp": None}, Fault.CLAIMS),
    ({"exp": True}, Fault.CLAIMS),
    ({"exp": "tomorrow"}, Fault.CLAIMS),
    ({"iat": None}, Fault.CLAIMS),
    ({"iat": NOW - 86_400, "exp": NOW + 86_400}, Fault.EXPIRED),
    ({"iat": NOW + 3600, "exp": NOW + 7200}, Fault.NOT_YET_VALID),
    ({"nbf": NOW + 3600}, Fault.NOT_YET_VALID),
    ({"sub": None}, Fault.CLAIMS),
    ({"sub": ""}, Fault.CLAIMS),
    ({"sub": "a\0b"}, Fault.CLAIMS),
    ({"sub": "x" * 300}, Fault.CLAIMS),
    ({"sub": "somebody"}, Fault.PRINCIPAL),
]


async def test_wrong_claims_are_refused(acme: IdentityPlane) -> None:
    """Whom it is for, from when until when, and whose it is: each must be there and right."""
    found = [(claims, await refusal(acme, acme.issuer.token(**claims))) for claims, _ in WRONG_CLAIMS]

    assert found == WRONG_CLAIMS


async def test_the_clocks_may_differ_by_what_the_provider_says(acme: IdentityPlane) -> None:
    """Thirty seconds unless it says otherwise."""
    late = acme.issuer.token(exp=int(time.time()) - 20)

    assert (await acme.admitted(late)).name == ADA
    change = pb.UpdateIdentityProviderRequest(identity_provider=pb.IdentityProvider(name=PROVIDER))
    change.identity_provider.clock_skew.FromSeconds(0)
    await acme.call(change)
    assert await refusal(acme, late) is Fault.EXPIRED


def forged_tokens(acme: IdentityPlane) -> dict[str, tuple[str, Fault]]:
    """Return tokens that nobody signed as we accept it."""
    issuer = acme.issuer
    good, claims = issuer.token(), issuer.claims()
    header, body, signature = good.split(".")
    public = issuer.keys[0].as_pem(private=False)
    symmetric = unsigned({"alg": "HS256", "kid": "first"}, claims)[:-1]
    seal = urlsafe_b64encode(hmac.digest(public, symmetric.encode(), "sha256")).rstrip(b"=").decode()
    return {
        "none": (unsigned({"alg": "none", "kid": "first"}, claims), Fault.ALGORITHM),
        "NONE": (unsigned({"alg": "NONE"}, claims), Fault.ALGORITHM),
        "symmetric": (f"{symmetric}.{seal}", Fault.ALGORITHM),
        "no algorithm": (unsigned({"kid": "first"}, claims), Fault.ALGORITHM),
        "RSA with a curve's key": (unsigned({"alg": "RS256", "kid": "first"}, claims, b"x"), Fault.ALGORITHM),
        "no signature": (f"{header}.{body}.", Fault.SIGNATURE),
        "other claims": (
            f"{header}.{unsigned({}, issuer.claims(sub='eve')).split('.')[1]}.{signature}",
            Fault.SIGNATURE,
        ),
        "other key": (issuer.token(key=new_key("ES256", "first")), Fault.SIGNATURE),
        "own key": (issuer.token(key=new_key("ES256", "mine"), header={"jwk": {}}), Fault.SIGNING_KEY),
        "crit": (issuer.token(header={"crit": ["b64"], "b64": True}), Fault.MALFORMED),
        "logout": (issuer.token(header={"typ": "logout+jwt"}), Fault.MALFORMED),
        "huge": (issuer.token(blob="x" * 20_000), Fault.MALFORMED),
        "two parts": (f"{header}.{body}", Fault.MALFORMED),
        "list": (unsigned({"alg": "ES256"}, [], b"x"), Fault.MALFORMED),  # type: ignore[arg-type]
        "no text": ("a.b.c", Fault.MALFORMED),
    }


async def test_forged_tokens_are_refused_in_the_same_words(acme: IdentityPlane) -> None:
    """No algorithm without a private key, no other key, nothing changed, nothing strange; and nobody is told which."""
    said = set()
    for kind, (token, fault) in forged_tokens(acme).items():
        with pytest.raises(CredentialsInvalid) as refused:
            await acme.admitted(token)
        assert refused.value.fault is fault, kind
        said.add(str(refused.value))

    assert len(said) == 1


async def test_a_new_key_of_the_issuer_is_found_at_once(acme: IdentityPlane) -> None:
    """A key that is unknown is asked for; the one that the issuer has withdrawn counts no more, for nobody."""
    old = acme.issuer.token()
    await acme.admitted(old)
    acme.issuer.keys = [new_key("ES256", "second")]
    acme.clock.ahead_seconds += PAUSE_SECONDS + 1

    principal = await acme.admitted(acme.issuer.token())

    assert principal.name == ADA
    assert await refusal(acme, old) is Fault.SIGNING_KEY


async def test_unknown_keys_do_not_make_us_ask_without_end(acme: IdentityPlane) -> None:
    """However many tokens name keys that there are not, the issuer is asked once in a while."""
    await acme.admitted(acme.issuer.token())
    asked_before = acme.issuer.asked

    for number in range(50):
        forged = acme.issuer.token(key=new_key("ES256", f"no-{number}"))
        assert await refusal(acme, forged) is Fault.SIGNING_KEY

    assert acme.issuer.asked - asked_before <= 2


def down(acme: IdentityPlane) -> None:
    acme.issuer.status = 503


def hanging(acme: IdentityPlane) -> None:
    acme.issuer.hangs = True


def hanging_up(acme: IdentityPlane) -> None:
    acme.issuer.hangs_up = True


def redirecting(acme: IdentityPlane) -> None:
    acme.issuer.location = f"{acme.issuer.url}/elsewhere"


def endless(acme: IdentityPlane) -> None:
    acme.issuer.padding = 1_000_000


def elsewhere(acme: IdentityPlane) -> None:
    acme.issuer.jwks_uri = "http://127.0.0.1:9/keys"


def another(acme: IdentityPlane) -> None:
    acme.issuer.named = "https://elsewhere.example"


def keyless(acme: IdentityPlane) -> None:
    acme.issuer.keys = []
    acme.issuer.further = [{"kty": "oct", "k": "c2VjcmV0", "kid": "first"}, {"kty": 5}, {"key_ops": 5}, {"kty": "RSA"}]


TROUBLES = [down, hanging, hanging_up, redirecting, endless, elsewhere, another, keyless]


async def test_an_issuer_in_trouble_turns_nobody_away_as_unknown(acme: IdentityPlane) -> None:
    """Known keys go on until they are too old; then, and for unknown keys, it is UNAVAILABLE until it is over."""
    for trouble in TROUBLES:
        acme.issuer.recover()
        acme.clock.ahead_seconds += REFRESH_SECONDS + 1
        await acme.admitted(acme.issuer.token(key=acme.issuer.change_key(trouble.__name__)))
        known, other = acme.issuer.token(jti="known"), acme.issuer.token(key=new_key("ES256", "second"))
        later = acme.issuer.token(jti="later")
        trouble(acme)
        acme.clock.ahead_seconds += REFRESH_SECONDS + 1

        with pytest.raises(IdentityProviderUnavailable):
            await acme.admitted(other, patience_seconds=0.3)
        assert (await acme.admitted(known)).name == ADA
        acme.clock.ahead_seconds += 3600
        with pytest.raises(IdentityProviderUnavailable):
            await acme.admitted(later, patience_seconds=0.3)


async def test_a_callers_little_patience_spoils_the_keys_for_nobody(acme: IdentityPlane) -> None:
    """One who cannot wait for the issuer gives up alone."""
    token = acme.issuer.token()

    with pytest.raises(IdentityProviderUnavailable):
        await acme.admitted(acme.issuer.token(jti="hasty"), patience_seconds=0.0)

    assert (await acme.admitted(token)).name == ADA


async def test_groups_in_a_token_are_groups_of_the_tenant(acme: IdentityPlane) -> None:
    """Mapped values become ids of groups, others mean nothing; alone they admit only where the provider says so."""
    await add_group(acme, "readers")
    await map_groups(acme, admits=False)
    token = acme.issuer.token(groups=["Tollhouse Readers", "Everybody"])
    stranger = acme.issuer.token(sub="stranger", groups=["Tollhouse Readers"])

    assert (await acme.admitted(token)).groups == ("readers",)
    assert await refusal(acme, stranger) is Fault.PRINCIPAL
    await map_groups(acme, admits=True)
    admitted = await acme.admitted(stranger)
    assert (admitted.groups, admitted.principal_id[:5]) == (("readers",), "oidc-")
    assert await refusal(acme, acme.issuer.token(sub="stranger", groups=["Everybody"])) is Fault.PRINCIPAL


async def add_group(acme: IdentityPlane, group: str) -> None:
    """Make a group that may do nothing."""
    from tollhouse.admin.v1 import groups_pb2  # noqa: PLC0415
    from tollhouse_server.api.services.groups_service import GroupService  # noqa: PLC0415

    service = acme.plane.handlers["IdentityProviderService"]
    acme.plane.handlers.setdefault(
        "GroupService",
        GroupService(acme.plane.database, service._mutations, service._pages, acme.plane.authorizer),
    )
    await acme.call(groups_pb2.CreateGroupRequest(parent="tenants/acme", group_id=group))


async def map_groups(acme: IdentityPlane, *, admits: bool) -> None:
    """Map a group of the issuer to readers."""
    mapping = pb.GroupMapping(value="Tollhouse Readers", group="tenants/acme/groups/readers")
    await acme.call(
        pb.UpdateIdentityProviderRequest(
            identity_provider=pb.IdentityProvider(
                name=PROVIDER, groups_claim="groups", group_mappings=[mapping], admits_groups=admits
            ),
            update_mask=FieldMask(paths=["groups_claim", "group_mappings", "admits_groups"]),
        )
    )


async def test_a_disabled_principal_is_refused_within_two_seconds(acme: IdentityPlane) -> None:
    """Also one whose groups would admit him: who was put out does not come back as a stranger."""
    await add_group(acme, "readers")
    await map_groups(acme, admits=True)
    token = acme.issuer.token(groups=["Tollhouse Readers"])
    await acme.admitted(token)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(acme.plane.watch.run())
        await acme.plane.call(principals_pb2.DisablePrincipalRequest(name=ADA))
        disabled_at = time.monotonic()
        for _ in range(1000):
            if not await is_admitted(acme, token):
                break
            await asyncio.sleep(0.01)
        seconds = time.monotonic() - disabled_at
        watching.cancel()

    assert seconds < 2


async def is_admitted(acme: IdentityPlane, token: str) -> bool:
    try:
        await acme.directory.authenticate(f"Bearer {token}", patience_seconds=1)
    except CredentialsInvalid:
        return False
    return True


async def test_an_issuer_and_an_audience_belong_to_one_tenant(acme: IdentityPlane) -> None:
    """No tenant can bind what leads to another; a token for two providers leads to none."""
    await acme.plane.tenant("rival")
    with pytest.raises(ResourceExists):
        await acme.add_provider("rival")
    await acme.add_provider("rival", audiences=["rival-only"])

    assert await refusal(acme, acme.issuer.token(aud=["tollhouse", "rival-only"])) is Fault.UNKNOWN
    assert await refusal(acme, acme.issuer.token(aud="rival-only")) is Fault.PRINCIPAL
    assert (await acme.admitted(acme.issuer.token(aud=["tollhouse", "elsewhere"]))).name == ADA


async def test_only_issuers_that_the_deployment_allows_are_bound(acme: IdentityPlane) -> None:
    """Otherwise a tenant could send the server wherever it likes."""
    with pytest.raises(InvalidRequest):
        await acme.add_provider(issuer="http://127.0.0.1:1", audiences=["x"])


async def test_tokens_let_nobody_into_groups_above_whoever_maps_them(acme: IdentityPlane) -> None:
    """Who keeps providers maps no group that may do more than he, and maps others."""
    plane, acme_name = acme.plane, "tenants/acme"
    role = roles_pb2.Role(permissions=["identityProviders.update", "limits.get"])
    await plane.call(roles_pb2.CreateRoleRequest(parent=acme_name, role_id="keeper", role=role))
    clerk = await plane.key("acme", "clerk", (f"{acme_name}/roles/keeper", acme_name))
    for group in ("admins", "nobodies"):
        await add_group(acme, group)
    grant = roles_pb2.RoleGrant(group=f"{acme_name}/groups/admins", role="roles/tenant-admin", scope=acme_name)
    await plane.call(roles_pb2.CreateRoleGrantRequest(parent=acme_name, role_grant=grant))
    above, below = (
        pb.IdentityProvider(
            name=PROVIDER, group_mappings=[pb.GroupMapping(value="clerks", group=f"{acme_name}/groups/{group}")]
        )
        for group in ("admins", "nobodies")
    )

    with pytest.raises(PermissionDenied):
        await plane.call(pb.UpdateIdentityProviderRequest(identity_provider=above), key=clerk)
    assert (await plane.call(pb.UpdateIdentityProviderRequest(identity_provider=below), key=clerk)).group_mappings


async def test_by_which_claim_people_are_known_is_said_once(acme: IdentityPlane) -> None:
    """By another one, which a person may be able to choose, he would be whoever he likes."""
    changed = pb.IdentityProvider(name=PROVIDER, subject_claim="nickname")
    mask = FieldMask(paths=["subject_claim"])

    with pytest.raises(InvalidRequest):
        await acme.call(pb.UpdateIdentityProviderRequest(identity_provider=changed, update_mask=mask))


async def test_a_deleted_provider_is_forgotten(acme: IdentityPlane) -> None:
    """Its tokens are refused, and what it bound is free again."""
    token = acme.issuer.token()
    await acme.admitted(token)

    await acme.call(pb.DeleteIdentityProviderRequest(name=PROVIDER))

    assert await refusal(acme, token) is Fault.UNKNOWN
    await acme.add_provider()
    assert (await acme.admitted(token)).name == ADA
