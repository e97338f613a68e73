"""That the stack keeps its bounds: times to live, attempts, what its processes hold, and its recovery."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator

from tests.faults.checks.facts import Facts
from tests.faults.history import Rate, Resources, Run

#: Share of the tasks offered that must end again, and seconds in which it must, once a fault is over.
RECOVERED_SHARE, RECOVERY_S = 0.9, 30.0
#: Attempts that a task may come to, for each failure allowed: those that a worker hands back at its
#: stop, or that a wiped store forgot, count as no failure.
ATTEMPTS_PER_FAILURE = 2
#: What may be held in the last quarter of a run, in terms of its first quarter (medians).
GROWTH = 1.5
#: Below these, growth means nothing: a process with its children while its caches and pools fill, and
#: the clients of a whole stack, of which each process may open a bounded pool.
FLOORS = {"rss_mb": 400.0, "fds": 150.0, "redis_clients": 150.0, "connections": 60.0, "channels": 150.0}
#: Samples below which no trend is looked for.
SAMPLES = 8
#: What PTTL answers for a key that never expires.
NO_TTL = -1


def every_key_expires(facts: Facts) -> Iterator[str]:
    """I6."""
    for scan in facts.ttls:
        for name, left_ms in scan.keys.items():
            if left_ms == NO_TTL:
                yield f"{name} never expires, seen at {scan.at:.3f}"
            elif left_ms > facts.meta.ttl_s * 1000:
                yield f"{name} had {left_ms} ms to live at {scan.at:.3f}, {facts.meta.ttl_s:g} s are allowed"


def no_secret_is_seen(facts: Facts) -> Iterator[str]:
    """I12."""
    for leak in facts.leaks:
        yield f"the canary was found in {leak.where} at {leak.at:.3f}"


def it_recovers_by_itself(facts: Facts) -> Iterator[str]:
    """I13. Of several looks after one fault, the last one in time counts."""
    begins = sorted(begin for begin, _ in facts.troubles)
    looks: dict[tuple[int | None, int], list[Rate]] = defaultdict(list)
    for rate in facts.rates:
        looks[rate.row, bisect_right(begins, rate.at)].append(rate)
    for (row, _), rates in looks.items():
        rates.sort(key=lambda rate: rate.since_heal_s)
        in_time = [rate for rate in rates if rate.since_heal_s <= RECOVERY_S]
        last = in_time[-1] if in_time else rates[0]
        if not in_time:
            yield f"row {row}: it took {last.since_heal_s:.1f} s to recover, until {last.at:.3f}"
        elif last.per_s < RECOVERED_SHARE * last.baseline_per_s:
            share = f"{last.per_s:.1f} of {last.baseline_per_s:.1f} tasks/s"
            yield f"row {row}: {share} ended {last.since_heal_s:.1f} s after the fault, at {last.at:.3f}"


def attempts_are_bounded(facts: Facts) -> Iterator[str]:
    """I14."""
    most = facts.meta.max_attempts + 1
    for task_id, reads in facts.reads.items():
        failures = max((read.record.failures for read in reads if read.record), default=0)
        if failures > most:
            yield f"{task_id} had {failures} failures, {most} are allowed"
    begun: dict[tuple[str, int], Run] = {}
    for run in facts.runs:
        if run.step != "begin":
            continue
        before = begun.get((run.id, run.attempt))
        if before and not facts.was_wiped(before.at, run.at):
            yield f"attempt {run.attempt} at {run.id} ({run.op}) began at {before.at:.3f} and {run.at:.3f}"
        begun[run.id, run.attempt] = run
        if run.attempt > ATTEMPTS_PER_FAILURE * most:
            yield f"{run.id} ({run.op}) came to attempt {run.attempt} at {run.at:.3f}"


def nothing_grows_without_bound(facts: Facts) -> Iterator[str]:
    """I15."""
    series: dict[str, list[Resources]] = defaultdict(list)
    for sample in facts.resources:
        series[sample.process].append(sample)
    for process, samples in series.items():
        for name, floor in FLOORS.items():
            held = [getattr(sample, name) for sample in samples if getattr(sample, name) is not None]
            if len(held) < SAMPLES:
                continue
            quarter = len(held) // 4
            first, last = statistics.median(held[:quarter]), statistics.median(held[-quarter:])
            if last > max(floor, GROWTH * first):
                yield f"{name} of {process} grew from {first:g} to {last:g}, until {samples[-1].at:.3f}"
