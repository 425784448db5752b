"""Answers to generate requests, drawn from the request alone: who asks the same twice gets the same.

Markers in the last user text steer an answer (they are cut from what it quotes):
`[[tokens:N]]` exactly N candidate tokens; `[[full]]` every token up to maxOutputTokens, thoughts included;
`[[block:REASON]]` a blocked prompt; `[[finish:REASON]]` that finish reason; `[[echo]]` the prompt itself;
`[[text]]` no function call in mode AUTO; `[[calls:N]]` N parallel calls; `[[images:N]]` N pictures;
`[[no-usage]]` an answer without usage metadata (the call log has it all the same).
"""

from __future__ import annotations

import base64
import datetime
from collections import Counter
from dataclasses import dataclass

from tollhouse_server.simulator import server_tools
from tollhouse_server.simulator.errors import JsonObject, invalid_argument
from tollhouse_server.simulator.images import Picture, draw_png
from tollhouse_server.simulator.models import Model
from tollhouse_server.simulator.prompts import Prompt
from tollhouse_server.simulator.tokens import cached_content_tokens, prompt_tokens
from tollhouse_server.simulator.usage import InputCounts, Surface, usage_metadata
from tollhouse_server.simulator.writing import Piece, Written, exact_tokens, signature, write_calls, write_text

_CANDIDATES_LIMIT = 8
_IMAGES_LIMIT = 8
_LOGPROBS_LIMIT = 20
_LEVELS = {"MINIMAL": (0, 24), "LOW": (16, 96), "MEDIUM": (64, 320), "HIGH": (128, 640), "XHIGH": (256, 1280)}
_SILENT_ON_IMAGES = "IMAGE_SAFETY NO_IMAGE IMAGE_PROHIBITED_CONTENT IMAGE_OTHER IMAGE_RECITATION"
_SILENT_ON_TEXT = "SAFETY PROHIBITED_CONTENT SPII BLOCKLIST RECITATION MODEL_ARMOR"
_SILENT_ON_TOOLS = "MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL"
# Finish reasons that come without any content.
_SILENT = frozenset(f"{_SILENT_ON_IMAGES} {_SILENT_ON_TEXT} {_SILENT_ON_TOOLS}".split())


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate, whole; `fields` are those beside content, index and finish reason."""

    index: int
    pieces: tuple[Piece, ...]
    finish_reason: str
    fields: JsonObject


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, from which a unary body or stream chunks are written."""

    envelope: JsonObject
    counts: InputCounts
    thoughts: int
    thought_parts: tuple[JsonObject, ...]
    candidates: tuple[Candidate, ...]
    feedback: JsonObject | None
    surface: Surface
    hides_usage: bool

    @property
    def output(self) -> Counter[str]:
        """Candidate tokens by modality."""
        tokens: Counter[str] = Counter()
        for candidate in self.candidates:
            for piece in candidate.pieces:
                tokens[piece.modality] += piece.tokens
        return tokens

    @property
    def usage(self) -> JsonObject:
        """The full usage metadata, as billed."""
        return usage_metadata(self.counts, thoughts=self.thoughts, candidates=self.output, surface=self.surface)

    @property
    def image_count(self) -> int:
        """How many pictures it holds."""
        return sum(piece.modality == "IMAGE" for candidate in self.candidates for piece in candidate.pieces)

    def body(self) -> JsonObject:
        """Write the unary answer."""
        body: JsonObject = {}
        if self.candidates:
            body["candidates"] = [self._candidate(each) for each in self.candidates]
        if self.feedback is not None:
            body["promptFeedback"] = self.feedback
        if not self.hides_usage:
            body["usageMetadata"] = self.usage
        return body | self.envelope

    def _candidate(self, candidate: Candidate) -> JsonObject:
        parts = [piece.part for piece in candidate.pieces]
        if candidate.index == 0:
            parts = [*self.thought_parts, *parts]
        shown: JsonObject = {"content": {"parts": parts, "role": "model"}} if parts else {"content": {"role": "model"}}
        return shown | {"finishReason": candidate.finish_reason, "index": candidate.index} | candidate.fields


def answer(prompt: Prompt, model: Model, *, surface: Surface, implicitly_cached: int = 0) -> Answer:
    """Answer a request, or raise the 400 that it earns; may draw pictures, so it can take a while."""
    _check(prompt, model)
    sent = prompt_tokens(prompt.body, model)
    cached = cached_content_tokens(prompt.body) or min(implicitly_cached, sent["TEXT"])
    blocked = "block" in prompt.markers
    limit = _output_limit(prompt, model)
    thoughts = 0 if blocked else _thoughts(prompt, model, limit)
    counts = InputCounts(sent, cached, 0 if blocked else server_tools.tool_use_tokens(prompt))
    return Answer(
        envelope=_envelope(prompt, surface),
        counts=counts,
        thoughts=thoughts,
        thought_parts=_thought_parts(prompt, thoughts),
        candidates=() if blocked else _candidates(prompt, model, limit, thoughts),
        feedback=_feedback(prompt) if blocked else None,
        surface=surface,
        hides_usage="no-usage" in prompt.markers,
    )


def _check(prompt: Prompt, model: Model) -> None:
    config = prompt.config
    modalities = {each.upper() for each in config.get("responseModalities", ())}
    if modalities - ({"TEXT", "IMAGE"} if model.makes_images else {"TEXT"}):
        asked = ", ".join(sorted(each.lower() for each in modalities))
        raise invalid_argument(f"Model does not support the requested response modalities: {asked}")
    if config.get("maxOutputTokens", 1) < 1:
        raise invalid_argument("max_output_tokens must be positive.")
    if not 1 <= config.get("candidateCount", 1) <= _CANDIDATES_LIMIT:
        raise invalid_argument(f"The candidate count must be in the range from 1 to {_CANDIDATES_LIMIT}.")
    if not 0 <= config.get("logprobs", 0) <= _LOGPROBS_LIMIT:
        raise invalid_argument(f"logprobs must be in the range from 0 to {_LOGPROBS_LIMIT}.")
    if not 0 <= config.get("temperature", 0) <= 2:
        raise invalid_argument("temperature must be in the range [0.0, 2.0].")


def _output_limit(prompt: Prompt, model: Model) -> int:
    return min(int(prompt.config.get("maxOutputTokens", model.output_token_limit)), model.output_token_limit)


def _thoughts(prompt: Prompt, model: Model, limit: int) -> int:
    thinking = prompt.config.get("thinkingConfig", {})
    budget = int(thinking.get("thinkingBudget", -1))
    asked = "thinkingBudget" in thinking or "thinkingLevel" in thinking
    if not model.thinking or budget == 0 or not (model.thinks_by_default or asked):
        return 0
    low, high = _LEVELS.get(str(thinking.get("thinkingLevel", "MEDIUM")).upper(), _LEVELS["MEDIUM"])
    wanted = prompt.dice.between("thoughts", low, high)
    if budget > 0:
        wanted = min(wanted, budget)
    # Thoughts count against maxOutputTokens and leave at least half of it to the answer.
    room = limit - (exact_tokens(prompt, limit) or 0) if "tokens" in prompt.markers else limit // 2
    return max(0, min(wanted, room))


def _thought_parts(prompt: Prompt, thoughts: int) -> tuple[JsonObject, ...]:
    if not thoughts or not prompt.config.get("thinkingConfig", {}).get("includeThoughts"):
        return ()
    summary = f"**Reading the question**\n\nI am looking at what was asked: {prompt.text[:60]!r}.\n\n"
    return ({"text": summary, "thought": True},)


def _candidates(prompt: Prompt, model: Model, limit: int, thoughts: int) -> tuple[Candidate, ...]:
    count = prompt.config.get("candidateCount", 1)
    return tuple(_candidate(prompt, model, limit if index else limit - thoughts, index) for index in range(count))


def _candidate(prompt: Prompt, model: Model, room: int, index: int) -> Candidate:
    finish = prompt.markers.get("finish")
    if finish in _SILENT:
        return Candidate(index, (), finish, {"finishMessage": f"The response was stopped: {finish}."})
    written = _written(prompt, model, room, index)
    pieces = _signed(prompt, model, written.pieces)
    text = "".join(piece.part.get("text", "") for piece in pieces)
    fields = server_tools.metadata(prompt, text) | _logprobs(prompt, text)
    if model.family != "2.5" and any("functionCall" in piece.part for piece in pieces):
        fields["finishMessage"] = "Model generated function call(s)."
    return Candidate(index, pieces, finish or ("MAX_TOKENS" if written.cut else "STOP"), fields)


def _written(prompt: Prompt, model: Model, room: int, index: int) -> Written:
    if model.makes_images and "IMAGE" in _modalities(prompt, model):
        return _pictured(prompt, model, room, index)
    calls = write_calls(prompt, model, room)
    if calls is not None:
        return calls
    code = server_tools.code_pieces(prompt)
    code_tokens = sum(piece.tokens for piece in code)
    if code_tokens > room:
        return Written((), cut=True)
    text = write_text(prompt, room - code_tokens, index)
    return Written((*code, *text.pieces), text.cut)


def _modalities(prompt: Prompt, model: Model) -> set[str]:
    asked = {each.upper() for each in prompt.config.get("responseModalities", ())}
    return asked or ({"TEXT", "IMAGE"} if model.makes_images else {"TEXT"})


def _pictured(prompt: Prompt, model: Model, room: int, index: int) -> Written:
    picture = Picture.read(prompt.config)
    if picture.size not in model.image_tokens:
        raise invalid_argument(f"Image size {picture.size} is not supported by models/{model.id}.")
    each = model.image_tokens[picture.size]
    wanted = prompt.markers.get("images", "1")
    count = min(int(wanted) if wanted.isdecimal() else 1, _IMAGES_LIMIT)
    if each * count > room:
        return Written((), cut=True)
    png = draw_png(picture, prompt.text or "untitled", prompt.dice.draw("ground"))
    blob = {"mimeType": "image/png", "data": base64.b64encode(png).decode()}
    images = (Piece({"inlineData": blob}, each, "IMAGE"),) * count
    if "TEXT" not in _modalities(prompt, model):
        return Written(images)
    text = write_text(prompt, room - each * count, index)
    return Written((*text.pieces, *images), text.cut)


def _signed(prompt: Prompt, model: Model, pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Models from 3 on sign their last text."""
    if not pieces or not model.thinking or model.family == "2.5" or "text" not in pieces[-1].part:
        return pieces
    last = pieces[-1]
    part = last.part | {"thoughtSignature": signature(prompt.dice, "text")}
    return (*pieces[:-1], Piece(part, last.tokens, last.modality))


def _logprobs(prompt: Prompt, text: str) -> JsonObject:
    if not prompt.config.get("responseLogprobs") or not text:
        return {}
    tokens = [text[start : start + 4] for start in range(0, len(text), 4)]
    chosen = [_logprob(prompt, token, 0) for token in tokens]
    fields: JsonObject = {"chosenCandidates": chosen}
    top = prompt.config.get("logprobs", 0)
    if top:
        fields["topCandidates"] = [
            {"candidates": [_logprob(prompt, token, rank) for rank in range(top)]} for token in tokens
        ]
    average = sum(each["logProbability"] for each in chosen) / len(chosen)
    return {"avgLogprobs": average, "logprobsResult": fields}


def _logprob(prompt: Prompt, token: str, rank: int) -> JsonObject:
    shown = token if rank == 0 else f"{token[:2]}{rank}"
    probability = -prompt.dice.between(f"logprob-{shown}", 1, 4_000) / 10_000 - 4.0 * rank
    return {"token": shown, "tokenId": prompt.dice.between(f"id-{shown}", 100, 250_000), "logProbability": probability}


def _feedback(prompt: Prompt) -> JsonObject:
    reason = prompt.markers["block"] or "SAFETY"
    feedback: JsonObject = {"blockReason": reason}
    if reason == "MODEL_ARMOR":
        feedback["blockReasonMessage"] = "The prompt violated Prompt Injection and Jailbreak filters."
    if reason == "SAFETY":
        rating = {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
        feedback["safetyRatings"] = [rating]
    return feedback


def _envelope(prompt: Prompt, surface: Surface) -> JsonObject:
    envelope: JsonObject = {"modelVersion": prompt.model, "responseId": prompt.dice.letters("response", 22)}
    if surface.vertex:
        envelope["createTime"] = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    return envelope
