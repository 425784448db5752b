"""Shows answers as they come: text on stdout, images into files, usage and cost on stderr."""

import json
import mimetypes
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from tollhouse.v1 import content_pb2, generation_pb2

from tollhouse_admin.amounts import dollars_of, dollars_text
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import last_id
from tollhouse_admin.output import note
from tollhouse_admin.plain_text import printable
from tollhouse_admin.rendering import Cell, enum_text

# The endings that Python's table would not choose first.
_ENDINGS = {"image/jpeg": ".jpg", "image/webp": ".webp", "audio/wav": ".wav"}


@dataclass(slots=True)
class AnswerWriter:
    """Writes the parts of an answer; `directory` None leaves media unwritten, and says so."""

    directory: Path | None
    stem: str
    text: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    unwritten: int = 0
    said: list[str] = field(default_factory=list)

    def write(self, response: generation_pb2.GenerateContentResponse) -> None:
        """Write one response or one piece of a stream."""
        for candidate in response.candidates:
            for part in candidate.content.parts:
                self._write_part(part)
            if candidate.finish_reason not in ("", "STOP", "FINISH_REASON_UNSPECIFIED"):
                self.said.append(f"finished: {candidate.finish_reason} {candidate.finish_message}".rstrip())
        if response.prompt_feedback.block_reason:
            blocked = response.prompt_feedback
            self.said.append(f"the prompt was blocked: {blocked.block_reason} {blocked.block_reason_message}".rstrip())
        sys.stdout.flush()

    def _write_part(self, part: content_pb2.Part) -> None:
        if part.HasField("inline_data"):
            self._keep_media(part.inline_data)
        elif part.thought:
            note(f"thought: {part.text}")
        elif part.HasField("text"):
            self._say(part.text)
        elif part.HasField("function_call"):
            call = MessageToDict(part.function_call)
            self._say(json.dumps({"functionCall": call}, ensure_ascii=False) + "\n")
        elif part.HasField("executable_code"):
            self._say(f"{part.executable_code.code}\n")
        elif part.HasField("code_execution_result"):
            self._say(f"{part.code_execution_result.output}\n")

    def _say(self, text: str) -> None:
        self.text.append(text)
        # What goes into a file or a pipe stays as it came; a terminal is protected.
        sys.stdout.write(printable(text) if sys.stdout.isatty() else text)

    def _keep_media(self, blob: content_pb2.Blob) -> None:
        if self.directory is None:
            self.unwritten += 1
            return
        self.files.append(save_media(self.directory, f"{self.stem}-{len(self.files) + 1}", blob))
        self.said.append(f"wrote {self.files[-1]} ({blob.mime_type}, {len(blob.data)} bytes)")

    def finish(self) -> None:
        """End the last line of the answer; then say what is not part of it."""
        if self.text and not self.text[-1].endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()
        for line in self.said:
            note(line)
        if self.unwritten:
            note(f"{self.unwritten} image(s) or other media in the answer; --out DIR writes them to files")


def save_media(directory: Path, stem: str, blob: content_pb2.Blob) -> Path:
    """Write media to a new file in `directory` and return its path; the answer has no say in the name.

    Raises:
        Failure: it cannot be written.
    """
    media_type = blob.mime_type.partition(";")[0]
    path = directory / f"{stem}{_ENDINGS.get(media_type) or mimetypes.guess_extension(media_type) or '.bin'}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(blob.data)
    except OSError as error:
        raise wrong_usage(
            f"{path} cannot be written: {error.strerror}", "Name another directory with --out."
        ) from error
    return path


def show_outcome(outcome: generation_pb2.Outcome) -> None:
    """Write usage, cost, route and receipt on stderr, and every notice."""
    note(" · ".join(_outcome_parts(outcome)))
    for notice in outcome.notices:
        code = enum_text(generation_pb2.NoticeCode.DESCRIPTOR, notice.code)
        note(f"notice: {code}: {notice.message}")


def _outcome_parts(outcome: generation_pb2.Outcome) -> Iterator[str]:
    route = outcome.route
    yield route.model
    if route.tier:
        yield f"tier {route.tier}"
    if route.account:
        yield f"account {last_id(route.account)}"
    if route.attempts > 1:
        yield f"{route.attempts} attempts"
    if outcome.HasField("usage"):
        yield _usage_text(outcome.usage)
    if outcome.HasField("cost"):
        yield f"${dollars_text(dollars_of(outcome.cost))}"
    if outcome.HasField("receipt"):
        yield f"receipt {outcome.receipt.attempt_id}"
        yield f"request {outcome.receipt.request_id}"


def _usage_text(usage: generation_pb2.Usage) -> str:
    """Return the counts that were reported; what was not reported is not shown as zero."""
    counts = [
        ("in", "prompt_tokens"),
        ("cached", "cached_tokens"),
        ("out", "candidates_tokens"),
        ("thinking", "thoughts_tokens"),
    ]
    # Nothing cached and no thinking is the common case, and not worth a word.
    known = [
        f"{getattr(usage, path)} {word}"
        for word, path in counts
        if usage.HasField(path) and (getattr(usage, path) or word in ("in", "out"))  # type: ignore[arg-type]
    ]
    images = f", {usage.images} image(s)" if usage.images else ""
    return f"tokens {', '.join(known) or 'not reported'}{images}"


def outcome_row(outcome: generation_pb2.Outcome) -> dict[str, Cell]:
    """Return the outcome as one row of CSV, by column."""
    usage, route = outcome.usage, outcome.route
    return {
        "model": route.model,
        "tier": route.tier,
        "account": route.account,
        "attempts": route.attempts,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "candidates_tokens": usage.candidates_tokens,
        "thoughts_tokens": usage.thoughts_tokens,
        "images": usage.images,
        "cost": dollars_of(outcome.cost),
        "attempt_id": outcome.receipt.attempt_id,
        "request_id": outcome.receipt.request_id,
    }


def answer_text(responses: Iterable[generation_pb2.GenerateContentResponse]) -> str:
    """Return the text of the answers without thoughts."""
    return "".join(
        part.text
        for response in responses
        for candidate in response.candidates
        for part in candidate.content.parts
        if not part.thought
    )


def compact_json(message: Any) -> str:
    """Return proto JSON on one line, for streams of it."""
    return json.dumps(MessageToDict(message), ensure_ascii=False)
