"""The models that the simulator plays."""

import pytest
from tollhouse_server.simulator.models import ModelList


def test_a_model_can_be_added_that_does_as_a_known_one_does() -> None:
    """So that a model of one's own, or tomorrow's, can be played; once it is there it is never replaced."""
    models = ModelList.load()

    models.set_pace("smollm2", {"like": "gemma-4-26b-a4b-it", "latency_ms": 5})
    models.set_pace("smollm2", {"like": "gemini-embedding-2"})

    added = models.get("smollm2")
    assert added is not None
    assert (added.name, added.latency_ms, added.kind) == ("smollm2", 5.0, "text")
    with pytest.raises(KeyError):
        models.set_pace("other", {"like": "nobody"})
    with pytest.raises(KeyError):
        models.set_pace("other", {"latency_ms": 5})
