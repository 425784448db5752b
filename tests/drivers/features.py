"""Every feature of the generation schema as a request of its own: one body for each leaf of the messages' tree."""

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_MIRRORED_BELOW = 100
"""Fields from this number on are Tollhouse's own."""
_SCALARS: Mapping[int, Any] = {
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_BYTES: "c2FtcGxl",
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_INT32: 7,
    FieldDescriptor.TYPE_INT64: 7,
    FieldDescriptor.TYPE_DOUBLE: 0.5,
}
_SAMPLES: Mapping[str, Any] = {
    "Content.role": "user",
    "PartialArg.nullValue": "NULL_VALUE",
    "Interval.startTime": "2026-11-01T00:00:00+00:00",
    "Interval.endTime": "2026-11-02T00:00:00+00:00",
    "Tool.retrieval": {"vertexAiSearch": {"datastore": "projects/p/locations/l/collections/c/dataStores/d"}},
    "GoogleSearch.searchTypes": {"webSearch": {}},
    "GoogleMaps.authConfig": {"apiKeyConfig": {"apiKeySecret": "projects/p/secrets/s/versions/1"}},
    "McpServer.streamableHttpTransport": {"url": "https://mcp.example.com"},
    "ReplicatedVoiceConfig.voiceConsentSignature": {"signature": "c2FtcGxl"},
    "GenerationConfig.routingConfig": {"autoMode": {"modelRoutingPreference": "BALANCED"}},
    "GenerationConfig.modelSelectionConfig": {"featureSelectionPreference": "BALANCED"},
    "GenerateContentRequest.cachedContent": "cachedContents/c",
    # It copies requests, and early releases of Python 3.11 cannot copy an enum's member that it has made up.
    "FunctionResponse.scheduling": "SILENT",
    "MediaResolution.level": "MEDIA_RESOLUTION_LOW",
    "PartMediaResolution.level": "MEDIA_RESOLUTION_LOW",
    "ExecutableCode.language": "PYTHON",
    "CodeExecutionResult.outcome": "OUTCOME_OK",
    "ToolCall.toolType": "GOOGLE_SEARCH_WEB",
    "ToolResponse.toolType": "GOOGLE_SEARCH_WEB",
    "ComputerUse.environment": "ENVIRONMENT_BROWSER",
    "DynamicRetrievalConfig.mode": "MODE_DYNAMIC",
    "EnterpriseWebSearch.blockingConfidence": "BLOCK_LOW_AND_ABOVE",
    "FunctionCallingConfig.mode": "ANY",
    "FunctionDeclaration.behavior": "BLOCKING",
    "GenerationConfig.mediaResolution": "MEDIA_RESOLUTION_LOW",
    "GoogleSearch.blockingConfidence": "BLOCK_LOW_AND_ABOVE",
    "ImageConfig.prominentPeople": "BLOCK_PROMINENT_PEOPLE",
    "SafetySetting.category": "HARM_CATEGORY_HARASSMENT",
    "SafetySetting.method": "SEVERITY",
    "SafetySetting.threshold": "BLOCK_LOW_AND_ABOVE",
    "Schema.type": "STRING",
    "ThinkingConfig.thinkingLevel": "LOW",
}
"""What the schema leaves open and google-genai does not, by message and JSON name."""


def features(message: Descriptor, path: str = "", above: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each leaf's path in JSON names and a body that sets it and nothing else."""
    for field in message.fields:
        if field.number >= _MIRRORED_BELOW:
            continue
        name = f"{path}.{field.json_name}" if path else field.json_name
        for leaf, value in _values(field, name, above):
            yield leaf, {field.json_name: [value] if field.is_repeated and not _is_map(field) else value}


def _values(field: Any, path: str, above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    inner = field.message_type
    sample = _SAMPLES.get(f"{field.containing_type.name}.{field.json_name}")
    if sample is not None:
        yield path, sample
    elif inner is None:
        yield path, _SCALARS[field.type]
    elif inner.full_name.startswith("google.protobuf."):
        yield path, {"type": "string"}
    elif _is_map(field):
        yield path, {"name": {"type": "STRING"}}
    elif inner.full_name in above:
        # A schema in a schema: one level shows what there is to show.
        yield path, {"type": "STRING"}
    else:
        leaves = list(features(inner, path, (*above, inner.full_name)))
        yield from leaves or [(path, {})]


def _is_map(field: Any) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)
