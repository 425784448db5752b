"""What a deployment has to deliver statements with."""

from tollhouse_server.documents.ways import MailServer, Ways
from tollhouse_server.settings import Settings


def ways_of(settings: Settings) -> Ways:
    """Return the ways that the settings open."""
    return Ways(folder=settings.delivery_dir, mail=_mail_server(settings))


def _mail_server(settings: Settings) -> MailServer | None:
    if settings.smtp_host is None or settings.smtp_sender is None:
        return None
    return MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        sender=settings.smtp_sender,
        security=settings.smtp_security,
        user=settings.smtp_user,
        password=settings.smtp_password.get_secret_value() if settings.smtp_password else "",
        domains=settings.smtp_recipient_domains,
    )
