"""What a large call has done to it once, so that nothing long is copied, or holds others up, at each step."""

import asyncio

from tollhouse_server.generation.calls import GenerationCall
from tollhouse_server.long_values import lengthen


class LongCalls:
    """Prepares large calls, one at a time: four threads would leave the event loop a fifth of a core."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()

    async def prepared(self, call: GenerationCall) -> GenerationCall:
        """Return a call whose long texts are written in pieces, and whose fingerprint is known.

        The fingerprint is taken in a thread: of 20 MB it takes 45 ms, half of them without the interpreter.
        """
        async with self._one_at_a_time:
            lengthen(call.body)
            return call._replace(digest=await asyncio.to_thread(call.fingerprint))
