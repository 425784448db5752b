"""What a deployment has to deliver statements with."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from tollhouse_server.documents.mail import MailServer
from tollhouse_server.documents.ways import Ways
from tollhouse_server.settings import Settings

if TYPE_CHECKING:
    from tollhouse_server.documents.bucket import Bucket


def ways_of(settings: Settings) -> Ways:
    """Return the ways that the settings open."""
    return Ways(folder=settings.delivery_dir, bucket=_bucket(settings), mail=_mail_server(settings))


def _bucket(settings: Settings) -> "Bucket | None":
    if settings.delivery_bucket is None:
        return None
    # 4 MB, for whoever has one.
    from tollhouse_server.documents.bucket import Bucket  # noqa: PLC0415

    return Bucket(
        endpoint=settings.delivery_bucket_endpoint,
        name=settings.delivery_bucket,
        region=settings.delivery_bucket_region,
        prefix=settings.delivery_bucket_prefix,
        access_key_id=settings.delivery_bucket_access_key_id,
        secret_access_key=_secret(settings.delivery_bucket_secret_key, settings.delivery_bucket_secret_key_file),
    )


def _mail_server(settings: Settings) -> MailServer | None:
    if settings.smtp_host is None or settings.smtp_sender is None:
        return None
    return MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        sender=settings.smtp_sender,
        security=settings.smtp_security,
        user=settings.smtp_user,
        password=_secret(settings.smtp_password, settings.smtp_password_file),
        ca_file=settings.smtp_ca_file,
        domains=settings.smtp_recipient_domains,
        max_message_bytes=settings.smtp_max_message_bytes,
    )


def _secret(value: SecretStr | None, file: Path | None) -> str:
    """Return a secret from its setting, or from the file that has it; empty where there is neither."""
    if file is not None:
        return file.read_text().strip()
    return value.get_secret_value() if value else ""
