"""Row 45: receivers of webhooks that do not take what they are sent."""

from __future__ import annotations

from typing import Any

from tests.faults.rows.registry import row
from tests.faults.world import World
from tests.processes import wait_until
from tests.receiver import Receiver

#: What receivers do before they take a delivery.
TROUBLES: tuple[Any, ...] = (500, (302, {"Location": "http://127.0.0.1:1/elsewhere"}), "hang", "cut")


@row(45, "a webhook's receiver that answers 500 or 302, hangs or hangs up", "D", embedded=True)
def bad_receivers(world: World) -> None:
    for trouble in TROUBLES:
        _one_bad_receiver(world, trouble)


def _one_bad_receiver(world: World, trouble: Any) -> None:
    with Receiver(trouble, trouble) as receiver:
        task = world.accept(webhook={"url": receiver.url, "events": ["task.completed"]})
        with world.fault():
            world.settled(task, "COMPLETED")
            receiver.wait_for(1)
            world.in_phase(task, "COMPLETED")
            # nobody's generation waits for it
            world.settled(world.accept(), "COMPLETED", within_s=20)
        receiver.wait_for(3, 60)
        tries = receiver.received[:3]
        for one in tries:
            key = one.headers["webhook-id"]
            world.history.write("webhook", at=one.at, id=task.id, webhook_id=key, event="task.completed")
        assert len({one.headers["webhook-id"] for one in tries}) == 1
        assert len({one.body for one in tries}) == 1
        wait_until(lambda: not _due(world, task.id), 20, "nothing is left to be sent")


def _due(world: World, task_id: str) -> list[str]:
    return [name for name in world.store.zrange("webhooks:due", 0, -1) if task_id in str(name)]
