"""That what was read of a task is one story: it goes forward, ends once, and is its owner's alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.faults.checks.facts import TERMINAL, Facts
from tests.faults.history import Read, Record

#: Status → how far a task has come in an attempt; PENDING after it waits for the next one.
PHASES = {"PROCESSING": 0, "PENDING": 1, **dict.fromkeys(TERMINAL, 2)}


def a_status_never_goes_back(facts: Facts) -> Iterator[str]:
    """I2."""
    for task_id in facts.reads:
        for reads in facts.seen(task_id):
            for before, after in _ordered(reads):
                yield from (f"{task_id} {what} at {after.at:.3f}" for what in _fall(before, after))


def _ordered(reads: list[Read]) -> Iterator[tuple[Read, Read]]:
    """Each read, with the furthest of those that were answered before it was asked."""
    answered, furthest, waiting = 0, None, sorted(reads, key=lambda read: read.until)
    for read in reads:
        while (
            answered < len(waiting) and waiting[answered].until <= read.at and waiting[answered] is not read
        ):
            if furthest is None or _rank(waiting[answered]) > _rank(furthest):
                furthest = waiting[answered]
            answered += 1
        if furthest is not None:
            yield furthest, read


def _rank(read: Read) -> tuple[bool, int, int]:
    assert read.record is not None
    return read.record.status in TERMINAL, read.record.attempt, PHASES[read.record.status]


def _fall(before: Read, after: Read) -> Iterator[str]:
    old, new = before.record, after.record
    assert old is not None
    assert new is not None
    if old.status in TERMINAL and new.status != old.status:
        yield f"was {old.status} and became {new.status}"
    elif _rank(after) < _rank(before):
        yield f"went back from {_stage(old)} to {_stage(new)}"
    elif new.failures < old.failures:
        yield f"went back from {old.failures} failures to {new.failures}"


def _stage(record: Record) -> str:
    return f"{record.status} in attempt {record.attempt}"


def a_result_is_the_same_for_all(facts: Facts) -> Iterator[str]:
    """I3."""
    for task_id in facts.reads:
        for ended in facts.endings(task_id):
            versions = {(r.result_sha256, r.error_type, r.attempt, r.updated_at) for r in ended}
            if len(versions) > 1:
                at = ", ".join(sorted({record.updated_at for record in ended}))
                story = f"{len(versions)} different endings in {len(ended)} reads"
                yield f"{task_id} showed {story}, updated at {at}"
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for delivery in facts.webhooks:
        ids[delivery.id, delivery.event].add(delivery.webhook_id)
    for (task_id, event), found in ids.items():
        if len(found) > 1:
            yield f"{event} of {task_id} was delivered under the webhook ids {', '.join(sorted(found))}"


def what_was_accepted_can_be_read(facts: Facts) -> Iterator[str]:
    """I5."""
    for task_id, submit in facts.accepted.items():
        for read in facts.reads.get(task_id, ()):
            is_own, is_due = read.owner == submit.owner, read.at >= submit.until
            excused = facts.was_wiped(submit.at, read.until) or read.until > submit.until + facts.meta.ttl_s
            if read.status == 404 and is_own and is_due and not excused:
                yield f"{task_id} ({submit.op}) was 404 at {read.at:.3f}, accepted at {submit.until:.3f}"


def nobody_reads_what_is_anothers(facts: Facts) -> Iterator[str]:
    """I11."""
    for task_id, reads in facts.reads.items():
        submit = facts.accepted.get(task_id)
        for read in reads:
            owner = submit.owner if submit else read.owner_of
            # no answer, no key, a limit or a server in trouble tell nothing of the task
            tells = read.status is not None and read.status not in (401, 404, 429) and read.status < 500
            if owner is not None and read.owner != owner and tells:
                yield f"{read.owner} was answered {read.status} for {task_id} of {owner} at {read.at:.3f}"
