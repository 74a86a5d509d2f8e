"""Runs the processes of `lookalike up`: in order, again when one dies, and never one left behind."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lookalike.local.processes import OwnProcess, last_line, rotate
from streams.errors import ConfigError, DependencyError

EXIT_CONFIG = 3
MAX_FAILED_STARTS = 5
"""Of a child that never got ready: then something is wrong that another try does not cure."""
STOP_S = 29.0
"""All children together, so that with what is killed in the end it stays below 30 s."""
_TURN_S = 0.05

_FIRST_DELAY_S = 0.2
_MAX_DELAY_S = 10.0
_HEALTHY_S = 30.0


@dataclass(frozen=True, slots=True)
class Child:
    """One process to run.

    `ready` says whether it serves; it is asked in the supervisor's thread, should answer within a second or
    two; what it raises ends everything. `stop_timeout_s` is how long the child may take to end after SIGTERM;
    neighbours of one `stop_group` are asked at once, and share the longest time of any of them.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    ready: Callable[[], bool]
    stop_timeout_s: float
    ready_timeout_s: float = 60.0
    stop_group: str | None = None


class Happening(StrEnum):
    """What became of a child."""

    STARTED = "started"
    READY = "ready"
    DIED = "died"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ChildEvent:
    """`text` is for people: of a death the exit code, what it said last, and when it comes back."""

    name: str
    happening: Happening
    pid: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """`pid` is None while it does not run; `restarts` are the starts after the first."""

    name: str
    pid: int | None
    restarts: int
    ready: bool


def delay_s(failures: int) -> float:
    """How long a child that failed so many times in a row (≥ 1) waits for its next start."""
    return min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(failures - 1, 16))


class Supervisor:
    """Children in the order of the list: each needs those before it, and starts only while they are all ready.

    :meth:`run_until` and :meth:`stop` belong to one thread, which starts every child and must live as long
    as they should (`OwnProcess`). If this process dies, even by kill -9, the kernel ends them all.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        log_dir: Path,
        on_event: Callable[[ChildEvent], None] = lambda _event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What a child prints is appended to NAME.log in `log_dir`, which is made; above 10 MB a start sets it aside.

        `on_event` is called in the supervisor's thread and must not block.
        """
        self._log_dir = log_dir
        self._on_event = on_event
        self._clock = clock
        self._posts = [_Post(child, log_dir / f"{child.name}.log") for child in children]

    def status(self) -> list[ChildStatus]:
        """Every child, in order; may be asked from any thread."""
        return [post.status() for post in self._posts]

    @property
    def all_ready(self) -> bool:
        """Whether everything serves; may be asked from any thread."""
        return all(post.ready for post in self._posts)

    def run_until(self, stop: threading.Event) -> None:
        """Start everything and keep it running until `stop` is set; nothing runs any more when it returns.

        Raises:
            ConfigError: a child was started wrongly (exit 3): what it said last; or no child can be started.
            DependencyError: a child does not get ready the first time.
        """
        try:
            while not stop.is_set():
                self._turn()
                stop.wait(_TURN_S)
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop all, the last first: SIGTERM, and after the child's time its whole group is killed. ≤ 30 s."""
        deadline = self._clock() + STOP_S
        with ExitStack() as stack:  # the last in is the first out; the rest is stopped also where `on_event` fails
            for _, together in itertools.groupby(self._posts, key=lambda post: post.child.stop_group or id(post)):
                stack.callback(self._stop_together, list(together), deadline)

    def _stop_together(self, posts: Sequence[_Post], deadline: float) -> None:
        running = [(post, post.process) for post in reversed(posts) if post.process is not None]
        for _, process in running:
            process.terminate()
        until = min(deadline, self._clock() + max((post.child.stop_timeout_s for post, _ in running), default=0.0))
        codes = [process.end_within(max(0.0, until - self._clock())) for _, process in running]
        for post, _ in running:
            post.gone()
        for (post, process), code in zip(running, codes, strict=True):
            self._say(post, Happening.STOPPED, process.pid, f"exit {code}")

    def _turn(self) -> None:
        """Look at every child once."""
        standing = True
        for number, post in enumerate(self._posts):
            now = self._clock()
            if post.process is None:
                if standing and now >= post.due_at:
                    post.start(now)
                    self._say(post, Happening.STARTED, post.process_pid)
            elif (code := post.process.exit_code()) is not None:
                self._died(post, code, before=self._posts[:number])
            elif not post.ready:
                self._await(post, now)
            standing = standing and post.ready

    def _await(self, post: _Post, now: float) -> None:
        if post.child.ready():
            post.got_ready(now)
            self._say(post, Happening.READY, post.process_pid)
        elif post.process is not None and now - post.started_at > post.child.ready_timeout_s:
            late = f"not ready in {post.child.ready_timeout_s:g} s"
            if not post.was_ready:
                raise DependencyError(post.child.name, f"{post.child.name} was {late}: see {post.log}")
            self._failed(post, late, code=post.process.kill())

    def _died(self, post: _Post, code: int, *, before: Sequence[_Post]) -> None:
        """Its own fault, for good or for now, or that of something before it."""
        said = post.last_words() or f"exit {code} without a word, see {post.log}"
        error: ConfigError | DependencyError
        if code == EXIT_CONFIG and all(earlier.stood_since(post.started_at) for earlier in before):
            error = ConfigError(f"{post.child.name}: {said}")
        elif not post.was_ready and post.failures + 1 >= MAX_FAILED_STARTS:
            error = DependencyError(post.child.name, f"{post.child.name} does not start ({said}): see {post.log}")
        else:
            self._failed(post, said, code=code)
            return
        pid = post.process_pid
        post.gone()
        self._say(post, Happening.DIED, pid, f"exit {code}: {said}")
        raise error

    def _failed(self, post: _Post, said: str, *, code: int) -> None:
        pid, again_s = post.process_pid, post.failed(self._clock())
        self._say(post, Happening.DIED, pid, f"exit {code}, starts again in {again_s:.1f} s: {said}")

    def _say(self, post: _Post, happening: Happening, pid: int, text: str = "") -> None:
        self._on_event(ChildEvent(post.child.name, happening, pid, text))


class _Post:
    """A child's place: the process in it now, and how those before it fared."""

    def __init__(self, child: Child, log: Path) -> None:
        self.child = child
        self.log = log
        self.process: OwnProcess | None = None
        self.started_at = 0.0
        self.due_at = float("-inf")
        self.ready = False
        self.was_ready = False
        self.failures = 0
        self._ready_since = 0.0
        self._starts = 0
        self._log_from = 0

    @property
    def process_pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def status(self) -> ChildStatus:
        process = self.process  # once: the supervisor's thread may set it to None
        return ChildStatus(
            self.child.name, None if process is None else process.pid, max(0, self._starts - 1), self.ready
        )

    def start(self, now: float) -> None:
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            rotate(self.log)
            self._log_from = self.log.stat().st_size if self.log.exists() else 0
            self.process = OwnProcess(self.child.command, log=self.log, env=self.child.env)
        except OSError as exc:
            raise ConfigError(f"{self.child.name} cannot be started: {exc}") from exc
        self._starts += 1
        self.started_at = now

    def got_ready(self, now: float) -> None:
        self.ready = self.was_ready = True
        self._ready_since = now

    def failed(self, now: float) -> float:
        """Returns how long it now waits: longer each time, unless it was well for a while."""
        healthy = self.ready and now - self._ready_since >= _HEALTHY_S
        self.failures = 1 if healthy else self.failures + 1
        self.gone()
        self.due_at = now + delay_s(self.failures)
        return delay_s(self.failures)

    def gone(self) -> None:
        self.process = None
        self.ready = False

    def stood_since(self, then: float) -> bool:
        """Whether it has been ready since, and is now: else what needs it may fail with it."""
        return self.ready and self._ready_since <= then and self.child.ready()

    def last_words(self) -> str | None:
        """The last line that this start left in the log."""
        said = last_line(self.log, since_bytes=self._log_from)
        return said.removeprefix("lookalike: ") if said else None
