"""Who calls: the directory of credentials, and what it hears from issuers."""

import ssl
from dataclasses import dataclass

from tollhouse_server.background import Background
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch
from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.identity.directory import Directory
from tollhouse_server.identity.issuers import IssuerRules, Issuers
from tollhouse_server.identity.last_use import LastUse
from tollhouse_server.identity.networks import parse_network
from tollhouse_server.identity.tokens import TokenDirectory
from tollhouse_server.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityParts:
    """The directory, and what runs beside it."""

    directory: Directory
    issuers: Issuers
    last_use: LastUse

    def run_in(self, tasks: Background) -> None:
        """Keep issuers' keys fresh, and write when API keys were used."""
        tasks.keep(self.issuers.run)
        tasks.keep(self.last_use.run)


def open_identity(settings: Settings, database: Database, watch: EpochWatch, pepper: bytes) -> IdentityParts:
    """Build the directory; it knows nothing before the watch has looked.

    Raises:
        InvalidRequest: the file with the certificates that vouch for issuers cannot be used.
    """
    issuers, last_use = Issuers(_rules(settings)), LastUse(database)
    tokens = TokenDirectory(database, watch, issuers, max_age_seconds=settings.oidc_token_max_age_seconds)
    directory = Directory(
        database,
        watch,
        pepper,
        tokens=tokens,
        uses=last_use,
        trusted_proxies=[parse_network(network) for network in settings.trusted_proxies],
    )
    issuers.on_withdrawal(directory.forget)
    return IdentityParts(directory=directory, issuers=issuers, last_use=last_use)


def _rules(settings: Settings) -> IssuerRules:
    if settings.oidc_issuers:
        # What their keys are fetched with: 5 MB, which other deployments are spared. It takes 0.1 s, so it is loaded
        # before anybody is served.
        import aiohttp  # noqa: F401, PLC0415
    return IssuerRules(
        issuers=frozenset(settings.oidc_issuers),
        key_urls=frozenset(settings.oidc_key_urls),
        stale_seconds=settings.oidc_stale_keys_seconds,
        tls=_authorities(settings),
    )


def _authorities(settings: Settings) -> ssl.SSLContext | None:
    if settings.oidc_ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(settings.oidc_ca_file))
    except (OSError, ssl.SSLError) as error:
        violation = FieldViolation(path="TOLLHOUSE_OIDC_CA_FILE", description=f"cannot be used: {error}")
        raise InvalidRequest(violations=(violation,)) from None
