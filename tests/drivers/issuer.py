"""An OpenID Connect issuer on loopback that a test can bend: its keys, its documents, how it answers and whether."""

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiohttp import web
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

SigningKey: TypeAlias = RSAKey | ECKey | OKPKey


def new_key(kind: str = "ES256", key_id: str = "first") -> SigningKey:
    """Make a key for an algorithm."""
    parameters: Any = {"kid": key_id, "use": "sig"}
    if kind in ("RS256", "PS256"):
        return RSAKey.generate_key(2048, parameters)
    return ECKey.generate_key("P-256", parameters) if kind == "ES256" else OKPKey.generate_key("Ed25519", parameters)


@dataclass(slots=True)
class Issuer:
    """The issuer as it is now; `status` other than 200, `hangs`, `hangs_up`, `location` and `padding` spoil answers."""

    url: str = ""
    keys: list[SigningKey] = field(default_factory=lambda: [new_key()])
    further: list[dict[str, Any]] = field(default_factory=list)
    jwks_uri: str | None = None
    named: str | None = None
    status: int = 200
    location: str = ""
    padding: int = 0
    hangs: bool = False
    hangs_up: bool = False
    asked: int = 0
    patient: asyncio.Event = field(default_factory=asyncio.Event)

    def change_key(self, key_id: str) -> SigningKey:
        """Sign with a new key from now on."""
        self.keys = [new_key("ES256", key_id)]
        return self.keys[0]

    def recover(self) -> None:
        """Answer rightly again."""
        self.status, self.location, self.padding, self.hangs, self.hangs_up = 200, "", 0, False, False
        self.jwks_uri, self.named, self.further = None, None, []

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return good claims with changes; None takes one away."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": "tollhouse", "sub": "ada", "iat": now, "exp": now + 300} | changes
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, *, key: SigningKey | None = None, algorithm: str = "ES256", header: Mapping[str, Any] = {}, **claims: Any
    ) -> str:
        """Return a signed token."""
        key = key or self.keys[0]
        protected: Any = {"alg": algorithm, "kid": key.kid, "typ": "JWT", **header}
        registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        return jws.serialize_compact(protected, json.dumps(self.claims(**claims)), key, registry=registry)

    def document(self) -> dict[str, Any]:
        """Return the discovery document."""
        return {"issuer": self.named or self.url, "jwks_uri": self.jwks_uri or f"{self.url}/keys"}

    def jwks(self) -> dict[str, Any]:
        """Return the public keys."""
        public: list[Any] = [key.as_dict(private=False) for key in self.keys]
        return {"keys": [*public, *self.further], "padding": "x" * self.padding}


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any], signature: bytes = b"") -> str:
    """Return a token with a header, claims and a signature of one's own making."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@asynccontextmanager
async def serving_issuer() -> AsyncIterator[Issuer]:
    """Serve an issuer on a free port."""
    issuer = Issuer()

    async def answer(request: web.Request) -> web.Response:
        issuer.asked += 1
        if issuer.hangs:
            await issuer.patient.wait()
        if issuer.hangs_up and request.transport is not None:
            request.transport.abort()
        path = request.query.get("of", request.path)
        if issuer.location and "of" not in request.query:
            raise web.HTTPFound(f"{issuer.location}?of={path}")
        body = issuer.jwks() if path == "/keys" else issuer.document()
        return web.json_response(body, status=issuer.status)

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield issuer
    finally:
        issuer.patient.set()
        await runner.cleanup()
