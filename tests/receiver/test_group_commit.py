from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.receiver.group_commit import COMMIT_EVENTS_MAX, GroupCommit, NotStored
from tests.receiver.fakes import FakeInbox


def event(number: int) -> IncomingEvent:
    return IncomingEvent(key=f"lead:{number}", source="kommo", kind="update")


async def until(condition: Callable[[], object]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), 10)


def drive(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(story(), 30)

    asyncio.run(bounded())


async def gather_behind_the_first(inbox: FakeInbox, group: GroupCommit, numbers) -> list[object]:
    """Submit one request, and while it is being committed all the others."""
    inbox.gate.clear()
    first = asyncio.create_task(group.submit([event(0)]))
    await until(lambda: inbox.calls == 1)
    others = [asyncio.create_task(group.submit([event(number)])) for number in numbers]
    await until(lambda: len(group._waiting) == len(others))
    assert not any(task.done() for task in [first, *others])
    inbox.gate.set()
    return await asyncio.gather(first, *others, return_exceptions=True)


def test_submit_returns_only_after_the_commit():
    inbox = FakeInbox()

    async def story() -> None:
        group = GroupCommit(inbox)
        await group.submit([event(1), event(2)])
        assert inbox.commits == [[event(1), event(2)]]
        await group.stop()

    drive(story)


def test_all_that_wait_share_one_commit_by_one_thread():
    inbox = FakeInbox()

    async def story() -> None:
        group = GroupCommit(inbox)
        outcomes = await gather_behind_the_first(inbox, group, range(1, 101))
        assert outcomes == [None] * 101
        await group.stop()

    drive(story)
    assert [len(commit) for commit in inbox.commits] == [1, 100]
    assert len(inbox.threads) == 1


def test_one_commit_takes_a_bounded_number_of_events():
    inbox = FakeInbox()

    async def story() -> None:
        group = GroupCommit(inbox)
        inbox.gate.clear()
        first = asyncio.create_task(group.submit([event(0)]))
        await until(lambda: inbox.calls == 1)
        big = [event(number) for number in range(COMMIT_EVENTS_MAX - 1)]
        others = [asyncio.create_task(group.submit(big)) for _ in range(3)]
        await until(lambda: len(group._waiting) == 3)
        inbox.gate.set()
        await asyncio.gather(first, *others)
        await group.stop()

    drive(story)
    assert [len(commit) for commit in inbox.commits] == [1] + [COMMIT_EVENTS_MAX - 1] * 3


def test_a_failed_commit_fails_every_request_in_it_and_the_next_one_works():
    inbox = FakeInbox()

    async def story() -> None:
        group = GroupCommit(inbox)
        inbox.error, inbox.is_writable = OSError("disk full of jane@example.com"), False
        outcomes = await gather_behind_the_first(inbox, group, [1, 2])
        assert [str(outcome) for outcome in outcomes] == ["OSError"] * 3  # no data in the reason
        assert all(isinstance(outcome, NotStored) for outcome in outcomes)
        assert inbox.calls == 2
        inbox.error = None
        await group.submit([event(3)])
        await group.stop()

    drive(story)
    assert inbox.events == [event(3)]


def test_one_requests_poison_does_not_fail_its_neighbours():
    inbox = FakeInbox()
    inbox.poison_key = "lead:2"

    async def story() -> None:
        group = GroupCommit(inbox)
        outcomes = await gather_behind_the_first(inbox, group, [1, 2, 3])
        assert [outcome is None for outcome in outcomes] == [True, True, False, True]
        await group.stop()

    drive(story)
    assert {item.key for item in inbox.events} == {"lead:0", "lead:1", "lead:3"}


def test_a_full_queue_says_so_at_once():
    inbox = FakeInbox()

    async def story() -> None:
        group = GroupCommit(inbox, waiting_max=2)
        inbox.gate.clear()
        tasks = [asyncio.create_task(group.submit([event(0)]))]
        await until(lambda: inbox.calls == 1)
        tasks += [asyncio.create_task(group.submit([event(n)])) for n in (1, 2)]
        await until(lambda: len(group._waiting) == 2)
        with pytest.raises(NotStored, match="too many"):
            await group.submit([event(3)])
        inbox.gate.set()
        await asyncio.gather(*tasks)
        await group.stop()

    drive(story)
    assert {item.key for item in inbox.events} == {"lead:0", "lead:1", "lead:2"}


def test_a_commit_that_takes_too_long_is_answered_in_time():
    inbox = FakeInbox()

    async def story() -> None:
        group = GroupCommit(inbox, answer_seconds_max=0.05)
        inbox.gate.clear()
        with pytest.raises(NotStored, match="too long"):
            await group.submit([event(1)])
        inbox.error = OSError("and then it fails, with nobody left to hear it")
        inbox.gate.set()
        await group.stop()

    drive(story)


def test_stop_commits_what_waits_and_takes_no_more():
    inbox = FakeInbox()

    async def story() -> None:
        group = GroupCommit(inbox)
        inbox.gate.clear()
        tasks = [asyncio.create_task(group.submit([event(n)])) for n in range(5)]
        await until(lambda: inbox.calls == 1)
        stopping = asyncio.create_task(group.stop())
        await until(lambda: group._stopped)
        with pytest.raises(NotStored, match="stopping"):
            await group.submit([event(9)])
        assert not stopping.done()
        inbox.gate.set()
        await asyncio.gather(stopping, *tasks)

    drive(story)
    assert [item.key for item in inbox.events] == [f"lead:{n}" for n in range(5)]
