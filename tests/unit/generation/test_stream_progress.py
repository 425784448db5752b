"""When a stream is finished, whatever the upstream calls its candidates."""

from typing import Any

import pytest
from tollhouse_server.generation.streaming import StreamProgress


@pytest.mark.parametrize("index", [None, 0, "0", 1.0, [1], {"a": 1}], ids=repr)
def test_an_index_that_is_none_counts_as_the_first(index: Any) -> None:
    """Garbage where a number should be must not end a stream that was paid for."""
    progress = StreamProgress()

    progress.add({"candidates": [{"index": index}]})
    begun = progress.is_finished
    progress.add({"candidates": [{"finishReason": "STOP"}]})

    assert (begun, progress.is_finished) == (False, True)
