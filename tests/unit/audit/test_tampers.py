"""Exports under `tollhouse audit verify`: what is genuine passes, whatever was tampered with does not."""

import random

import pytest
from tollhouse_admin.audit_proofs import Part, Report, verified_checkpoints, verify_trail

from tests.drivers.audit import anchor_of, export_line, key_set, links
from tests.drivers.audit_tampers import EVENTS, SIGNED, TAMPERS, Evidence, Tamper, scene, unfound, verify
from tests.drivers.receipts import KeyInMemory


def test_a_genuine_trail_has_no_findings() -> None:
    """Its end is behind the last checkpoint, which the report says."""
    stage = scene()

    report = verify(stage.genuine, stage.key)

    assert report.findings == []
    assert (report.tenant, report.events, report.last_sequence) == ("acme", EVENTS, EVENTS)
    assert (report.checkpoints, report.signed_sequence) == (len(SIGNED), SIGNED[-1])


def test_a_trail_without_opened_personal_data_is_as_genuine() -> None:
    """Its key may be destroyed."""
    stage = scene()
    erased = [export_line(link, opened=False) for link in stage.trail]

    assert verify(Evidence(erased, stage.genuine.anchor), stage.key).findings == []


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda tamper: tamper.__name__)
def test_each_way_of_tampering_is_found(tamper: Tamper) -> None:
    """Five times each, at random places."""
    stage = scene()

    for seed in range(5):
        assert verify(tamper(random.Random(seed), stage), stage.key).findings, seed


def test_of_a_hundred_random_tampers_all_are_found() -> None:
    """A thousand are in `make faults ARGS=audit`."""
    assert unfound(100, seed=7) == []


def test_a_trail_may_begin_where_retention_has_cut_it() -> None:
    """The newest checkpoint names the beginning, and one before it vouches for the event there; no later."""
    key, trail = KeyInMemory(), list(links("acme", EVENTS))
    anchor = anchor_of("acme", trail, [7, 20, 33, 50], key, first_sequence=21)
    lines = [export_line(link) for link in trail]

    assert verify(Evidence(lines[20:], anchor), key).findings == []
    assert verify(Evidence(lines[7:], anchor), key).findings == []
    assert verify(Evidence(lines, anchor), key).findings == []
    assert verify(Evidence(lines[21:], anchor), key).findings
    assert verify(Evidence(lines[33:], anchor), key).findings


def test_a_part_is_verified_as_the_part_that_it_is_said_to_be() -> None:
    """From one event to another, and no others."""
    stage = scene()

    def findings(part: Part) -> list[str]:
        report = Report()
        checkpoints = verified_checkpoints(stage.genuine.anchor, key_set(stage.key), report)
        for _ in verify_trail(stage.genuine.lines[9:40], checkpoints, report, part=part):
            pass
        return [finding.place for finding in report.findings]

    assert findings(Part(first_sequence=10, last_sequence=40)) == []
    assert findings(Part(first_sequence=10)) == ["the end"]
    assert findings(Part(last_sequence=40)) == ["the beginning"]
    assert findings(Part(first_sequence=9, last_sequence=41)) == ["the beginning", "the end"]


def test_keys_that_were_rotated_verify_old_and_new_checkpoints() -> None:
    """Each by the version that has signed it."""
    key, trail = KeyInMemory(), list(links("acme", 10))
    first = anchor_of("acme", trail, [5], key)
    key.rotate()
    both = first + anchor_of("acme", trail, [5, 10], key)[1:]

    assert verify(Evidence([export_line(link) for link in trail], both), key).findings == []
