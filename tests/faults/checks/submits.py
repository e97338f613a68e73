"""That a submit is answered in time, once per key, and that what was refused has no effect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.faults.checks.facts import ACCEPTED, Facts
from tests.faults.history import Submit


def what_was_refused_has_no_effect(facts: Facts) -> Iterator[str]:
    """I8. Where a request was repeated, each submit that got no answer may have made one task."""
    sent, found = _by_op(facts), _tasks_by_op(facts)
    for submit in facts.submits:
        if _is_refused(submit) and submit.visible:
            yield f"{submit.op} was refused with {submit.status} at {submit.until:.3f} and was seen"
    for op, submits in sent.items():
        first = next((submit for submit in submits if _is_refused(submit)), None)
        if first is None:
            continue
        known = {submit.id for submit in submits if submit.status in ACCEPTED}
        # a wiped store has forgotten what it refused
        ghosts = [i for i, at in found[op].items() if i not in known and not facts.was_wiped(first.at, at)]
        if len(ghosts) > sum(submit.status is None for submit in submits):
            ids = ", ".join(sorted(ghosts))
            yield f"{op} was refused with {first.status} at {first.until:.3f} and became {ids}"


def _is_refused(submit: Submit) -> bool:
    return submit.status is not None and submit.status >= 400


def _by_op(facts: Facts) -> dict[str, list[Submit]]:
    sent: dict[str, list[Submit]] = defaultdict(list)
    for submit in facts.submits:
        sent[submit.op].append(submit)
    return sent


def _tasks_by_op(facts: Facts) -> dict[str, dict[str, float]]:
    """Op → the ids under which it ran or was left as a record → when that was first seen."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for run in facts.runs:
        if run.op:
            found[run.op].setdefault(run.id, run.at)
    for task_id, record in facts.records.items():
        if record.op and facts.final:
            found[record.op].setdefault(task_id, facts.final.at)
    return found


def every_submit_is_answered_in_time(facts: Facts) -> Iterator[str]:
    """I9."""
    for submit in facts.submits:
        what = _unanswered(submit, facts.meta.answer_bound_s)
        if what:
            yield f"{submit.op}, sent at {submit.at:.3f}, {what}"


def _unanswered(submit: Submit, bound_s: float) -> str | None:
    """What is wrong with the answer to a submit."""
    took, status = submit.until - submit.at, submit.status
    if submit.killed:
        return None
    if status is None:
        return f"got no answer in {took:.1f} s" + (f" but {submit.failure}" if submit.failure else "")
    if took > bound_s:
        return f"was answered {status} after {took:.1f} s"
    if status in (429, 503) and not submit.retry_after:
        return f"was answered {status} without Retry-After"
    if status not in ACCEPTED and status != 503 and not 400 <= status < 500:
        return f"was answered {status}"
    return None


def a_key_is_one_task(facts: Facts) -> Iterator[str]:
    """I10."""
    sent: dict[tuple[str, str], list[Submit]] = defaultdict(list)
    for submit in facts.submits:
        if submit.key:
            sent[submit.owner, submit.key].append(submit)
    ended: dict[str, dict[str, float]] = defaultdict(dict)
    for run in facts.runs:
        if run.op and run.step == "end":
            ended[run.op].setdefault(run.id, run.at)
    for (owner, key), submits in sent.items():
        ids = {submit.id for submit in submits if submit.status in ACCEPTED and submit.id}
        ran = {i: at for op in {submit.op for submit in submits} for i, at in ended.get(op, {}).items()}
        since = min(submit.at for submit in submits)
        until = max([*ran.values(), *(submit.until for submit in submits)])
        # the store that was wiped knew the key
        if max(len(ids), len(ran)) > 1 and not facts.was_wiped(since, until):
            named = ", ".join(sorted(ids | ran.keys()))
            yield f"key {key} of {owner} led to {len(ids)} tasks, {len(ran)} ran to their end: {named}"
