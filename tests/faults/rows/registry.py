"""The rows of the fault matrix: each a step that brings a task into a phase and strikes there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.world import World

Step = Callable[..., None]


@dataclass(frozen=True)
class Row:
    """One fault of the matrix."""

    number: int
    #: What is done.
    fault: str
    #: Where in its life the task is: S submitted, Q queued, R running, W final write, A acknowledged.
    phase: str
    step: Step
    #: The kinds of stack it is done to.
    kinds: tuple[str, ...]
    #: Whether it is part of the short run.
    is_quick: bool

    def run(self, world: World) -> None:
        """Do it; raises AssertionError where the stack does not do what it promises."""
        self.step(world)


ROWS: list[Row] = []


def row(
    number: int, fault: str, phase: str, *, embedded: bool = False, quick: bool = False, broker: bool = True
) -> Callable[[Step], Step]:
    """Register a step.

    Args:
        number: Its number in the matrix.
        fault: What is done, as the table shows it.
        phase: See `Row.phase`.
        embedded: Whether it is done to `textgen up` as well.
        quick: Whether it is part of the short run.
        broker: Whether it is done to the stack on RabbitMQ.
    """
    kinds = (("rabbitmq",) if broker else ()) + (("embedded",) if embedded else ())

    def register(step: Step) -> Step:
        ROWS.append(Row(number, fault, phase, step, kinds, quick))
        return step

    return register
