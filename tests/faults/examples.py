"""What happens under faults and breaks nothing, and what breaks each invariant.

An example that is no whole history is put into a plain good one.
"""

from __future__ import annotations

from tests.faults.histories import (
    DEAD,
    START,
    fault,
    final,
    rate,
    read,
    record,
    refused,
    run,
    samples,
    store,
    submit,
    ttl,
    unanswered,
    webhook,
    without,
)
from tests.faults.history import (
    Cancel,
    Entry,
    Final,
    Leak,
    Letter,
)

NOISE: dict[str, list[Entry]] = {
    "a refusal": [refused("op2"), submit("op3", status=422, id=None)],
    "a limit": [submit("op2", status=429, id=None, retry_after=True)],
    "no answer from a killed process": [unanswered("op2", took=20.0, killed=True)],
    "a task that was made by a submit without an answer": [
        unanswered("op2", killed=True),
        run(op="op2"),
        run("end", 1.9, "op2"),
    ],
    "a refused request without an answer before": [
        unanswered("op2", killed=True),
        refused("op2", 2.0),
        run(op="op2"),
    ],
    "a conflict of two with one key": [submit("op2", key="k", status=409, id=None, retry_after=True)],
    "one key of two owners": [
        submit(key="k"),
        submit("op2", key="k", owner="bob"),
        final({"id-op1": record(), "id-op2": record(op="op2", owner="bob")}),
    ],
    "a read without an answer, or of a server in trouble": [
        read(None, status=None),
        read(None, status=503),
        read(None, owner="bob", status=503),
        read(None, owner="bob"),
    ],
    "a read that was asked before and answered after the submit": [read(None, 1.05)],
    "a late answer to an early read": [read(record(), 3.0), read(record("PROCESSING"), 1.5, took=8.0)],
    "a cancel": [Cancel(START + 1.2, START + 1.3, "id-op1", 409)],
    "a key that vanished during the scan": [ttl(-2), ttl(0), ttl(60_000)],
    "a message that was no task's": [final(dead=[Letter(None, "not JSON")], queues={"lane.dead": 1})],
    "a task that came past its attempts": [final({"id-op1": DEAD}, dead=[Letter("id-op1", "worker_lost")])],
    "a task past its deadline": [final({"id-op1": record("FAILED", error_type="deadline")})],
    "an attempt that ran again after its text was complete": [
        run(at=2.2, attempt=2),
        run("end", 2.4, attempt=2),
    ],
    "two events": [webhook(), webhook("w2", "started")],
    "a rate that takes some seconds": [rate(4.0, 0.0, 18.0), rate(14.0, 3.7, 28.0), rate(31.0, 0.0, 45.0)],
    "a long fault": [
        fault("begin", 0.0),
        fault("end", 70.0),
        final({"id-op1": record(ended=75.0)}),
    ],
    "a cache that fills": samples(
        rss_mb=[90.0 + 15 * n for n in range(20)], fds=[40.0 + n for n in range(20)]
    ),
    "few samples": samples(rss_mb=[500.0, 1000.0, 2000.0, 3000.0]),
    "one outlier": samples(rss_mb=[90.0] * 19 + [2000.0]),
    "a dead letter that the broker gave back": [
        final({"id-op1": record("FAILED", error_type="dead_letter")}, dead=[Letter("id-op1", "rejected")])
    ],
    "a dead letter of the last attempt allowed": [
        final({"id-op1": record("FAILED", failures=3, error_type="X")}, dead=[Letter("id-op1", "X")])
    ],
    "one failure above the limit, and attempts that were handed back": [
        read(record("PROCESSING", failures=4), 1.5),
        run(attempt=8),
        final({"id-op1": record(failures=4)}),
    ],
    "a task that was complete, and never read, when it was wiped": [
        submit("op2"),
        run("end", 1.9, "op2"),
        store("emptied", 5.0),
    ],
    "a task that was cancelled, and never read, when it was wiped": [
        submit("op2"),
        Cancel(START + 1.2, START + 1.3, "id-op2", 200),
        store("emptied", 5.0),
    ],
    "two losses of all": [submit("op2"), store("lost_all", 0.5), store("lost_all", 5.0)],
    "a record that was wiped after its end": [store("emptied", 50.0), read(None, 55.0), final({})],
    "a key that a wiped store forgot": [
        submit(key="k"),
        store("emptied", 5.0),
        submit("op1", 6.0, key="k", id="id-2"),
        run("end", 7.0, id="id-2"),
        final({"id-op1": record(), "id-2": record()}),
    ],
    "an attempt that a wiped store forgot": [store("emptied", 5.0), run(at=6.0)],
    "a refusal that a wiped store forgot": [refused("op2"), store("emptied", 5.0), run(op="op2", at=6.0)],
    "a task that ran once more on a wiped store": [
        read(record(), 3.0),
        store("emptied", 5.0),
        read(record("PENDING", 0), 6.0),
        read(record(ended=8.0), 9.0),
        final({"id-op1": record(ended=8.0)}),
    ],
}
BAD: dict[str, list[tuple[str, list[Entry]]]] = {
    "I1": [
        ("never ended", [final({"id-op1": record("PENDING")})]),
        ("nowhere", [*without(Final), final({})]),
        ("ended twice", [read(record("FAILED"), 2.5)]),
        ("ended too late", [final({"id-op1": record(ended=62.0)})]),
        (
            "ended too late after a fault",
            [fault("begin", 0.0), fault("end", 5.0), final({"id-op1": record(ended=66.0)})],
        ),
        ("a wiped store forgot a queued task", [submit("op2"), store("emptied", 5.0)]),
        ("a wiped store forgot a running task", [submit("op2"), run(op="op2"), store("emptied", 5.0)]),
        (
            "a wiped store forgot a task that was not cancelled",
            [submit("op2"), Cancel(START + 1.2, START + 1.3, "id-op2", 503), store("emptied", 5.0)],
        ),
        ("cancelled and gone", [submit("op2"), Cancel(START + 1.2, START + 1.3, "id-op2", 200)]),
    ],
    "I2": [
        ("ended and went on", [read(record(), 2.0), read(record("PROCESSING"), 3.0)]),
        ("went back in one attempt", [read(record("PENDING"), 1.5), read(record("PROCESSING"), 1.7)]),
        ("went back to an attempt", [read(record("PROCESSING", 2), 1.5), read(record("PROCESSING"), 1.7)]),
        ("forgot a failure", [read(record("PROCESSING", failures=1), 1.5), read(record("PROCESSING"), 1.7)]),
        ("ended otherwise", [read(record("CANCELLED"), 2.0)]),
        ("at the end only", [read(record(), 2.0), final({"id-op1": record("PROCESSING")})]),
    ],
    "I3": [
        ("another text", [read(record(result_sha256="bb"))]),
        ("a later write", [read(record(ended=1.8))]),
        ("another attempt's", [read(record(attempt=2))]),
        ("two webhook ids", [webhook(), webhook("w2")]),
    ],
    "I4": [
        ("lost", [submit("op2")]),
        ("left behind", [final({"id-op1": record("PROCESSING")})]),
        ("lost, though it ran and nothing was wiped", [submit("op2"), run("end", op="op2")]),
        ("lost after the servers lost all", [store("lost_all", 0.5), submit("op2")]),
        ("nobody looked", without(Final)),
    ],
    "I5": [
        ("404 at once", [read(None, 1.2)]),
        ("404 in the end", [read(record(), 2.0), read(None, 30.0)]),
        ("404 before the wipe", [read(None, 3.0), store("emptied", 5.0)]),
    ],
    "I6": [("for ever", [ttl(-1)]), ("too long", [ttl(60_001)])],
    "I7": [
        ("a message is left", [final(queues={"lane": 2})]),
        ("a dead letter completed", [final(dead=[Letter("id-op1", "delivery_limit")])]),
        ("a dead letter still runs", [final({"id-op1": record("PROCESSING")}, dead=[Letter("id-op1", "?")])]),
        (
            "a dead letter that was past its deadline",
            [final({"id-op1": record("FAILED", error_type="deadline")}, dead=[Letter("id-op1", "?")])],
        ),
        ("given up and no dead letter", [final({"id-op1": DEAD})]),
        ("given up after a wipe and no dead letter", [store("emptied", 1.5), final({"id-op1": DEAD})]),
    ],
    "I8": [
        ("was seen", [refused("op2", visible=True)]),
        ("an error of the client's was seen", [submit("op2", status=422, id=None, visible=True)]),
        ("ran", [refused("op2"), run(op="op2")]),
        ("its ghost ran beside what was accepted later", [refused("op1", 0.5), run(id="ghost")]),
        (
            "its ghost ran beside what got no answer",
            [refused("op2"), unanswered("op2", killed=True), run(op="op2"), run(op="op2", id="ghost")],
        ),
        ("is a record", [refused("op2"), final({"id-op1": record(), "ghost": record(op="op2")})]),
        (
            "ran before the wipe and after it",
            [refused("op2"), run(op="op2"), store("emptied", 5.0), run(at=6.0, op="op2", id="ghost")],
        ),
        ("ran before the wipe", [refused("op2"), run(op="op2"), store("emptied", 5.0)]),
    ],
    "I9": [
        ("no answer", [unanswered("op2")]),
        ("late", [submit(took=10.1)]),
        ("refused late", [refused("op2", took=12.0)]),
        ("no Retry-After", [submit("op2", status=503, id=None)]),
        ("a limit without Retry-After", [submit("op2", status=429, id=None)]),
        ("a defect", [submit("op2", status=500, id=None)]),
        ("a redirect", [submit("op2", status=302, id=None)]),
    ],
    "I10": [
        ("two ids", [submit(key="k"), submit("op2", key="k")]),
        ("ran twice", [submit(key="k"), run("end", id="ghost")]),
        (
            "ran twice, never answered",
            [unanswered("op2", key="k", killed=True), run("end", op="op2"), run("end", op="op2", id="ghost")],
        ),
        ("two ids after the wipe", [store("emptied", 0.5), submit(key="k"), submit("op2", key="k")]),
    ],
    "I11": [
        ("shown", [read(record(), owner="bob")]),
        ("told that it exists", [read(None, owner="bob", status=403)]),
        ("shown, and nobody knows the submit", [read(record(), owner="bob", id="other", owner_of="cy")]),
    ],
    "I12": [("in a log", [Leak(START + 9, "worker.log")])],
    "I13": [
        ("slow", [rate(5.0, 3.5)]),
        ("slow again at the end", [rate(5.0, 4.0, 20.0), rate(30.0, 3.5, 45.0)]),
        ("too late", [rate(31.0, 4.0)]),
        (
            "once of two times",
            [
                fault("begin", 10.0),
                rate(5.0, 0.0),
                fault("end", 21.0),
                fault("begin", 30.0),
                rate(5.0, 4.0, 40.0),
            ],
        ),
    ],
    "I14": [
        ("failures", [read(record("PROCESSING", 5, failures=5), 1.5)]),
        ("one attempt twice", [run(at=1.6, pid=8)]),
        ("one attempt twice after the wipe", [store("emptied", 1.0), run(at=1.6)]),
        ("attempts without failures", [run(attempt=9)]),
    ],
    "I15": [
        (name, samples(**{name: [first + step * n for n in range(40)]}))
        for name, first, step in (
            ("rss_mb", 100.0, 20.0),
            ("fds", 40.0, 10.0),
            ("redis_clients", 10.0, 10.0),
            ("connections", 10.0, 5.0),
            ("channels", 10.0, 10.0),
        )
    ],
}
