"""Price files in YAML, brought to the notation that the pricing room reads, without a float on the way."""

import json
from typing import ClassVar

import yaml

from tollhouse_server.errors import FieldViolation, PriceFileInvalid


class _ExactLoader(yaml.SafeLoader):
    """YAML whose decimals and dates stay text, so that no float is ever made of a price; a key twice is refused."""

    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]
        letter: [(tag, form) for tag, form in known if not tag.endswith((":float", ":timestamp"))]
        for letter, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len({str(key) for key in keys}) < len(keys):
            raise yaml.constructor.ConstructorError(None, None, "a key is there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def yaml_as_json(text: str) -> str:
    """Return a YAML document as JSON text; decimals and dates are strings in it.

    Raises:
        PriceFileInvalid: it is not YAML, or a key is there twice.
    """
    try:
        return json.dumps(yaml.load(text, _ExactLoader))  # noqa: S506 - derived from SafeLoader
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise file_refused(f"not YAML: {' '.join(str(error).split())[:300]}") from None


def file_refused(description: str) -> PriceFileInvalid:
    """Return the error for a file that is refused as a whole."""
    return PriceFileInvalid(violations=(FieldViolation(path="content", description=description),))
