"""The laws of the merge, over stories of edits, merges and crashes around one field."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import product

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from kommo_airtable_sync.core.canonical import is_blank, same
from kommo_airtable_sync.core.merge import MISSING, Agreed, Decision, Sent, merge_field
from kommo_airtable_sync.core.types import Canonical

OWNERS = ("kommo", "airtable", "both")
POLICIES = ("kommo", "airtable", "newest", "hold")
SIDES = ("kommo", "airtable")
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
TIMES = (None, NOON, NOON + timedelta(seconds=1), NOON + timedelta(seconds=2))
TEXTS = (None, "x", "y", "z")
SETS = (None, frozenset("a"), frozenset("ab"), frozenset("bc"))
DONE = 4


@dataclass
class Story:
    """One field on both sides, with its ledger and its open intents.

    Args:
        kommo_keeps: what Kommo makes of a value it is sent; it may round.
    """

    owner: str
    on_conflict: str
    kommo: Canonical
    airtable: Canonical
    ledger: Agreed | None = None
    intents: list[Sent] = field(default_factory=list)
    kommo_keeps: Callable[[Canonical], Canonical] = lambda value: value

    def edit(self, side: str, value: Canonical) -> None:
        setattr(self, side, value)

    def merge(self, steps: int = DONE) -> Decision:
        """Merge, and die after so many steps.

        The intents are written down; then 1 Airtable is written, 2 that is acknowledged, 3 Kommo
        is written, 4 that is acknowledged. The ledger moves with the last acknowledgement.
        """
        found = merge_field(
            owner=self.owner,
            on_conflict=self.on_conflict,
            kommo=self.kommo,
            airtable=self.airtable,
            bases=[self.ledger] if self.ledger else [],
            intents=self.intents,
        )
        kept = self.kommo_keeps(found.kommo_value) if found.write_kommo else self.kommo
        wanted = (kept, found.airtable_value if found.write_airtable else self.airtable)
        opened = {
            side: Sent(side, before, wanted)
            for side, before, writes in (
                ("airtable", self.airtable, found.write_airtable),
                ("kommo", self.kommo, found.write_kommo),
            )
            if writes
        }
        last = 4 if found.write_kommo else 2 if found.write_airtable else 0
        if steps >= 1:
            self.airtable = wanted[1]
        if steps >= 2:
            opened.pop("airtable", None)
        if steps >= 3:
            self.kommo = wanted[0]
        self.intents += opened.values()
        if steps >= last and not found.held:
            self.ledger, self.intents = wanted, []
        return found

    def settle(self) -> Decision:
        """Merge until nothing is left to do: once, and once more to see that it was enough."""
        first = self.merge()
        again = self.merge()
        assert (again.write_kommo, again.write_airtable) == (False, False), (first, again)
        return first

    def ends(self, value: Canonical) -> bool:
        return same(self.kommo, value) and same(self.airtable, value)


steps = st.integers(0, DONE)
owners, policies, sides = map(st.sampled_from, (OWNERS, POLICIES, SIDES))
texts, sets = map(st.sampled_from, (TEXTS, SETS))


@st.composite
def pasts(draw):
    """Any two values, ledger and open intents, of texts or of sets."""
    values = draw(st.sampled_from([texts, sets]))
    agreed = st.tuples(values, values)
    sent = st.builds(Sent, sides, values, agreed)
    return draw(agreed), draw(st.lists(agreed, max_size=1)), draw(st.lists(sent, max_size=3))


@st.composite
def starts(draw):
    """A field before a merge: the first meeting, in step, or edited on one side or both."""
    values, rounds = draw(
        st.sampled_from(
            [
                (texts, None),
                (sets, None),
                (st.sampled_from((None, "x", "x5", "y5")), "first letter"),
            ]
        )
    )
    ledger = draw(st.none() | values.map(lambda value: (value, value)))
    story = Story(draw(owners), draw(policies), draw(values), draw(values), ledger)
    if rounds:
        story.kommo_keeps = lambda value: value and value[:1]
        story.kommo = story.kommo_keeps(story.kommo)
        story.ledger = ledger and (story.kommo_keeps(ledger[0]), ledger[1])
    return story


# --- one merge -----------------------------------------------------------------------------------


@given(owners, policies, pasts(), st.sampled_from(TIMES), st.sampled_from(TIMES))
def test_a_decision_is_one_thing_and_writes_only_what_differs(owner, policy, past, k_at, a_at):
    (kommo, airtable), bases, intents = past
    found = merge_field(
        owner=owner, on_conflict=policy, kommo=kommo, airtable=airtable, bases=bases,
        intents=intents, kommo_at=k_at, airtable_at=a_at,
    )  # fmt: skip
    writes = found.write_airtable or found.write_kommo
    assert [writes, found.agree, found.held].count(True) == 1
    assert not (found.write_airtable and same(found.airtable_value, airtable))
    assert not (found.write_kommo and same(found.kommo_value, kommo))
    assert not found.held or (owner, policy) == ("both", "hold")
    # Who owns a field alone is not overwritten; only a blank in Airtable starts with Kommo's value.
    assert not (owner == "kommo" and found.write_kommo)
    if owner == "airtable" and found.write_airtable:
        assert is_blank(airtable)
    if not bases and not intents:
        assert not (found.write_airtable and is_blank(found.airtable_value))
        assert not (found.write_kommo and is_blank(found.kommo_value))


def every_case():
    """Every owner, policy, base and pair of values: blank, equal, different, missing."""
    for values in (TEXTS, SETS):
        all_bases = [(), *(((k, a),) for k, a in product(values, values))]
        yield from product(OWNERS, POLICIES, values, (*values, MISSING), all_bases, (None, NOON))


def test_once_applied_a_merge_finds_nothing_more_to_do():
    for owner, policy, kommo, airtable, bases, at in every_case():
        more = {"owner": owner, "on_conflict": policy, "kommo_at": at, "airtable_at": at}
        first = merge_field(kommo=kommo, airtable=airtable, bases=bases, **more)
        after = {
            "kommo": first.kommo_value if first.write_kommo else kommo,
            "airtable": first.airtable_value if first.write_airtable
            else None if airtable is MISSING else airtable,
        }  # fmt: skip
        if first.held:
            assert merge_field(**after, bases=bases, **more) == first
            continue
        assert [first.write_airtable or first.write_kommo, first.agree].count(True) == 1
        again = merge_field(**after, bases=[(after["kommo"], after["airtable"])], **more)
        assert again.agree, (owner, policy, kommo, airtable, bases, first, again)


def test_the_merge_is_the_same_seen_from_the_other_side():
    other = {"kommo": "airtable", "airtable": "kommo"}
    for values in (TEXTS, SETS):
        for owner, policy, k, a, bk, ba, t1, t2 in product(
            OWNERS, POLICIES, values, values, values, values, TIMES, TIMES
        ):
            if policy != "newest" and (t1, t2) != (None, None):
                continue
            here = merge_field(
                owner=owner, on_conflict=policy, kommo=k, airtable=a, bases=[(bk, ba)],
                kommo_at=t1, airtable_at=t2,
            )  # fmt: skip
            if here.rule == "conflict_tie":
                continue  # a tie goes to Kommo, from wherever it is seen
            there = merge_field(
                owner=other.get(owner, owner), on_conflict=other.get(policy, policy),
                kommo=a, airtable=k, bases=[(ba, bk)], kommo_at=t2, airtable_at=t1,
            )  # fmt: skip
            assert (here.write_airtable, here.airtable_value, here.agree, here.held) == (
                there.write_kommo, there.kommo_value, there.agree, there.held,
            )  # fmt: skip


# --- crashes without edits -----------------------------------------------------------------------


@given(starts(), st.lists(steps, max_size=3))
def test_wherever_merges_die_the_next_ends_where_the_first_would_have(story, crashes):
    whole = Story(**vars(story) | {"intents": []})
    whole.settle()
    for died_after in crashes:
        story.merge(died_after)
    story.settle()
    assert same(story.kommo, whole.kommo)
    assert same(story.airtable, whole.airtable)


@given(sets, sets, sets, st.integers(0, 2))
def test_the_kommo_half_of_a_merge_follows_when_only_airtables_was_done(base, kommo, airtable, n):
    """Not sent, sent, or sent and acknowledged: the ledger did not move, so Kommo gets its half."""
    story = Story("both", "hold", kommo, airtable, (base, base))
    merged = (kommo or frozenset()) | (airtable or frozenset())
    merged -= ((base or frozenset()) - (kommo or frozenset())) | (
        (base or frozenset()) - (airtable or frozenset())
    )
    first = story.merge(n)
    event(f"both halves: {first.write_kommo and first.write_airtable}")
    again = story.merge()
    assert story.ends(merged)
    if first.write_kommo:
        assert again.write_kommo
        assert again.kommo_value == (merged or None)
    assert again.write_airtable == (first.write_airtable and n == 0)


# --- edits, merges and crashes -------------------------------------------------------------------

edits = st.tuples(sides, texts)
merges = st.tuples(st.just("merge"), steps)


def play(story: Story, acts) -> None:
    for what, value in acts:
        if what == "merge":
            story.merge(value)
        else:
            story.edit(what, value)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("owner", SIDES)
@given(start=texts | sets, acts=st.lists(edits | merges, max_size=12))
def test_the_owners_last_value_stands_whatever_was_merged_when(owner, policy, start, acts):
    story = Story(owner, policy, start, start, (start, start))
    play(story, acts)
    story.settle()
    mine = [value for what, value in acts if what == owner]
    assert story.ends(mine[-1] if mine else start)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("side", SIDES)
@given(acts=st.lists(edits | merges, max_size=12))
def test_half_done_writes_are_never_taken_for_edits_of_the_other_side(side, policy, acts):
    """Only one side is edited, by whatever policy: then nothing can be in conflict."""
    story = Story("both", policy, "x", "x", ("x", "x"))
    mine = [(what, value) for what, value in acts if what in {side, "merge"}]
    play(story, mine)
    story.settle()
    assert story.ends(next((value for what, value in reversed(mine) if what == side), "x"))


@pytest.mark.parametrize("policy", ["kommo", "airtable", "newest"])
@given(
    rounds=st.lists(st.tuples(st.sets(sides), steps), max_size=5),
    last=sides,
    died_after=st.none() | steps,
)
def test_the_last_edit_survives_every_crash_before_and_after_it(policy, rounds, last, died_after):
    """Each edit is a value of its own; whatever it meets has been merged, done or half done."""
    story, fresh = Story("both", policy, "0", "0", ("0", "0")), map(str, itertools.count(1))
    for edited, died in rounds:
        for side in sorted(edited):
            story.edit(side, next(fresh))
        story.merge(died)
    story.edit(last, mine := next(fresh))
    if died_after is not None:
        story.merge(died_after)
    story.settle()
    assert story.ends(mine)


@given(st.sampled_from(["kommo", "airtable", "newest"]), texts, texts, steps)
def test_an_edit_on_top_of_a_first_write_survives(policy, kommo, airtable, died_after):
    story = Story("both", policy, kommo, airtable)
    found = story.merge(died_after)
    for side, written in (("airtable", found.write_airtable), ("kommo", found.write_kommo)):
        if written:
            story.edit(side, "mine")
            story.settle()
            assert story.ends("mine")


# --- sets ----------------------------------------------------------------------------------------

set_acts = st.lists(
    st.one_of(
        st.tuples(st.just("add"), sides),
        st.tuples(st.just("remove"), sides),
        merges,
    ),
    max_size=14,
)


def play_sets(story: Story, acts, *, crashes: bool):
    """Each addition is an element of its own; what was (added, removed) by people."""
    fresh, added, removed = map(str, itertools.count()), set(), set()
    for what, value in acts:
        if what == "merge":
            story.merge(value if crashes else DONE)
            continue
        shown = getattr(story, value) or frozenset()
        if what == "add":
            added.add(new := next(fresh))
            story.edit(value, shown | {new})
        elif shown:
            removed.add(gone := min(shown))
            story.edit(value, shown - {gone})
    return added, removed


@pytest.mark.parametrize("policy", POLICIES)
@given(acts=set_acts)
def test_sets_end_as_all_that_was_added_less_all_that_was_removed(policy, acts):
    """Whoever did it, in whatever order, and whenever it was merged."""
    start = frozenset("pqr")
    story = Story("both", policy, start, start, (start, start))
    added, removed = play_sets(story, acts, crashes=False)
    story.settle()
    assert story.ends((start | added) - removed)


@pytest.mark.parametrize("policy", POLICIES)
@given(acts=set_acts)
def test_no_crash_loses_anybodys_addition_to_a_set(policy, acts):
    start = frozenset("pqr")
    story = Story("both", policy, start, start, (start, start))
    added, removed = play_sets(story, acts, crashes=True)
    story.settle()
    assert same(story.kommo, story.airtable)
    # What was taken out again just as it arrived may be put back: it looks as if it never had.
    assert (start | added) - removed <= (story.kommo or frozenset())
    assert (story.kommo or frozenset()) <= start | added


@given(acts=set_acts)
def test_what_is_removed_where_it_was_added_stays_removed_through_crashes(acts):
    """Kommo adds and removes, Airtable only looks on: nothing comes back from half-done writes."""
    story = Story("both", "hold", None, None, (None, None))
    mine = [(what, value if what == "merge" else "kommo") for what, value in acts]
    added, removed = play_sets(story, mine, crashes=True)
    story.settle()
    assert story.ends(frozenset(added - removed))
