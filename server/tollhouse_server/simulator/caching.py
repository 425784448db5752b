"""Implicit caching: a long prompt whose beginning was served before counts that beginning as cached."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import orjson

from tollhouse_server.simulator.prompts import Prompt

BLOCK_TOKENS = 2_048
_BLOCK_CHARACTERS = 4 * BLOCK_TOKENS
_REMEMBERED = 20_000


class ImplicitCache:
    """Remembers prompt beginnings by project and model.

    The rule: the prompt's text (system instruction, tools, then contents in order) is cut into blocks of 8,192
    characters, which count for at least 2,048 tokens; every whole block from the start that an earlier served call of
    the same project and model began with too counts 2,048 cached tokens. Shorter prompts are never cached.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def cached_tokens(self, prompt: Prompt, project: str) -> int:
        """Give the cached tokens of a prompt and remember its own blocks."""
        text = _prompt_text(prompt)
        running = hashlib.blake2b(f"{project}\0{prompt.model}\0".encode(), digest_size=16)
        cached = 0
        unbroken = True
        for start in range(0, len(text) - _BLOCK_CHARACTERS + 1, _BLOCK_CHARACTERS):
            running.update(text[start : start + _BLOCK_CHARACTERS].encode())
            block = running.digest()
            unbroken = unbroken and block in self._seen
            cached += BLOCK_TOKENS if unbroken else 0
            self._remember(block)
        return cached

    def _remember(self, block: bytes) -> None:
        self._seen[block] = None
        self._seen.move_to_end(block)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


def _prompt_text(prompt: Prompt) -> str:
    system = prompt.body.get("systemInstruction", {}).get("parts", ())
    texts = [part["text"] for part in system if part.get("text")]
    # Only text and declarations: both count as TEXT tokens, so that the cached tokens stay a part of those.
    texts += [orjson.dumps(each).decode() for each in prompt.declarations()]
    texts += [part["text"] for part in prompt.parts() if part.get("text")]
    return "".join(texts)
