"""A Redis client whose concurrent callers share round trips.

A worker with hundreds of attempts calls Redis hundreds of times in the same moment, and each call by itself
costs a write, a read and a change of thread. Here a call goes out at once while few are on their way; those
that come meanwhile leave together, in one pipeline, as soon as one of them is back.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import redis
from redis.client import Pipeline
from redis.connection import Encoder

#: Groups on their way at once. With more, groups stay small; with one, a slow answer holds up all.
AT_ONCE = 2
#: Calls in one group at the most.
GROUP = 100

#: The arguments of `execute_command`, and its options.
Command = tuple[tuple[Any, ...], dict[str, Any]]


class _Call:
    """Commands of one caller, and what has become of them."""

    def __init__(self, commands: list[Command]) -> None:
        self.commands = commands
        self.answers: list[Any] = []
        self.error: BaseException | None = None
        #: What this call's thread is to send along with it. None: another thread sends it.
        self.others: list[_Call] | None = None
        self._gate = threading.Lock()

    def take_error(self) -> BaseException:
        """The error, which is forgotten: its traceback leads here, and to the client."""
        error, self.error = self.error, None
        assert error is not None
        return error

    def close(self) -> None:
        """Have `wait` wait; called before another thread can see the call."""
        self._gate.acquire()

    def open(self) -> None:
        """Let the thread that waits go on."""
        self._gate.release()

    def wait(self) -> None:
        """Wait until the call is answered, or is to be sent."""
        self._gate.acquire()


class AutoPipelining(redis.Redis):
    """A client for many threads or greenlets, which answers each as `redis.Redis` would.

    Commands of one call stay together and in order, but are no transaction. Where Redis cannot be reached or
    does not answer, all calls of the group break off, which may have been carried out or not, and those that
    wait behind it: so none takes longer than two groups may.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._lock = threading.Lock()
        self._line: deque[_Call] = deque()
        self._under_way = 0
        encoder = self.get_encoder()
        self._encode = Encoder(encoder.encoding, "strict", decode_responses=False).encode

    def execute_command(self, *args: Any, **options: Any) -> Any:
        answers = self.together([(args, options)])
        if isinstance(answers[0], redis.RedisError):
            raise answers.pop()  # what kept it here would keep the client with its connections, too
        return answers[0]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return super().pipeline(transaction, shard_hint) if transaction else _Batch(self)

    def together(self, commands: list[Command]) -> list[Any]:
        """Send commands in one round trip, shared with other callers; errors of commands are answers.

        Raises:
            redis.ConnectionError, redis.TimeoutError: Redis could not be reached, or not in time.
            redis.DataError, UnicodeEncodeError: A command cannot be sent.
        """
        call = _Call([self._encoded(*command) for command in commands])
        with self._lock:
            if self._under_way < AT_ONCE:
                self._under_way += 1
                call.others = []
            else:
                call.close()
                self._line.append(call)
        if call.others is None:
            self._wait(call)
        if call.others is not None:
            self._send(call, call.others)
        if call.error is not None:
            raise call.take_error()
        return call.answers

    def _encoded(self, args: tuple[Any, ...], options: dict[str, Any]) -> Command:
        """A command as it is sent: one that cannot be must not take others with it."""
        return (args[0], *map(self._encode, args[1:])), options

    def _wait(self, call: _Call) -> None:
        try:
            call.wait()
        except BaseException:  # the thread is told to end
            with self._lock:
                if call in self._line:
                    self._line.remove(call)
                elif call.others is not None:
                    self._line.extendleft(reversed(call.others))
                    self._next()
            raise

    def _send(self, first: _Call, others: list[_Call]) -> None:
        behind: list[_Call] = []
        try:
            self._exchange([first, *others])
        except redis.RedisError as exc:
            with self._lock:
                behind = list(self._line)
                self._line.clear()
            for call in (first, *others, *behind):
                call.error = exc
        except BaseException:  # the thread is told to end, or a client's bug: nothing to do with the others
            for call in others:
                call.error = redis.ConnectionError("cut off by another call")
            raise
        finally:
            with self._lock:
                self._next()
            for call in (*others, *behind):
                call.open()

    def _next(self) -> None:
        """Have the next group sent by the thread of the first who waits. With the lock held."""
        if not self._line:
            self._under_way -= 1
            return
        first = self._line.popleft()
        first.others = [self._line.popleft() for _ in range(min(GROUP - 1, len(self._line)))]
        first.open()

    def _exchange(self, group: list[_Call]) -> None:
        commands = [command for call in group for command in call.commands]
        if len(commands) == 1:  # a pipeline would take half as long again
            (args, options) = commands[0]
            try:
                group[0].answers = [super().execute_command(*args, **options)]
            except redis.ResponseError as exc:
                group[0].answers = [exc]
            return
        pipe = super().pipeline(transaction=False)
        pipe.command_stack = commands
        answers = iter(pipe.execute(raise_on_error=False))
        for call in group:
            call.answers = [next(answers) for _ in call.commands]


class _Batch(Pipeline):
    """A pipeline that leaves together with what others send."""

    def __init__(self, client: AutoPipelining) -> None:
        super().__init__(
            client.connection_pool, client.response_callbacks, transaction=False, shard_hint=None
        )
        self._client = client

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = list(self.command_stack)
        self.reset()
        answers = self._client.together(commands) if commands else []
        if raise_on_error:
            self.raise_first_error(commands, answers)
        return answers
