"""An object store that speaks S3, of a test's own on loopback; it checks signatures and rights as the real ones do."""

import json
import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

NAME = "statements"
_MAY_PUT = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": f"arn:aws:s3:::{NAME}/*"}],
}


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A store with one bucket, and a key that may put objects into it and nothing else."""

    endpoint: str
    access_key_id: str
    secret_access_key: str

    def objects(self) -> dict[str, tuple[str, bytes]]:
        """Return type and content of every object, as their owner sees them."""
        self.check_signatures(never=True)
        client = _client("s3", self.endpoint)
        found = {}
        for entry in client.list_objects_v2(Bucket=NAME).get("Contents", ()):
            one = client.get_object(Bucket=NAME, Key=entry["Key"])
            found[entry["Key"]] = (one["ContentType"], one["Body"].read())
        return found

    def check_signatures(self, *, never: bool = False) -> None:
        """Look at signatures and rights from now on, or at neither."""
        _post(self.endpoint, "reset-auth", b"inf" if never else b"0")


def _post(endpoint: str, what: str, body: bytes = b"") -> None:
    url = f"{endpoint}/moto-api/{what}"
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "text/plain"})  # noqa: S310 - on loopback
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


def _client(service: str, endpoint: str) -> Any:
    keys = {"aws_access_key_id": "owner", "aws_secret_access_key": "owner"}
    return boto3.client(service, endpoint_url=endpoint, region_name="us-east-1", **keys)


@contextmanager
def open_object_store() -> Iterator[ObjectStore]:
    """Run a store with its bucket, for a writer whom it knows."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        # What it keeps is of the process, and another may have been there before.
        _post(endpoint, "reset-auth", b"inf")
        _post(endpoint, "reset")
        _client("s3", endpoint).create_bucket(Bucket=NAME)
        iam = _client("iam", endpoint)
        iam.create_user(UserName="tollhouse")
        iam.put_user_policy(UserName="tollhouse", PolicyName="put", PolicyDocument=json.dumps(_MAY_PUT))
        key = iam.create_access_key(UserName="tollhouse")["AccessKey"]
        store = ObjectStore(endpoint, key["AccessKeyId"], key["SecretAccessKey"])
        store.check_signatures()
        yield store
    finally:
        server.stop()
