"""Price files in YAML, brought to the notation that the pricing room reads, without a float on the way."""

import json
from typing import ClassVar, Final

import yaml

from tollhouse_server.errors import FieldViolation, PriceFileInvalid

_MOST_NODES: Final = 200_000
"""Far more than a file of the size that is taken has, if every value is written out."""


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
        return json.dumps(_read(text))
    except (yaml.YAMLError, RecursionError, TypeError, ValueError, LookupError, AttributeError) as error:
        # The last two are what PyYAML raises for a word that is not what its tag says: `!!bool maybe`.
        raise file_refused(f"not YAML: {' '.join(str(error).split())[:300]}") from None


def _read(text: str) -> object:
    loader = _ExactLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}) > _MOST_NODES:
            raise ValueError("its aliases stand for more than a price file can have")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node is with every alias in it written out; one that is within itself has no end."""
    if id(node) not in known:
        known[id(node)] = _MOST_NODES + 1
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        inner = [one for pair in pairs for one in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_written_out(one, known) for one in inner) if isinstance(inner, list) else 1
    return known[id(node)]


def file_refused(description: str) -> PriceFileInvalid:
    """Return the error for a file that is refused as a whole."""
    return PriceFileInvalid(violations=(FieldViolation(path="content", description=description),))
