"""What a deployment sets so that statements can be delivered: a folder, a bucket, a mail server."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from tollhouse_server.setting_values import Port, check_token_url, decoded


class DeliverySettings(BaseSettings):
    """The part of `Settings` that is about deliveries."""

    delivery_dir: Path | None = None
    """Directory, which must be there, below which statements are written that tenants have delivered to a folder, each
    tenant's in one of its own: a share, or what is copied to an object store. Absent means that there is no such
    delivery."""

    delivery_bucket: str | None = None
    """Bucket of an object store that speaks S3 (Google's with HMAC keys, too) into which statements are put. Absent
    means that there is no such delivery."""

    delivery_bucket_endpoint: str = "https://storage.googleapis.com"
    delivery_bucket_region: str = "auto"
    delivery_bucket_prefix: str = ""
    delivery_bucket_access_key_id: str = ""
    delivery_bucket_secret_key: SecretStr | None = None
    delivery_bucket_secret_key_file: Path | None = None
    """Where the bucket is, what its objects' names begin with, and the key that may write to it: the secret, or a file
    with it."""

    smtp_host: str | None = None
    """Server that takes the e-mail with statements. Absent means that there is no such delivery."""

    smtp_port: Port = 587
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is kept private; `none` is for a server on this machine."""

    smtp_sender: str | None = None
    """Address that statements come from; needed with `smtp_host`."""

    smtp_user: str = ""
    smtp_password: SecretStr | None = None
    smtp_password_file: Path | None = None
    """The password, or a file with it; it is only sent over a connection that is kept private."""

    smtp_ca_file: Path | None = None
    """Certificates that vouch for the mail server's own; absent means the system's authorities."""

    smtp_recipient_domains: Annotated[tuple[str, ...], NoDecode] = ()
    """The only domains that statements are sent to, a JSON list; none of them means all."""

    smtp_max_message_bytes: Annotated[int, Field(gt=0)] = 25_000_000
    """How large an e-mail may be as it is sent, a third more than its documents: many receivers take no larger ones,
    and it is in memory as a whole. A larger one is not sent, and says so."""

    @field_validator("smtp_recipient_domains", mode="before")
    @classmethod
    def _check_domains(cls, value: Any) -> Any:
        domains = decoded(value)
        if not isinstance(domains, list | tuple) or not all(isinstance(domain, str) for domain in domains):
            raise ValueError("must be a JSON list of domains")
        return tuple(domain.lower() for domain in domains)

    @model_validator(mode="after")
    def _check_smtp(self) -> Self:
        if self.smtp_host is not None and "@" not in (self.smtp_sender or ""):
            raise ValueError("TOLLHOUSE_SMTP_HOST needs TOLLHOUSE_SMTP_SENDER, an address")
        has_password = self.smtp_password is not None or self.smtp_password_file is not None
        if has_password and self.smtp_security == "none":
            raise ValueError("TOLLHOUSE_SMTP_PASSWORD is not sent over a connection that is not kept private")
        return self

    @field_validator("delivery_bucket_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        check_token_url(value)
        return value.rstrip("/")

    @model_validator(mode="after")
    def _check_bucket(self) -> Self:
        has_secret = self.delivery_bucket_secret_key is not None or self.delivery_bucket_secret_key_file is not None
        if self.delivery_bucket is not None and not (self.delivery_bucket_access_key_id and has_secret):
            raise ValueError(
                "TOLLHOUSE_DELIVERY_BUCKET needs TOLLHOUSE_DELIVERY_BUCKET_ACCESS_KEY_ID and its secret, "
                "TOLLHOUSE_DELIVERY_BUCKET_SECRET_KEY_FILE or TOLLHOUSE_DELIVERY_BUCKET_SECRET_KEY"
            )
        return self
