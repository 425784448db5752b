"""Stream chunks of an answer, each with the usage so far, the last with all of it and the finish reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tollhouse_server.simulator.answers import Answer, Candidate
from tollhouse_server.simulator.errors import JsonObject
from tollhouse_server.simulator.tokens import split_tokens, text_tokens
from tollhouse_server.simulator.usage import InputCounts, usage_metadata
from tollhouse_server.simulator.writing import Piece

_TOKENS_PER_CHUNK = 16
_CHUNKS_LIMIT = 200


def chunks(answer: Answer) -> list[JsonObject]:
    """Cut an answer into chunk bodies; usage is cumulative and adds up in each."""
    if not answer.candidates:
        return [answer.body()]
    return list(_written(answer))


def _written(answer: Answer) -> Iterator[JsonObject]:
    so_far: Counter[str] = Counter()
    for part in answer.thought_parts:
        yield _chunk(answer, so_far, {"content": {"parts": [part], "role": "model"}, "index": 0}, last=False)
    size = max(_TOKENS_PER_CHUNK, answer.output.total() // _CHUNKS_LIMIT)
    for candidate in answer.candidates:
        steps = list(_steps(candidate, size))
        for at, (step, modality, tokens) in enumerate(steps):
            so_far[modality] += tokens
            ends = at == len(steps) - 1
            shown: JsonObject = {"content": {"role": "model"}, "index": candidate.index}
            if step is not None:
                shown["content"] = {"parts": [step], "role": "model"}
            if ends:
                shown |= {"finishReason": candidate.finish_reason} | candidate.fields
            yield _chunk(answer, so_far, shown, last=ends and candidate is answer.candidates[-1])


def _steps(candidate: Candidate, size: int) -> Iterator[tuple[JsonObject | None, str, int]]:
    if not candidate.pieces:
        yield None, "TEXT", 0
    for piece in candidate.pieces:
        yield from _text_steps(piece, size) if "text" in piece.part else [(piece.part, piece.modality, piece.tokens)]


def _text_steps(piece: Piece, size: int) -> Iterator[tuple[JsonObject, str, int]]:
    counted, sent = 0, []
    for text in split_tokens(piece.part["text"], size):
        sent.append(text)
        # Counted from the whole so far: rounding each piece up alone could add up to more than the whole.
        tokens = min(piece.tokens, counted + text_tokens(text)) - counted
        counted += tokens
        yield {"text": text}, piece.modality, tokens
    rest = {name: value for name, value in piece.part.items() if name != "text"}
    if rest or counted < piece.tokens:
        yield {"text": "", **rest}, piece.modality, piece.tokens - counted


def _chunk(answer: Answer, so_far: Counter[str], candidate: JsonObject, *, last: bool) -> JsonObject:
    body: JsonObject = {"candidates": [candidate]}
    if not answer.hides_usage:
        counts = answer.counts if last else InputCounts(answer.counts.prompt)
        body["usageMetadata"] = usage_metadata(
            counts, thoughts=answer.thoughts, candidates=so_far, surface=answer.surface
        )
    return body | answer.envelope
