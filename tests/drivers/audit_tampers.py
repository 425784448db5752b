"""Ways to tamper with an export or its anchor, each of which a verification must find; seeded, so that they recur."""

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tollhouse_admin.audit_proofs import Report, verified_checkpoints, verify_trail
from tollhouse_server.audit.store import Link

from tests.drivers.audit import anchor_of, export_line, key_set, links
from tests.drivers.receipts import KeyInMemory

EVENTS = 60
SIGNED = (7, 20, 33, 50)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an auditor holds: the export and the anchor, line by line."""

    lines: list[bytes]
    anchor: list[bytes]


@dataclass(frozen=True, slots=True)
class Scene:
    """A genuine trail and its anchor; the key that signed it; a foreign trail; a key that the tamperer has made."""

    trail: list[Link]
    genuine: Evidence
    foreign: list[bytes]
    key: KeyInMemory
    forger: KeyInMemory


Tamper = Callable[[random.Random, Scene], Evidence]


def scene() -> Scene:
    """Build a trail with checkpoints, the last of them before its end."""
    key, trail = KeyInMemory(), list(links("acme", EVENTS))
    genuine = Evidence([export_line(link) for link in trail], anchor_of("acme", trail, SIGNED, key))
    foreign = [export_line(link) for link in links("bolt", EVENTS)]
    return Scene(trail=trail, genuine=genuine, foreign=foreign, key=key, forger=KeyInMemory())


def verify(evidence: Evidence, key: KeyInMemory) -> Report:
    """Verify as `tollhouse audit verify` does; what is in one line may have become two."""
    report = Report()
    checkpoints = verified_checkpoints(_split(evidence.anchor), key_set(key), report)
    for _ in verify_trail(_split(evidence.lines), checkpoints, report):
        pass
    return report


def _split(lines: Sequence[bytes]) -> list[bytes]:
    return io.BytesIO(b"".join(lines)).readlines()


# --- bytes ------------------------------------------------------------------------------------------------------------


def _flipped(chance: random.Random, text: bytes) -> bytes:
    place = chance.randrange(len(text))
    other = chance.choice([byte for byte in range(256) if byte != text[place]])
    return text[:place] + bytes([other]) + text[place + 1 :]


def byte_changed(chance: random.Random, scene: Scene) -> Evidence:
    """Any byte of any line becomes any other."""
    lines = list(scene.genuine.lines)
    place = chance.randrange(len(lines))
    lines[place] = _flipped(chance, lines[place])
    return Evidence(lines, scene.genuine.anchor)


def byte_removed(chance: random.Random, scene: Scene) -> Evidence:
    """Any byte but the last line's end is gone."""
    lines = list(scene.genuine.lines)
    place = chance.randrange(len(lines))
    byte = chance.randrange(len(lines[place]) - 1)
    lines[place] = lines[place][:byte] + lines[place][byte + 1 :]
    return Evidence(lines, scene.genuine.anchor)


def word_changed(chance: random.Random, scene: Scene) -> Evidence:
    """Somebody else has done it, something else was done, from somewhere else, at another time."""
    lines = list(scene.genuine.lines)
    place = chance.randrange(len(lines))
    old, new = chance.choice(
        [
            (b"principals/jo", b"principals/al"),
            (b"UpdateProject", b"DeleteProject"),
            (b"10.1.2.3", b"10.1.2.4"),
            (b'"displayName": "nach"', b'"displayName": "Nach"'),
            (b'"sequence":', b'"sequence":1'),
            (b'"tenant_uid":"acme"', b'"tenant_uid":"bolt"'),
            (b'"status_id":1', b'"status_id":2'),
        ]
    )
    lines[place] = lines[place].replace(old, new, 1)
    return Evidence(lines, scene.genuine.anchor)


# --- lines ------------------------------------------------------------------------------------------------------------


def deleted(chance: random.Random, scene: Scene) -> Evidence:
    """One event is gone, or several that follow on each other, with at least one behind them."""
    lines = list(scene.genuine.lines)
    first = chance.randrange(len(lines) - 10)
    del lines[first : first + chance.randint(1, 9)]
    return Evidence(lines, scene.genuine.anchor)


def cut_at_the_end(chance: random.Random, scene: Scene) -> Evidence:
    """The trail ends before its last checkpoint."""
    return Evidence(scene.genuine.lines[: chance.randrange(SIGNED[-1])], scene.genuine.anchor)


def cut_at_the_beginning(chance: random.Random, scene: Scene) -> Evidence:
    """The trail begins later, also exactly behind a checkpoint."""
    first = chance.choice([chance.randrange(1, EVENTS), *SIGNED])
    return Evidence(scene.genuine.lines[first:], scene.genuine.anchor)


def reordered(chance: random.Random, scene: Scene) -> Evidence:
    """Two events have changed places, or one stands elsewhere."""
    lines = list(scene.genuine.lines)
    one, other = chance.sample(range(len(lines)), 2)
    if chance.random() < 0.5:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines.insert(other, lines.pop(one))
    return Evidence(lines, scene.genuine.anchor)


def repeated(chance: random.Random, scene: Scene) -> Evidence:
    """An event is there twice."""
    lines = list(scene.genuine.lines)
    lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
    return Evidence(lines, scene.genuine.anchor)


def foreign_inserted(chance: random.Random, scene: Scene) -> Evidence:
    """An event of another tenant is among them, or instead of one of them."""
    lines = list(scene.genuine.lines)
    place = chance.randrange(len(lines))
    lines[place : place + chance.randint(0, 1)] = [scene.foreign[place]]
    return Evidence(lines, scene.genuine.anchor)


def foreign_trail(chance: random.Random, scene: Scene) -> Evidence:
    """The whole trail is another tenant's."""
    return Evidence(list(scene.foreign[: chance.randint(1, EVENTS)]), scene.genuine.anchor)


# --- chains -----------------------------------------------------------------------------------------------------------


def forged_and_linked(chance: random.Random, scene: Scene) -> Evidence:
    """One event is changed with its hash made anew; those behind it are left alone."""
    place = chance.randrange(EVENTS - 1)
    before = scene.trail[place - 1] if place else None
    (forged,) = links("acme", 1, actor="al", after=before)
    lines = list(scene.genuine.lines)
    lines[place] = export_line(forged)
    return Evidence(lines, scene.genuine.anchor)


def rewritten(chance: random.Random, scene: Scene) -> Evidence:
    """From some event before the last checkpoint on, or from the first, everything is linked anew."""
    kept = chance.choice([0, chance.randrange(SIGNED[-1])])
    before = scene.trail[kept - 1] if kept else None
    anew = [export_line(link) for link in links("acme", EVENTS - kept, actor="al", after=before)]
    return Evidence(scene.genuine.lines[:kept] + anew, scene.genuine.anchor)


def inserted_and_linked(chance: random.Random, scene: Scene) -> Evidence:
    """There is one event more before the last checkpoint, and everything behind it is linked anew."""
    kept = chance.randrange(SIGNED[-1])
    before = scene.trail[kept - 1] if kept else None
    forged = list(links("acme", 1, actor="al", after=before))
    anew = forged + list(links("acme", EVENTS - kept, after=forged[0]))
    return Evidence(scene.genuine.lines[:kept] + [export_line(link) for link in anew], scene.genuine.anchor)


def removed_and_linked(chance: random.Random, scene: Scene) -> Evidence:
    """There is one event less before the last checkpoint, and everything behind it is linked anew."""
    kept = chance.randrange(SIGNED[-1])
    before = scene.trail[kept - 1] if kept else None
    anew = links("acme", EVENTS - kept - 1, after=before, left_out=1)
    return Evidence(scene.genuine.lines[:kept] + [export_line(link) for link in anew], scene.genuine.anchor)


def rewritten_and_signed(chance: random.Random, scene: Scene) -> Evidence:
    """Everything is made anew, the anchor too, with a key of the forger's own."""
    trail = list(links("acme", EVENTS, actor="al"))
    at = sorted(chance.sample(range(1, EVENTS), 3))
    return Evidence([export_line(link) for link in trail], anchor_of("acme", trail, at, scene.forger))


# --- the anchor -------------------------------------------------------------------------------------------------------


def anchor_byte_changed(chance: random.Random, scene: Scene) -> Evidence:
    """Any byte of a checkpoint becomes any other, but for the end of its line."""
    anchor = list(scene.genuine.anchor)
    place = chance.randrange(len(anchor))
    anchor[place] = _flipped(chance, anchor[place][:-1]) + b"\n"
    return Evidence(scene.genuine.lines, anchor)


def checkpoint_removed(chance: random.Random, scene: Scene) -> Evidence:
    """A checkpoint before the last one is gone."""
    anchor = list(scene.genuine.anchor)
    del anchor[chance.randrange(len(anchor) - 1)]
    return Evidence(scene.genuine.lines, anchor)


def checkpoints_reordered(chance: random.Random, scene: Scene) -> Evidence:
    """Two checkpoints have changed places."""
    anchor = list(scene.genuine.anchor)
    one, other = chance.sample(range(len(anchor)), 2)
    anchor[one], anchor[other] = anchor[other], anchor[one]
    return Evidence(scene.genuine.lines, anchor)


def checkpoint_of_a_forger(chance: random.Random, scene: Scene) -> Evidence:
    """A checkpoint says the same, signed by a key of the forger's own."""
    anchor = list(scene.genuine.anchor)
    place = chance.randrange(len(anchor))
    anchor[place] = anchor_of("acme", scene.trail, SIGNED, scene.forger)[place]
    return Evidence(scene.genuine.lines, anchor)


def foreign_anchor(chance: random.Random, scene: Scene) -> Evidence:
    """The anchor is of another tenant, whose events have the same numbers."""
    trail = list(links("bolt", EVENTS))
    return Evidence(scene.genuine.lines, anchor_of("bolt", trail, [chance.randint(1, EVENTS)], scene.key))


def no_anchor(chance: random.Random, scene: Scene) -> Evidence:
    """There is no checkpoint at all."""
    return Evidence(scene.genuine.lines[: chance.randint(0, EVENTS)], [])


TAMPERS: tuple[Tamper, ...] = (
    byte_changed,
    byte_removed,
    word_changed,
    deleted,
    cut_at_the_end,
    cut_at_the_beginning,
    reordered,
    repeated,
    foreign_inserted,
    foreign_trail,
    forged_and_linked,
    rewritten,
    inserted_and_linked,
    removed_and_linked,
    rewritten_and_signed,
    anchor_byte_changed,
    checkpoint_removed,
    checkpoints_reordered,
    checkpoint_of_a_forger,
    foreign_anchor,
    no_anchor,
)


def unfound(count: int, *, seed: int) -> list[str]:
    """Tamper `count` times, each way in turn; return those that were not found, with what makes them again."""
    stage, missed = scene(), []
    for number in range(count):
        tamper = TAMPERS[number % len(TAMPERS)]
        evidence = tamper(random.Random(f"{seed}/{number}"), stage)
        if evidence == stage.genuine:
            raise AssertionError(f"{tamper.__name__} has changed nothing")
        if not verify(evidence, stage.key).findings:
            missed.append(f"{tamper.__name__} seed={seed} number={number}")
    return missed
