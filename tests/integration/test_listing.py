"""Lists of tasks in a real Redis: what they show, what they cost, and that they end up right."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from textgen.errors import InvalidRequest, StoreUnavailable
from textgen.lifecycle import Failure, Record, Status, iso_time, new_task_id, time_ms
from textgen.selection import EVERY, MAX_PAGE, Page, Selection, walk
from textgen.settings import get_settings
from textgen.store import Store, index, keys, listing
from textgen.store.answers import Claimed, Moved, Terms, dump

TERMS = Terms(ttl_ms=60_000, deadline_ms=0)
#: Redis commands that one page may take: sizes of sets, entries and records five times, dropping.
MOST_COMMANDS = 3 + 2 * listing.READS + 1
#: Redis commands that are not counted.
OF_OTHERS = ("info", "time", "ping")
owners = (f"owner-{number}" for number in itertools.count())


@pytest.fixture(scope="module", autouse=True)
def indexed() -> Iterator[None]:
    """Index the metadata key `user`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTGEN_INDEXED_METADATA", "user, n")
        get_settings.cache_clear()
        yield
    get_settings.cache_clear()


@pytest.fixture(scope="module")
def client(redis_server: Any) -> redis.Redis:
    made: redis.Redis = redis.Redis.from_url(
        redis_server.url_of(redis_server.new_database()), decode_responses=True
    )
    return made


@pytest.fixture(scope="module")
def store(client: redis.Redis) -> Store:
    return Store(client, lease_s=8)


@pytest.fixture
def owner() -> str:
    return next(owners)


def submit(store: Store, owner: str, metadata: dict[str, Any] | None = None, **params: Any) -> Record:
    record = Record(new_task_id(), prompt="Hello", owner=owner, metadata=metadata or {}, params=params)
    return store.submit(record, TERMS, 60).record


def claim(store: Store, record: Record, token: str = "t") -> Record:
    control = store.control(record.task_id)
    assert control is not None
    taken = store.claim(record, control.terms, token, "w")
    assert taken.outcome is Claimed.TAKEN
    assert taken.record is not None
    return taken.record


def end(store: Store, record: Record, status: Status = Status.COMPLETED, **changes: Any) -> Record:
    moved = store.move(claim(store, record).but(status=status, **changes), token="t")
    assert moved.outcome is Moved.OK
    assert moved.record is not None
    return moved.record


def listed(store: Store, owner: str, size: int = 3, **wanted: Any) -> list[str]:
    return [record.task_id for record in walk(reader(store, owner, size, **wanted))]


def reader(store: Store, owner: str, size: int, **wanted: Any) -> Callable[[int, str | None], Page]:
    return lambda _, cursor: listing.read_page(store, owner, Selection(**wanted), size, cursor)


def members(client: redis.Redis, owner: str) -> dict[str, list[str]]:
    """What stands in the sets of an owner."""
    names = [name for name in client.scan_iter(f"tasks:{{{owner}}}:*") if not name.endswith(":life")]
    return {name.partition("}:")[2]: client.zrange(name, 0, -1) for name in names}


# What is listed


def test_tasks_are_listed_newest_first_to_their_owner_only(store: Store, owner: str) -> None:
    mine = [submit(store, owner).task_id for _ in range(8)]
    submit(store, next(owners))
    created = {task_id: store.get(task_id).created_at for task_id in mine}
    in_order = sorted(mine, key=lambda one: (created[one], one), reverse=True)
    for size in (1, 2, 3, 8, 100):
        assert listed(store, owner, size) == in_order


def test_the_last_page_says_that_it_is_the_last(store: Store, owner: str) -> None:
    for _ in range(4):
        submit(store, owner)
    first = listing.read_page(store, owner, EVERY, 2)
    second = listing.read_page(store, owner, EVERY, 2, first.next_cursor)
    assert (len(first.records), len(second.records), second.next_cursor) == (2, 2, None)
    assert listing.read_page(store, next(owners), EVERY, 2) == Page([], None)


def test_a_task_is_found_by_what_it_is_and_by_nothing_else(store: Store, owner: str) -> None:
    plain = submit(store, owner).task_id
    asked = submit(store, owner, {"user": "ann"}, engine="mock").task_id
    wrote = end(store, submit(store, owner, {"user": "bob", "n": 7}), engine="mock").task_id
    hidden = submit(store, owner, {"other": "ann", "user": ["ann"], "n": True}).task_id

    assert set(listed(store, owner, engine="mock")) == {asked, wrote}
    assert listed(store, owner, engine="moc") == []
    assert listed(store, owner, metadata={"user": "ann"}) == [asked]
    assert listed(store, owner, metadata={"n": "7"}) == [wrote]
    assert listed(store, owner, metadata={"n": "true"}) == [hidden]
    assert listed(store, owner, metadata={"user": '["ann"]'}) == []
    assert set(listed(store, owner, status=Status.PENDING)) == {plain, asked, hidden}
    assert listed(store, owner, status=Status.PENDING, engine="mock", metadata={"user": "ann"}) == [asked]
    assert listed(store, owner, status=Status.COMPLETED, metadata={"user": "ann"}) == []


def test_created_after_leaves_out_what_came_before_or_then(store: Store, owner: str) -> None:
    early = submit(store, owner)
    then = datetime.fromisoformat(str(early.created_at))
    while (late := submit(store, owner)).created_at == early.created_at:
        store.delete(end(store, late))
    assert listed(store, owner, created_after=then) == [late.task_id]
    assert listed(store, owner, created_after=then - timedelta(milliseconds=1)) == [
        late.task_id,
        early.task_id,
    ]
    assert listed(store, owner, created_after=datetime(9999, 1, 1, tzinfo=UTC)) == []
    assert len(listed(store, owner, created_after=datetime(1, 1, 1, tzinfo=UTC))) == 2


def test_a_task_is_always_in_the_list_of_its_status_and_in_no_other(store: Store, owner: str) -> None:
    def statuses() -> list[Status]:
        return [status for status in Status if listed(store, owner, status=status)]

    record = submit(store, owner)
    assert statuses() == [Status.PENDING]
    for attempt in (1, 2, 3):
        record = claim(store, record, f"t{attempt}")
        assert statuses() == [Status.PROCESSING]
        waiting = record.but(status=Status.PENDING, failures=attempt, error=Failure("x", "y"))
        record = store.move(waiting, token=f"t{attempt}").record or record
        assert statuses() == [Status.PENDING]
    end(store, record, Status.FAILED)
    assert statuses() == [Status.FAILED]


def test_a_task_leaves_the_sets_it_is_not_in_any_more(store: Store, client: redis.Redis, owner: str) -> None:
    ended = end(store, submit(store, owner, {"user": "ann"}), engine="mock")
    there = members(client, owner)
    assert set(there) == {"all", "status:COMPLETED", *(name for name in there if ":" in name)}
    assert not {"status:PENDING", "status:PROCESSING"} & there.keys()
    assert {len(places) for places in there.values()} == {1}
    assert listed(store, owner, status=Status.COMPLETED) == [ended.task_id]


def test_a_refused_submit_leaves_nothing(store: Store, client: redis.Redis, owner: str) -> None:
    record = submit(store, owner, {"user": "ann"}, engine="mock")
    assert store.refuse(record.task_id)
    assert members(client, owner) == {}
    assert client.zscore(keys.waiting("interactive"), f"{record.task_id}.0") is None


def test_a_change_whose_old_places_stayed_behind_shows_the_task_once(
    store: Store, client: redis.Redis, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "_leave", lambda *_: None)  # as if each process died right after a change
    record = submit(store, owner)
    record = store.move(claim(store, record).but(status=Status.PENDING), token="t").record or record
    assert len(members(client, owner)["status:PENDING"]) == 2
    assert listed(store, owner, 1, status=Status.PENDING) == [record.task_id]
    assert listed(store, owner, status=Status.PROCESSING) == []

    end(store, record)
    for status in (Status.PENDING, Status.PROCESSING):
        assert listed(store, owner, status=status) == []
        assert f"status:{status.value}" not in members(client, owner)  # dropped by the reader


def test_a_task_on_one_page_is_not_on_the_next_after_a_further_attempt(store: Store, owner: str) -> None:
    early, record = submit(store, owner), submit(store, owner)
    while early.created_at == record.created_at:
        record = submit(store, owner)

    def attempt() -> None:
        nonlocal record
        waiting = claim(store, record).but(status=Status.PENDING)
        record = store.move(waiting, token="t").record or record

    for _ in range(9):
        attempt()
    wanted = Selection(status=Status.PENDING)
    first = listing.read_page(store, owner, wanted, 1)
    attempt()  # the tenth: its entry sorts below that of the ninth
    second = listing.read_page(store, owner, wanted, 9, first.next_cursor)
    assert first.records[0].task_id == record.task_id
    assert record.task_id not in [one.task_id for one in second.records]
    assert early in second.records


def test_an_entry_of_a_change_under_way_is_not_dropped(store: Store, client: redis.Redis, owner: str) -> None:
    record = submit(store, owner)
    soon = record.but(status=Status.PROCESSING, attempt=1)
    store.send(index.change(soon))
    assert listed(store, owner, status=Status.PROCESSING) == []
    assert members(client, owner)["status:PROCESSING"]
    claim(store, record)
    assert listed(store, owner, status=Status.PROCESSING) == [record.task_id]


def test_a_change_that_is_refused_does_not_show(store: Store, owner: str) -> None:
    record = claim(store, submit(store, owner))
    assert store.move(record.but(status=Status.COMPLETED), token="other").outcome is Moved.FENCED
    assert listed(store, owner, status=Status.COMPLETED) == []
    assert listed(store, owner, status=Status.PROCESSING) == [record.task_id]


def test_a_task_that_redis_lost_is_listed_again_once_it_runs(
    store: Store, client: redis.Redis, owner: str
) -> None:
    record = submit(store, owner, {"user": "ann"})
    control = store.control(record.task_id)
    assert control is not None
    names = client.keys(f"*{record.task_id}*") + client.keys(f"tasks:{{{owner}}}:*")
    client.delete(*names)
    store.claim(record, control.terms, "t", "w")
    assert listed(store, owner, metadata={"user": "ann"}) == [record.task_id]
    assert listed(store, owner, status=Status.PROCESSING) == [record.task_id]


def test_a_foreign_message_that_came_twice_is_listed_once(store: Store, owner: str) -> None:
    now = store.now_ms()
    record = Record(new_task_id(), prompt="x", owner=owner, created_at=iso_time(now))
    terms = Terms(60_000, int(now + 60_000))
    store.claim(record, terms, "t1", "w")
    store.claim(record.but(created_at=iso_time(now + 5)), terms, "t2", "w")
    assert listed(store, owner, 1) == [record.task_id]


def test_a_submit_repeated_later_is_listed_once_where_the_first_stands(
    store: Store, client: redis.Redis, owner: str
) -> None:
    record = Record(new_task_id(), prompt="Hello", owner=owner)
    first = store.submit(record, TERMS, 60).record
    running = claim(store, first)
    while store.now_ms() < time_ms(str(first.created_at)) + 2:
        pass
    assert store.submit(record, TERMS, 60).record == running
    assert [len(places) for places in members(client, owner).values()] == [1, 1]
    assert listed(store, owner, status=Status.PROCESSING) == [record.task_id]
    assert client.zscore(keys.waiting("interactive"), f"{record.task_id}.0") is None


def test_every_set_has_a_time_to_live_and_a_bound(
    store: Store, client: redis.Redis, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTGEN_MAX_TASKS_LISTED", "100")
    get_settings.cache_clear()
    try:
        ids = [end(store, submit(store, owner, {"user": "ann"})).task_id for _ in range(105)]
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()
    names = client.keys(f"tasks:{{{owner}}}:*") + client.keys("tasks:waiting:*") + client.keys("tasks:ends:*")
    assert all(client.ttl(name) > 0 for name in names)
    assert {len(places) for places in members(client, owner).values()} == {100}
    assert set(listed(store, owner, 30)) == set(ids[5:])


def test_what_is_older_than_a_task_can_be_makes_room(store: Store, client: redis.Redis, owner: str) -> None:
    client.zadd(keys.listed(owner, "all"), {f"{1:013d}-{new_task_id()}": 0})
    record = submit(store, owner)
    assert [place[14:] for place in members(client, owner)["all"]] == [record.task_id]


def test_scripts_that_redis_forgot_are_sent_again(store: Store, client: redis.Redis, owner: str) -> None:
    client.script_flush()
    record = submit(store, owner)
    assert listed(store, owner, status=Status.PENDING) == [record.task_id]


@pytest.mark.parametrize("cursor", ["", "x", "!", "AAAA", "é", "MDAwMDAwMDAwMDAwMC1h", "A" * 5000])
def test_what_is_no_cursor_is_refused(store: Store, owner: str, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        listing.read_page(store, owner, EVERY, 3, cursor)


# What a page costs


def fill(client: redis.Redis, owner: str, count: int) -> None:
    """Put finished tasks into the indexes of an owner, and their records."""
    now = listing.ABSENT_MS * 10 + 1_700_000_000_000
    pipe = client.pipeline(transaction=False)
    for i in range(count):
        record = Record(new_task_id(), Status.COMPLETED, owner=owner, created_at=iso_time(now + i // 10))
        place = f"{now + i // 10:013d}-{record.task_id}"
        for name in ("all", "status:COMPLETED"):
            pipe.zadd(keys.listed(owner, name), {place: 0})
        pipe.set(keys.record(record.task_id), dump(record), ex=600)
        if i % 5000 == 4999:
            pipe.execute()
    pipe.execute()


def commands(client: redis.Redis, act: Callable[[], Any]) -> dict[str, int]:
    """How often Redis was called by `act`, by command, but for what others do all the time."""

    def counts() -> dict[str, int]:
        stats = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}

    before = counts()
    act()
    after = counts()
    used = {name: after[name] - before.get(name, 0) for name in after}
    return {name: number for name, number in used.items() if number and name not in OF_OTHERS}


@pytest.fixture(scope="module")
def many(client: redis.Redis, store: Store) -> str:
    """An owner of 100,000 tasks, one of them of user ann."""
    owner = next(owners)
    submit(store, owner, {"user": "ann"})
    fill(client, owner, 100_000)
    return owner


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"status": Status.COMPLETED},
        {"status": Status.FAILED},
        {"metadata": {"user": "ann"}},
        {"metadata": {"user": "ann"}, "status": Status.PENDING},
        {"created_after": datetime(2020, 1, 1, tzinfo=UTC)},
        {"metadata": {"user": "bob"}},
        {"engine": "mock"},
    ],
    ids=str,
)
def test_a_page_costs_the_same_however_many_tasks_there_are(
    store: Store, client: redis.Redis, many: str, owner: str, wanted: dict[str, Any]
) -> None:
    submit(store, owner, {"user": "ann"})
    fill(client, owner, 50)
    pages: list[Page] = []

    def read(whose: str) -> None:
        pages.append(listing.read_page(store, whose, Selection(**wanted), 10))

    of_few, of_many = commands(client, lambda: read(owner)), commands(client, lambda: read(many))
    assert of_few == of_many
    assert sum(of_many.values()) <= 5
    assert "keys" not in of_many
    assert "scan" not in of_many
    few, lots = ([one.metadata for one in page.records] for page in pages)
    assert few == lots


def test_a_page_deep_in_a_long_list_costs_as_much_as_the_first(
    store: Store, client: redis.Redis, many: str
) -> None:
    place = client.zrange(keys.listed(many, "all"), 50_000, 50_000)[0]
    used = commands(client, lambda: listing.read_page(store, many, EVERY, MAX_PAGE, place))
    assert used == {"zrevrangebylex": 1, "mget": 1}


def test_conditions_that_hardly_meet_end_a_page_early(store: Store, client: redis.Redis, many: str) -> None:
    pages: list[Page] = []
    lonely = Selection(status=Status.COMPLETED, engine="mock")
    name = listing.sets_of(many, Selection(engine="mock"))[0]
    client.zunionstore(name, [keys.listed(many, "status:COMPLETED")], aggregate="MIN")  # all of them stale
    client.zremrangebyrank(name, 0, 10)  # and the smaller of the two sets
    used = commands(client, lambda: pages.append(listing.read_page(store, many, lonely, 10)))
    assert (pages[0].records, pages[0].next_cursor is None) == ([], False)
    assert sum(used.values()) <= MOST_COMMANDS
    assert client.zcard(name) <= 99_990 - 4 * listing.READ  # dropped on the way


def test_entries_whose_records_expired_are_dropped_by_whoever_meets_them(
    store: Store, client: redis.Redis, owner: str
) -> None:
    fill(client, owner, 300)
    for record in walk(reader(store, owner, 100)):
        client.delete(keys.record(record.task_id))
    assert listed(store, owner) == []
    assert members(client, owner).get("all") is None


# While tasks are added


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.sampled_from(["read", "submit", "submit", "end", "fail", "start", "retry"]),
        min_size=5,
        max_size=40,
    ),
    size=st.integers(1, 4),
    status=st.sampled_from([None, *Status]),
)
def test_pages_show_each_match_once_while_the_rest_changes(
    store: Store, steps: list[str], size: int, status: Status | None
) -> None:
    """Whatever matched from the first page to the last is shown once; nothing is shown twice."""
    owner = next(owners)
    tasks = {one.task_id: one for one in (submit(store, owner) for _ in range(6))}
    for one in list(tasks.values())[:3]:
        tasks[one.task_id] = end(store, one)
    always = {one.task_id for one in tasks.values() if status in (None, one.status)}
    seen: list[Record] = []
    cursor, is_over = None, False
    for step in [*steps, *["read"] * 60]:
        if step != "read":
            moved = _step(store, owner, step, tasks)
            if moved and status not in (None, moved.status):
                always.discard(moved.task_id)
        elif not is_over:
            page = listing.read_page(store, owner, Selection(status=status), size, cursor)
            seen += page.records
            cursor, is_over = page.next_cursor, page.next_cursor is None
    shown = [record.task_id for record in seen]
    assert len(set(shown)) == len(shown)
    assert always <= set(shown)
    order = [(record.created_at, record.task_id) for record in seen]
    assert order == sorted(order, reverse=True)


def _step(store: Store, owner: str, step: str, tasks: dict[str, Record]) -> Record | None:
    wanted = Status.PROCESSING if step == "retry" else Status.PENDING
    record = next((one for one in tasks.values() if one.status is wanted), None)
    if step == "submit":
        record = submit(store, owner)
    elif record is None:
        return None
    elif step in ("end", "fail"):
        record = end(store, record, Status.COMPLETED if step == "end" else Status.FAILED)
    elif step == "start":
        record = claim(store, record)
    else:
        record = store.move(record.but(status=Status.PENDING), token="t").record
    assert record is not None
    tasks[record.task_id] = record
    return record


def test_readers_see_each_task_once_while_many_submit(store: Store, client: redis.Redis, owner: str) -> None:
    before = [submit(store, owner).task_id for _ in range(60)]
    is_over = threading.Event()

    def add() -> None:
        other = Store(client, lease_s=8)
        while not is_over.wait(0.001):
            end(other, submit(other, owner))

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for size in (1, 7, 20):
            shown = listed(store, owner, size)
            assert len(set(shown)) == len(shown)
            assert [one for one in shown if one in before] == [
                one for one in listed(store, owner, 100) if one in before
            ]
            assert set(before) <= set(shown)
            pending = listed(store, owner, size, status=Status.PENDING)
            assert set(before) <= set(pending)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


# Deleting


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_of_a_deleted_task_only_a_tombstone_stays(
    store: Store, client: redis.Redis, owner: str, status: Status
) -> None:
    record = submit(store, owner, {"user": "ann"}, engine="mock")
    ended = end(store, record, status, result="text", engine="other")
    assert store.delete(ended) == "deleted"

    assert members(client, owner) == {}
    assert client.keys(f"*{record.task_id}*") == [keys.state(record.task_id)]
    assert client.hgetall(keys.state(record.task_id)).keys() == {"status", "rev", "deadline"}
    assert client.ttl(keys.state(record.task_id)) > 0
    assert place_is_gone(client, record)
    assert store.delete(ended) == "absent"
    # a stale duplicate of its message
    claimed = store.claim(record, Terms(1, int(store.now_ms() + 60_000)), "t", "w")
    assert claimed.outcome is Claimed.ENDED
    assert listed(store, owner) == []


def place_is_gone(client: redis.Redis, record: Record) -> bool:
    return not any(record.task_id in member for member in client.zrange(keys.CREATED, 0, -1))


def test_what_waits_or_runs_is_not_deleted(store: Store, owner: str) -> None:
    record = submit(store, owner)
    assert store.delete(record) == "active"
    record = claim(store, record)
    assert store.delete(record) == "active"
    assert store.get(record.task_id) == record
    assert listed(store, owner) == [record.task_id]


def test_a_submit_that_came_too_late_shows_nowhere(store: Store, owner: str) -> None:
    hasty = Store(store.client, lease_s=8, timeout_s=-1)
    with pytest.raises(StoreUnavailable):
        submit(hasty, owner)
    assert listed(store, owner) == []
