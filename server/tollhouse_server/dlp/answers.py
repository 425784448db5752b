"""An answer on its way to its caller: first the model's own text is judged, then values of the prompt are put back.

So what the caller sent himself is never judged again, and what is kept of an answer has no value of its prompt. Every
candidate's text is one text, whatever chunks and parts it comes in; its thoughts are another.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, Protocol, TypeAlias

import orjson

from tollhouse_server.dlp.leaves import Path, leaves, rebuilt
from tollhouse_server.dlp.policy import Screen
from tollhouse_server.dlp.redaction import Findings, Redactor
from tollhouse_server.dlp.tokens import Restorer, Tokens, Values

_Steps: TypeAlias = Generator[None, None, dict[str, Any]]

_TextSteps: TypeAlias = Generator[None, None, str]

# What Gemini says of a chunk as a whole: counts, names, its own safety ratings.
_UNTOUCHED: Final = frozenset({"usageMetadata", "modelVersion", "responseId", "createTime", "promptFeedback"})

_VERDICTS: Final = frozenset({"index", "finishReason", "finishMessage", "safetyRatings", "tokenCount", "avgLogprobs"})


class Rewriter(Protocol):
    """Rewrites one text as it comes."""

    def steps(self, text: str, *, is_last: bool) -> _TextSteps:
        """Take a piece and return what can be passed on.

        Raises:
            Blocked: it has a value that may not be told.
        """


def judging(screen: Screen, findings: Findings, prompt: Tokens) -> "AnswerText":
    """Return what judges an answer's texts; no value in it gets a token that the prompt has."""
    tokens = Tokens()
    tokens.avoid(prompt.values())
    return AnswerText(lambda: Redactor(screen, findings, tokens.token))


def restoring(prompt: Tokens, *, is_json: bool = False) -> "AnswerText":
    """Return what puts a prompt's values back into an answer's texts, within strings of JSON where the text is JSON."""
    values = prompt.values()
    within_json = {token: orjson.dumps(value).decode()[1:-1] for token, value in values.items()} if is_json else values
    plain, texts = Values(values), Values(within_json)
    return AnswerText(lambda: Restorer(plain), lambda: Restorer(texts))


class AnswerText:
    """Rewrites the texts of one answer, each with its own rewriter: `said` is for what is neither thought nor call."""

    def __init__(self, rewriter: Callable[[], Rewriter], said: Callable[[], Rewriter] | None = None) -> None:
        self._rewriter = rewriter
        self._said = said or rewriter
        self._ways: dict[tuple[int, bool], Rewriter] = {}
        self._writing: dict[int, bool] = {}

    def chunk(self, body: Mapping[str, Any], *, is_last: bool = False) -> _Steps:
        """Return a chunk as the caller may read it, a step at a time; with the last one, or that of a candidate, all
        that was held back.

        Raises:
            Blocked: it has a value that may not be told.
        """
        told = dict(body)
        for name, value in body.items():
            if name == "candidates" and isinstance(value, list):
                told[name] = yield from self._candidates(value, is_last=is_last)
            elif name not in _UNTOUCHED:
                told[name] = yield from self._value(value)
        return told

    def rest(self) -> _Steps:
        """Return a chunk with what is still held back, empty where nothing is."""
        candidates = []
        for index in sorted(self._writing):
            part = yield from self._end(index)
            if part:
                candidates.append({"index": index, "content": {"role": "model", "parts": [part]}})
        return {"candidates": candidates} if candidates else {}

    def _candidates(self, candidates: list[Any], *, is_last: bool) -> Generator[None, None, list[Any]]:
        told = []
        for candidate in candidates:
            told.append((yield from self._candidate(candidate, is_last=is_last)))
        return told

    def _candidate(self, candidate: Any, *, is_last: bool) -> Generator[None, None, Any]:
        if not isinstance(candidate, Mapping):
            return (yield from self._value(candidate))
        told = dict(candidate)
        index = candidate.get("index", 0)
        index = index if isinstance(index, int) else 0
        for name, value in candidate.items():
            if name == "content" and isinstance(value, Mapping):
                told[name] = {**value, "parts": (yield from self._parts(value.get("parts"), index))}
                if "parts" not in value:
                    del told[name]["parts"]
            elif name not in _VERDICTS:
                told[name] = yield from self._value(value)
        if (is_last or candidate.get("finishReason")) and (part := (yield from self._end(index))):
            content = told.get("content", {"role": "model"})
            told["content"] = {**content, "parts": _joined([*content.get("parts", []), part])}
        return told

    def _parts(self, parts: Any, index: int) -> Generator[None, None, list[Any]]:
        told: list[Any] = []
        for part in parts if isinstance(parts, list) else []:
            text = part.get("text") if isinstance(part, Mapping) else None
            is_thought = isinstance(part, Mapping) and bool(part.get("thought"))
            if not isinstance(text, str):
                held = yield from self._end(index)
                told += [held] if held else []
                told.append((yield from self._value(part)))
                continue
            if self._writing.get(index, is_thought) != is_thought:
                held = yield from self._end(index)
                told += [held] if held else []
            self._writing[index] = is_thought
            passed = yield from self._way(index, is_thought=is_thought).steps(text, is_last=False)
            told.append({**part, "text": passed})
        return told

    def _end(self, index: int) -> Generator[None, None, dict[str, Any]]:
        """Return a part with what is held back of a candidate's text, empty where nothing is; the text ends there."""
        is_thought = self._writing.pop(index, None)
        if is_thought is None:
            return {}
        text = yield from self._ways.pop((index, is_thought)).steps("", is_last=True)
        if not text:
            return {}
        return {"text": text, "thought": True} if is_thought else {"text": text}

    def _way(self, index: int, *, is_thought: bool) -> Rewriter:
        found = self._ways.get((index, is_thought))
        if found is None:
            found = self._ways[index, is_thought] = self._rewriter() if is_thought else self._said()
        return found

    def _value(self, value: Any) -> Generator[None, None, Any]:
        """Return any other part of an answer, such as the arguments of a function call: each text in it is whole."""
        changes: dict[tuple[Path, bool], str] = {}
        inline = set()
        for leaf in leaves(value):
            text = yield from self._rewriter().steps(leaf.text, is_last=True)
            if text != leaf.text:
                changes[leaf.path, leaf.is_key] = text
                if leaf.is_inline:
                    inline.add(leaf.path)
        return rebuilt(value, changes, frozenset(inline)) if changes else value


def _joined(parts: list[Any]) -> list[Any]:
    """Return parts with the last two as one, where both are text of the same kind and nothing else."""
    if len(parts) > 1 and parts[-2].keys() == parts[-1].keys() and "text" in parts[-1]:
        return [*parts[:-2], {**parts[-1], "text": parts[-2]["text"] + parts[-1]["text"]}]
    return parts
