"""The models that the simulator plays, read from `models.json`, and each model's pace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

import orjson

from tollhouse_server.simulator.errors import JsonObject

_GENERATE = ("generateContent", "streamGenerateContent", "countTokens")
_EMBED = ("embedContent", "batchEmbedContents", "countTokens", "predict")


@dataclass(frozen=True, slots=True)
class Model:
    """One model: what it can do, and how fast it does it (0 = at once)."""

    id: str
    name: str
    source: str
    family: str
    kind: str = "text"
    thinking: bool = False
    thinks_by_default: bool = True
    input_token_limit: int = 1_048_576
    output_token_limit: int = 65_536
    dimensions: int = 0
    image_tokens: Mapping[str, int] = field(default_factory=dict)
    latency_ms: float = 0.0
    tokens_per_second: float = 0.0

    @property
    def methods(self) -> tuple[str, ...]:
        """The REST methods it supports."""
        return _EMBED if self.kind == "embedding" else _GENERATE

    @property
    def makes_images(self) -> bool:
        """Whether it can answer with an image."""
        return bool(self.image_tokens)

    def resource(self) -> JsonObject:
        """Give it as `models.get` shows it."""
        shown: JsonObject = {
            "name": f"models/{self.id}",
            "version": "001",
            "displayName": self.name,
            "description": f"Simulated {self.name}",
            "inputTokenLimit": self.input_token_limit,
            "outputTokenLimit": self.output_token_limit,
            "supportedGenerationMethods": [method for method in self.methods if method != "predict"],
        }
        if self.kind == "text":
            shown |= {"temperature": 1, "topP": 0.95, "topK": 64, "maxTemperature": 2, "thinking": self.thinking}
        return shown

    def publisher_resource(self) -> JsonObject:
        """Give it as Vertex's Model Garden shows it."""
        return {
            "name": f"publishers/google/models/{self.id}",
            "versionId": "001",
            "openSourceCategory": "PROPRIETARY",
            "launchStage": "GA",
            "publisherModelTemplate": f"projects/{{project}}/locations/{{location}}/publishers/google/models/{self.id}",
        }


class ModelList:
    """The models by id, whose pace can be changed while the simulator runs."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = {model.id: model for model in models}

    @classmethod
    def load(cls) -> ModelList:
        """Read the list that ships with the simulator."""
        text = resources.files("tollhouse_server.simulator").joinpath("models.json").read_bytes()
        return cls(Model(**entry) for entry in orjson.loads(text)["models"])

    def get(self, model_id: str) -> Model | None:
        """Give the model of that id, if there is one."""
        return self._models.get(model_id)

    def all(self) -> list[Model]:
        """Give every model in the file's order."""
        return list(self._models.values())

    def set_pace(self, model_id: str, pace: Mapping[str, Any]) -> None:
        """Set `latency_ms` and `tokens_per_second` of one model, or of all when the id is `*`; KeyError if unknown.

        With `like`, the id of a known model, an unknown one is added that does as that one does.
        """
        if "like" in pace and model_id not in self._models:
            self._models[model_id] = replace(self._models[pace["like"]], id=model_id, name=model_id, source="added")
        chosen = list(self._models) if model_id == "*" else [model_id]
        for each in chosen:
            model = self._models[each]
            self._models[each] = replace(
                model,
                latency_ms=float(pace.get("latency_ms", model.latency_ms)),
                tokens_per_second=float(pace.get("tokens_per_second", model.tokens_per_second)),
            )
