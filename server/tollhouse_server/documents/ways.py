"""Where documents go: into a directory of the deployment's, into a bucket, or by e-mail."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tollhouse_server.documents.mail import MailServer
from tollhouse_server.errors import DeliveryNotSetUp
from tollhouse_server.names import invalid

if TYPE_CHECKING:
    from tollhouse_server.documents.bucket import Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """What a deployment has to deliver with; None where it has no such way."""

    folder: Path | None = None
    bucket: "Bucket | None" = None
    mail: MailServer | None = None

    def check(
        self, *, to_folder: bool = False, to_bucket: bool = False, recipients: Sequence[str] = (), field: str
    ) -> None:
        """Make sure that the deployment can deliver so.

        Raises:
            DeliveryNotSetUp: it has no such way.
            InvalidRequest: a recipient, in the request's `field`, is where e-mail must not go.
        """
        if to_folder and self.folder is None:
            raise DeliveryNotSetUp(way="to a folder", setting="TOLLHOUSE_DELIVERY_DIR")
        if to_bucket and self.bucket is None:
            raise DeliveryNotSetUp(way="into a bucket", setting="TOLLHOUSE_DELIVERY_BUCKET")
        if recipients and self.mail is None:
            raise DeliveryNotSetUp(way="by e-mail", setting="TOLLHOUSE_SMTP_HOST")
        allowed = self.mail.domains if self.mail else ()
        for recipient in recipients:
            if allowed and recipient.rpartition("@")[2].lower() not in allowed:
                raise invalid(field, f"may only be in {', '.join(allowed)}, as whoever runs this deployment has set")

    def without_secrets(self, text: str) -> str:
        """Return what an error says without anything that only the deployment may know."""
        return self.mail.without_secrets(text) if self.mail else text
