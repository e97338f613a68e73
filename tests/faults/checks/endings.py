"""That every accepted task ends, once: a total-queue checker.

What was acknowledged, less what was seen to end, is lost, and must be nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from tests.faults.checks.facts import TERMINAL, Facts
from tests.faults.history import Record, Submit

#: Error types of tasks that came past their attempts: their messages are kept among the dead letters.
EXHAUSTED = frozenset({"worker_lost", "TransientEngineError"})
#: Error types of tasks whose message came back from the broker, or was none, and is kept as well.
REJECTED = frozenset({"dead_letter", "invalid_message"})
#: Lost tasks that are named; the others are counted.
NAMED = 5


def every_accepted_task_ends_once(facts: Facts) -> Iterator[str]:
    """I1."""
    unseen = _ended_unseen(facts)
    for task_id, submit in facts.accepted.items():
        name, endings = (
            f"{task_id} ({submit.op}, accepted at {submit.until:.3f})",
            list(facts.endings(task_id)),
        )
        for ended in endings:
            statuses = sorted({record.status for record in ended})
            if len(statuses) > 1:
                yield f"{name} ended as {' and as '.join(statuses)}"
        if endings and not facts.was_wiped(submit.at):
            late_s = (
                _seconds(endings[0][0].updated_at) - _last_trouble(facts, submit) - facts.meta.end_bound_s
            )
            if late_s > 0:
                yield f"{name} ended {late_s:.1f} s too late"
        left = facts.records.get(task_id)
        is_open = left.status not in TERMINAL if left else not endings and task_id not in unseen
        if facts.final and is_open and not facts.is_exempt(submit):
            yield f"{name} did not end, it is {left.status if left else 'nowhere'}"


def nothing_accepted_is_lost(facts: Facts) -> Iterator[str]:
    """I4."""
    if facts.final is None:
        yield f"{len(facts.accepted)} tasks were accepted, and nobody looked what became of them"
        return
    ended = {task_id for task_id in facts.accepted if any(facts.endings(task_id))} | _ended_unseen(facts)
    lost = [i for i, submit in facts.accepted.items() if i not in ended and not facts.is_exempt(submit)]
    if lost:
        named = ", ".join(f"{i} ({facts.accepted[i].op})" for i in lost[:NAMED])
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        counts = f"{len(facts.submits)} attempts, {len(facts.accepted)} acknowledged, {len(lost)} lost"
        yield f"{counts}: {named}{more}"


def nothing_waits_at_the_end(facts: Facts) -> Iterator[str]:
    """I7."""
    if facts.final is None:
        return
    for queue, messages in facts.final.queues.items():
        if messages and not queue.endswith(".dead"):
            yield f"{messages} messages are left in {queue}"
    dead = {letter.id: letter.reason for letter in facts.final.dead if letter.id}
    for task_id, reason in dead.items():
        record = facts.records.get(task_id)
        if record and not _belongs_to_the_dead(record, facts.meta.max_attempts):
            yield f"{task_id} is {record.status} ({record.error_type}) and a dead letter ({reason})"
    for task_id, record in facts.records.items():
        gave_up = record.status == "FAILED" and record.error_type in EXHAUSTED
        if gave_up and task_id not in dead and not facts.was_wiped(_seconds(record.updated_at)):
            yield f"{task_id} ({record.op}) is FAILED ({record.error_type}) and no dead letter"


def _belongs_to_the_dead(record: Record, max_attempts: int) -> bool:
    expected = record.error_type in EXHAUSTED | REJECTED or record.failures >= max_attempts
    return record.status == "FAILED" and expected


def _last_trouble(facts: Facts, submit: Submit) -> float:
    """When the fault was over that was on as the task was accepted; without one, its acceptance."""
    return max((end for begin, end in facts.troubles if begin <= submit.until < end), default=submit.until)


def _ended_unseen(facts: Facts) -> set[str]:
    """Tasks that had ended, as far as engine or canceller know, when their records were lost."""
    ended = {run.id for run in facts.runs if run.step == "end" and facts.was_wiped(run.at)}
    return ended | {c.id for c in facts.cancels if c.status == 200 and facts.was_wiped(c.until)}


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
