"""Which server, which key: profiles, environment and the local run, and no way for a key to get out."""

import json
import stat
from pathlib import Path

import pytest
from tollhouse.admin.v1 import tenants_pb2
from tollhouse.v1 import catalog_pb2
from tollhouse_admin.completion import complete_profiles
from tollhouse_admin.endpoints import Surroundings, find_endpoint
from tollhouse_admin.failures import Failure
from tollhouse_admin.profiles import Configuration, Profile, load, save

from tests.unit.admin_cli.canned import canned_server
from tests.unit.admin_cli.conftest import Run

OTHER_KEY = "th_live_bcdefghi3456_anothersecret"


def surroundings(home: Path, **environment: str) -> Surroundings:
    """The environment of a process whose home is `home`."""
    return Surroundings(environment={"XDG_CONFIG_HOME": str(home / "config"), **environment}, directory=home)


def local_run(home: Path, grpc: str = "127.0.0.1:9") -> None:
    """What `make run` leaves."""
    (home / ".tollhouse").mkdir()
    run = {"grpc": grpc, "demo_api_key": "th_test_demo_secret", "admin_api_key": "th_test_admin_secret"}
    (home / ".tollhouse/run.json").write_text(json.dumps(run))


def test_a_profile_is_stored_for_the_user_alone_and_never_shown(run: Run, home: Path) -> None:
    """0600 in a directory of 0700; `show` and `list` give the part of the key that names it."""
    result = run("config", "set", "prod", "--endpoint", "gateway.acme:443", "--tenant", "acme", stdin=OTHER_KEY)

    path = home / "config/tollhouse/config.toml"
    shown = run("config", "show", "-o", "json")
    listed = run("config", "list")
    assert result.code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(shown.out)["api_key"] == "th_live_bcdefghi3456_…"
    assert json.loads(shown.out)["tls"] is True
    assert "anothersecret" not in result.out + result.err + shown.out + shown.err + listed.out


def test_the_key_comes_from_a_file(run: Run, home: Path) -> None:
    """So that a secret store can hand it over."""
    (home / "key").write_text(f"{OTHER_KEY}\n")

    run("config", "set", "prod", "--endpoint", "h:1", "--key-file", str(home / "key"))

    assert load(home / "config/tollhouse/config.toml").profiles["prod"].api_key == OTHER_KEY


def test_changing_a_profile_keeps_its_key(run: Run, home: Path) -> None:
    """Only what is given changes."""
    run("config", "set", "prod", "--endpoint", "h:1", stdin=OTHER_KEY)

    run("config", "set", "prod", "--endpoint", "h:2")

    profile = load(home / "config/tollhouse/config.toml").profiles["prod"]
    assert (profile.endpoint, profile.api_key) == ("h:2", OTHER_KEY)


def test_profiles_are_used_and_deleted(run: Run, home: Path) -> None:
    """The first is current until another is chosen."""
    for name in ("a", "b"):
        run("config", "set", name, "--endpoint", f"{name}:1", stdin=OTHER_KEY)
    first = find_endpoint(surroundings(home), profile=None, as_caller=False).target

    run("config", "use", "b")
    second = find_endpoint(surroundings(home), profile=None, as_caller=False).target
    run("config", "delete", "b")

    assert (first, second) == ("a:1", "b:1")
    assert complete_profiles("") == ["a"]
    with pytest.raises(Failure, match="config use"):
        find_endpoint(surroundings(home), profile=None, as_caller=False)


def test_what_a_profile_holds_survives_writing_whatever_characters_it_has(tmp_path: Path) -> None:
    """Quotes, backslashes and control characters are TOML's matter."""
    profile = Profile(endpoint="h:1", api_key='a"b\\c\x7f', tenant="ü\n", tls=False, ca_file="/x y")
    configuration = Configuration(current="p", profiles={"p": profile})

    save(configuration, tmp_path / "c" / "config.toml")

    assert load(tmp_path / "c" / "config.toml") == configuration


def test_a_configuration_that_others_may_read_is_refused(run: Run, home: Path) -> None:
    """It holds keys."""
    run("config", "set", "prod", "--endpoint", "h:1", stdin=OTHER_KEY)
    (home / "config/tollhouse/config.toml").chmod(0o644)

    result = run("tenants", "list")

    assert result.code == 2
    assert result.err.startswith("error: CONFIG_UNSAFE")


@pytest.mark.parametrize("content", ["no toml", "[profiles.x]\nendpoint = 1\nwhat = 2", "current = [1"])
def test_a_broken_configuration_is_one_line(run: Run, home: Path, content: str) -> None:
    """And names the file."""
    path = home / "config/tollhouse/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    path.chmod(0o600)

    result = run("tenants", "list")

    assert (result.code, result.err.count("\n")) == (2, 1)
    assert str(path) in result.err


def test_the_environment_stands_above_the_profile(home: Path) -> None:
    """For one command, or a whole job."""
    save(
        Configuration(current="p", profiles={"p": Profile(endpoint="h:1", api_key=OTHER_KEY, tenant="acme")}),
        home / "config/tollhouse/config.toml",
    )
    environment = {"TOLLHOUSE_ENDPOINT": "e:2", "TOLLHOUSE_API_KEY": "th_live_e_e", "TOLLHOUSE_TENANT": "bolt"}

    endpoint = find_endpoint(surroundings(home, **environment), profile=None, as_caller=False)

    assert (endpoint.target, endpoint.api_key, endpoint.tenant) == ("e:2", "th_live_e_e", "bolt")


def test_a_local_run_is_used_with_the_right_key_and_said_once(run: Run, home: Path) -> None:
    """Administration with the admin key, models with the demo key."""
    with canned_server() as server:
        local_run(home, grpc=server.target)
        server.answers["ListTenants"] = tenants_pb2.ListTenantsResponse()
        server.answers["ListTiers"] = catalog_pb2.ListTiersResponse()

        admin = run("tenants", "list", "-o", "json")
        run("models", "tiers", "-o", "json")

    assert admin.err == "using the local server of .tollhouse/run.json with its admin key\n"
    assert [call.metadata["authorization"] for call in server.received] == [
        "Bearer th_test_admin_secret",
        "Bearer th_test_demo_secret",
    ]


def test_a_local_run_cannot_draw_a_key_to_another_machine(home: Path) -> None:
    """The file may have come with a checkout."""
    local_run(home, grpc="evil.example:443")

    with pytest.raises(Failure, match="not on this machine"):
        find_endpoint(surroundings(home, TOLLHOUSE_API_KEY=OTHER_KEY), profile=None, as_caller=False)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"grpc": 1}'])
def test_a_broken_run_file_is_told(home: Path, content: str) -> None:
    """A server killed while writing it leaves half a file."""
    (home / ".tollhouse").mkdir()
    (home / ".tollhouse/run.json").write_text(content)

    with pytest.raises(Failure, match="RUN_FILE_INVALID"):
        find_endpoint(surroundings(home), profile=None, as_caller=False)


@pytest.mark.parametrize(
    ("endpoint", "protected"),
    [
        ("gateway.acme:443", True),
        ("10.0.0.7:50051", True),
        ("localhost:50051", False),
        ("127.0.0.1:50051", False),
        ("[::1]:50051", False),
        ("https://localhost:443", True),
        ("http://gateway.acme:80", False),
    ],
)
def test_only_this_machine_is_called_without_tls(home: Path, endpoint: str, protected: bool) -> None:
    """A key in the clear on the network must be asked for."""
    environment = {"TOLLHOUSE_ENDPOINT": endpoint, "TOLLHOUSE_API_KEY": OTHER_KEY}

    found = find_endpoint(surroundings(home, **environment), profile=None, as_caller=False)

    assert (found.tls is not None) is protected


@pytest.mark.parametrize("endpoint", ["gateway", "h:port", "unix:/x", "http://h:1/path", "a b:1", "h:1,k:2"])
def test_what_is_no_endpoint_is_refused(home: Path, endpoint: str) -> None:
    """gRPC would take some of these for names to look up."""
    environment = {"TOLLHOUSE_ENDPOINT": endpoint, "TOLLHOUSE_API_KEY": OTHER_KEY}

    with pytest.raises(Failure, match="ENDPOINT_INVALID"):
        find_endpoint(surroundings(home, **environment), profile=None, as_caller=False)


def test_a_key_with_a_line_break_is_refused_without_repeating_it(home: Path) -> None:
    """gRPC's own error would print it."""
    environment = {"TOLLHOUSE_ENDPOINT": "h:1", "TOLLHOUSE_API_KEY": "th_live_a_se\ncret"}

    with pytest.raises(Failure) as failure:
        find_endpoint(surroundings(home, **environment), profile=None, as_caller=False)

    assert "cret" not in str(failure.value).replace("secret", "")


def test_a_certificate_file_that_is_missing_is_one_line(run: Run, home: Path) -> None:
    """Before anything is sent."""
    run("config", "set", "p", "--endpoint", "h:1", "--ca-file", str(home / "none.pem"), stdin=OTHER_KEY)

    result = run("tenants", "list")

    assert result.code == 2
    assert result.err.startswith("error: TLS_FILE")
