"""Several workers, one at a time, each as far as its next step to the outside; and their one clock.

A worker is a thread that runs only while it has its turn. It gives the turn back before each call
to the store or an API, and while it waits. Time passes only when nobody who is awake could go on.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from tests.conftest import HandClock
from tests.trap import Crash
from tests.wire import Wire


class Worker:
    """One process of ours at work.

    Args:
        turns: whom it gives the turn back to.
        name: its run.
        work: what it does; whatever that raises is kept in ``error``.
    """

    def __init__(self, turns: Turns, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.wake_at = turns.clock.true
        self.slept_until = 0.0
        self.over = self.doomed = False
        self.error: BaseException | None = None
        self._turns, self._work = turns, work
        # Locked: not its turn; not ours.
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def resume(self) -> None:
        """Let it run until it gives the turn back or ends."""
        self._turns.current = self
        self._go.release()
        self._back.acquire()
        self._turns.current = None
        if self.over:
            self._thread.join()
            self._turns.workers.remove(self)
        if self.error is not None:
            raise self.error

    def pause(self, until: datetime) -> None:
        """Called by itself: give the turn back. Its death finds it here."""
        self.wake_at = max(until, self._turns.clock.true)
        if not self.doomed:
            self._back.release()
            self._go.acquire()
        if self.doomed:
            raise Crash(self.name)

    def die(self) -> None:
        """Its process is gone, wherever it was."""
        self.doomed = True
        self.resume()

    def _main(self) -> None:
        self._go.acquire()
        try:
            if not self.doomed:
                self._work()
        except Crash:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by whoever gave the turn
            self.error = error
        self.over = True
        self._back.release()


class OurClock(HandClock):
    """What our machine takes for the time: ``true`` and what its clock is wrong by."""

    turns: Turns

    def __init__(self) -> None:
        super().__init__()
        self.wrong_by = timedelta(0)
        self.stepped_at = 0.0

    @property
    def true(self) -> datetime:
        return self._now

    def turn_to(self, at: datetime) -> None:
        self._now = at

    def now(self) -> datetime:
        return self._now + self.wrong_by

    def advance(self, seconds: float) -> None:
        until = self._now + timedelta(seconds=seconds)
        worker = self.turns.current
        if worker is not None:
            worker.pause(until)
        else:
            self.turns.pass_time(until)


class TheirClock(HandClock):
    """The time as both services have it: the true one."""

    def __init__(self, ours: OurClock) -> None:
        super().__init__()
        self._ours = ours

    def now(self) -> datetime:
        return self._ours.true

    def advance(self, seconds: float) -> None:
        self._ours.advance(seconds)


class Turns:
    """Whose turn it is, and what time.

    Args:
        clock: turned by this.
    """

    def __init__(self, clock: OurClock) -> None:
        self.clock = clock
        self.workers: list[Worker] = []
        self.wires: Sequence[Wire] = ()
        self.current: Worker | None = None
        self.dice = random.Random(0)
        clock.turns = self

    def begin(self, name: str, work: Callable[[], None]) -> Worker:
        """Another worker, which has not had a turn yet."""
        worker = Worker(self, name, work)
        self.workers.append(worker)
        return worker

    def step(self, worker: Worker) -> None:
        """One step of this worker's, or the time until it can make one."""
        if worker.wake_at > self.clock.true:
            self.pass_time(worker.wake_at)
        else:
            worker.resume()

    def door(self) -> None:
        """A worker is about to call the outside."""
        if self.current is not None:
            self.current.pause(self.clock.true)

    def pass_time(self, until: datetime) -> None:
        """Until then; whoever can go on meanwhile does, in any order."""
        while True:
            now = self.clock.true
            if now >= until:
                return
            awake = [each for each in self.workers if each.wake_at <= now]
            if awake:
                self.dice.choice(awake).resume()
                continue
            due = [each.next_due_at() for each in self.wires]
            waiting = [each.wake_at for each in self.workers]
            self.clock.turn_to(min([until, *waiting, *(at for at in due if at is not None)]))
            for wire in self.wires:
                wire.catch_up()

    def kill_all(self) -> None:
        """Leave no thread behind."""
        for worker in list(self.workers):
            worker.die()
