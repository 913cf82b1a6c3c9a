from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from kommo_airtable_sync.core.merge import (
    MISSING,
    UNREAD,
    Decision,
    Sent,
    merge_field,
    needs_record,
)
from tests.core.accounts import mapping_of

OWNERS = ("kommo", "airtable", "both")
POLICIES = ("kommo", "airtable", "newest", "hold")
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def merge(kommo, airtable, *bases, owner="both", on_conflict="hold", **more) -> Decision:
    return merge_field(
        owner=owner, on_conflict=on_conflict, kommo=kommo, airtable=airtable, bases=bases, **more
    )


def to_airtable(value, rule) -> Decision:
    return Decision(rule, write_airtable=True, airtable_value=value)


def to_kommo(value, rule) -> Decision:
    return Decision(rule, write_kommo=True, kommo_value=value)


def sent_airtable(before, after) -> Sent:
    return Sent("airtable", before, (after, after))


def sent_kommo(before, after) -> Sent:
    return Sent("kommo", before, (after, after))


# --- the table of design 3.2 ---------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("owner", OWNERS)
def test_nothing_changed_is_nothing_to_do(owner, policy):
    found = merge("x", "x", ("x", "x"), owner=owner, on_conflict=policy)
    assert found == Decision("in_step", agree=True)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("owner", OWNERS)
def test_both_changed_to_the_same_agree(owner, policy):
    assert merge("y", "y", ("x", "x"), owner=owner, on_conflict=policy).agree


@pytest.mark.parametrize("owner", OWNERS)
def test_a_value_that_one_side_keeps_rounded_is_no_edit(owner):
    found = merge("10", "10.5", ("10", "10.5"), owner=owner)
    assert found == Decision("unchanged", agree=True)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_change_on_one_side_goes_to_the_other(policy):
    more = {"on_conflict": policy}
    assert merge("y", "x", ("x", "x"), **more) == to_airtable("y", "kommo_changed")
    assert merge("x", "y", ("x", "x"), **more) == to_kommo("y", "airtable_changed")
    assert merge(None, "x", ("x", "x"), **more) == to_airtable(None, "kommo_changed")
    assert merge("x", None, ("x", "x"), **more) == to_kommo(None, "airtable_changed")


@pytest.mark.parametrize("policy", POLICIES)
def test_what_kommo_owns_always_goes_to_airtable(policy):
    more = {"owner": "kommo", "on_conflict": policy}
    assert merge("y", "x", ("x", "x"), **more) == to_airtable("y", "kommo_changed")
    assert merge("x", "y", ("x", "x"), **more) == to_airtable("x", "kommo_owns")
    assert merge("y", "z", ("x", "x"), **more) == to_airtable("y", "kommo_owns")


@pytest.mark.parametrize("policy", POLICIES)
def test_what_airtable_owns_always_goes_to_kommo(policy):
    more = {"owner": "airtable", "on_conflict": policy}
    assert merge("x", "y", ("x", "x"), **more) == to_kommo("y", "airtable_changed")
    assert merge("y", "x", ("x", "x"), **more) == to_kommo("x", "airtable_owns")
    assert merge("y", "z", ("x", "x"), **more) == to_kommo("z", "airtable_owns")


def test_two_different_edits_follow_the_policy():
    assert merge("y", "z", ("x", "x"), on_conflict="kommo") == to_airtable("y", "conflict_kommo")
    assert merge("y", "z", ("x", "x"), on_conflict="airtable") == to_kommo("z", "conflict_airtable")
    assert merge("y", "z", ("x", "x"), on_conflict="hold") == Decision("conflict_held", held=True)


@pytest.mark.parametrize(
    ("kommo_s", "airtable_s", "found"),
    [
        (10, 5, to_airtable("y", "conflict_newest")),
        (5, 10, to_kommo("z", "conflict_newest")),
        (5, 7, to_kommo("z", "conflict_newest")),
        (5, 6.9, to_airtable("y", "conflict_tie")),
        (5, 5, to_airtable("y", "conflict_tie")),
        (None, 5, to_airtable("y", "conflict_tie")),
        (5, None, to_airtable("y", "conflict_tie")),
    ],
)
def test_newest_goes_by_time_and_a_tie_goes_to_kommo(kommo_s, airtable_s, found):
    def at(seconds):
        return None if seconds is None else NOON + timedelta(seconds=seconds)

    times = {"kommo_at": at(kommo_s), "airtable_at": at(airtable_s)}
    assert merge("y", "z", ("x", "x"), on_conflict="newest", **times) == found


# --- first meeting -------------------------------------------------------------------------------


def test_a_blank_never_overwrites_a_value_at_the_first_meeting():
    assert merge("x", None, owner="kommo") == to_airtable("x", "first_meeting")
    assert merge("x", None, owner="both") == to_airtable("x", "first_meeting")
    assert merge("x", None, owner="airtable") == to_airtable("x", "first_meeting")
    assert merge(None, "x", owner="both") == to_kommo("x", "first_meeting")
    assert merge(None, "x", owner="airtable") == to_kommo("x", "first_meeting")
    # Kommo owns, so Kommo is not written to; Airtable's value stays until Kommo has one.
    assert merge(None, "x", owner="kommo") == Decision("first_meeting_kept", agree=True)


def test_two_values_follow_owner_or_policy_at_the_first_meeting():
    assert merge("x", "y", owner="kommo") == to_airtable("x", "first_meeting")
    assert merge("x", "y", owner="airtable") == to_kommo("y", "first_meeting")
    assert merge("x", "y", on_conflict="kommo") == to_airtable("x", "first_meeting")
    assert merge("x", "y", on_conflict="airtable") == to_kommo("y", "first_meeting")
    assert merge("x", "y", on_conflict="newest") == to_airtable("x", "first_meeting")
    assert merge("x", "y", on_conflict="hold") == Decision("conflict_held", held=True)
    a, b = frozenset("a"), frozenset("b")
    assert merge(a, b, on_conflict="kommo") == to_airtable(a, "first_meeting")


def test_zero_and_false_are_values_not_blanks():
    assert merge(False, True, owner="kommo") == to_airtable(False, "first_meeting")


# --- records that do not exist -------------------------------------------------------------------


@pytest.mark.parametrize("owner", OWNERS)
def test_a_new_record_starts_with_kommos_values(owner):
    assert merge("x", MISSING, owner=owner) == to_airtable("x", "created")
    assert merge(None, MISSING, owner=owner) == Decision("created", agree=True)


def test_a_recreated_record_gets_back_what_its_owner_had():
    assert merge("y", MISSING, ("x", "x"), owner="kommo") == to_airtable("y", "recreated")
    assert merge("y", MISSING, ("x", "x"), owner="both") == to_airtable("y", "recreated")
    assert merge("x", MISSING, ("x", "a"), owner="airtable") == to_airtable("a", "recreated")
    taken_back = replace(to_airtable("a", "recreated"), write_kommo=True, kommo_value="a")
    assert merge("y", MISSING, ("x", "a"), owner="airtable") == taken_back


# --- sets ----------------------------------------------------------------------------------------


def test_sets_merge_element_by_element():
    found = merge(frozenset("abk"), frozenset("aw"), (frozenset("ab"), frozenset("ab")))
    assert (found.airtable_value, found.kommo_value) == (frozenset("akw"), frozenset("akw"))
    assert found.rule == "set_merged"
    assert found.write_airtable
    assert found.write_kommo


def test_emptying_a_set_against_an_addition_leaves_the_addition():
    found = merge(None, frozenset("ab"), (frozenset("a"), frozenset("a")))
    assert (found.airtable_value, found.kommo_value) == (frozenset("b"), frozenset("b"))


# --- crashes: open intents -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("owner", ["kommo", "both"])
def test_a_half_done_write_is_never_taken_for_an_edit(owner, policy):
    def after_crash(kommo, airtable):
        more = {"intents": [sent_airtable("x", "y")], "owner": owner, "on_conflict": policy}
        return merge(kommo, airtable, ("x", "x"), **more)

    assert after_crash("y", "y").agree  # it arrived
    assert after_crash("y", "x") == to_airtable("y", "kommo_changed")  # it did not
    assert after_crash("x", "y") == to_airtable("x", "kommo_changed")  # arrived; Kommo went back
    assert after_crash("z", "y") == to_airtable("z", "kommo_changed")  # arrived; Kommo went on
    assert after_crash("x", "x").agree  # it did not, and Kommo went back


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("owner", ["airtable", "both"])
def test_a_half_done_write_to_kommo_is_no_edit_either(owner, policy):
    def after_crash(kommo, airtable):
        more = {"intents": [sent_kommo("x", "y")], "owner": owner, "on_conflict": policy}
        return merge(kommo, airtable, ("x", "x"), **more)

    assert after_crash("y", "y").agree
    assert after_crash("x", "y") == to_kommo("y", "airtable_changed")
    assert after_crash("y", "x") == to_kommo("x", "airtable_changed")
    assert after_crash("y", "z") == to_kommo("z", "airtable_changed")


@pytest.mark.parametrize("policy", POLICIES)
def test_an_edit_on_top_of_a_half_done_write_survives(policy):
    # Whether or not the write arrived before the edit: both end the same.
    edited = {"intents": [sent_airtable("x", "y")], "on_conflict": policy}
    assert merge("y", "mine", ("x", "x"), **edited) == to_kommo("mine", "airtable_changed")
    edited = {"intents": [sent_kommo("x", "y")], "on_conflict": policy}
    assert merge("mine", "y", ("x", "x"), **edited) == to_airtable("mine", "kommo_changed")


def test_edits_on_both_sides_of_a_half_done_write_are_a_conflict():
    sent = {"intents": [sent_airtable("x", "y")], "on_conflict": "hold"}
    for kommo in ("z", "x"):
        assert merge(kommo, "mine", ("x", "x"), **sent).held


def test_the_loser_of_a_conflict_is_no_new_edit_after_a_crash():
    sent = {"intents": [sent_kommo("loser", "winner")], "on_conflict": "airtable"}
    again = merge("loser", "winner", ("x", "x"), **sent)
    assert again == to_kommo("winner", "conflict_airtable")


def test_half_done_writes_to_both_sides_are_told_apart():
    # Kommo's y was on its way when somebody made it w in Airtable, which then was on its way.
    more = {"intents": [sent_airtable("x", "y"), sent_kommo("y", "w")], "on_conflict": "kommo"}
    assert merge("y", "w", ("x", "x"), **more) == to_kommo("w", "airtable_changed")
    assert merge("y", "v", ("x", "x"), **more) == to_kommo("v", "airtable_changed")
    assert merge("w", "v", ("x", "x"), **more) == to_kommo("v", "airtable_changed")
    assert merge("z", "w", ("x", "x"), **more) == to_airtable("z", "kommo_changed")
    assert merge("z", "v", ("x", "x"), **more) == to_airtable("z", "conflict_kommo")


def test_a_late_write_overtaken_by_a_newer_one_is_no_edit():
    more = {"intents": [sent_airtable("x", "y"), sent_airtable("x", "z")]}
    assert merge("z", "y", ("x", "x"), **more) == to_airtable("z", "kommo_changed")


def test_an_overtaken_write_counts_only_while_its_own_value_stands():
    late = Sent("airtable", "v", ("x", "x"), overtaken=True)
    more = {"intents": [late], "owner": "both", "on_conflict": "airtable"}
    assert merge("z", "y", ("y", "y"), **more) == to_airtable("z", "kommo_changed")
    assert merge("y", "z", ("y", "y"), **more) == to_kommo("z", "airtable_changed")
    assert merge("y", "x", ("y", "y"), **more) == to_airtable("y", "kommo_changed")


def test_a_first_write_that_did_not_arrive_is_a_first_meeting_still():
    more = {"intents": [sent_airtable(None, "y")], "owner": "both", "on_conflict": "airtable"}
    assert merge("y", None, **more) == to_airtable("y", "first_meeting")
    assert merge("z", "y", **more) == to_airtable("z", "kommo_changed")
    assert merge("y", "mine", **more) == to_kommo("mine", "airtable_changed")
    # Nothing proves that they ever met: Kommo's blank must not win.
    more["on_conflict"] = "kommo"
    assert merge(None, "mine", **more) == to_kommo("mine", "first_meeting")


def sets(*letters: str):
    return [frozenset(each) for each in letters]


def test_half_done_writes_of_sets_count_element_by_element():
    def after_crash(before, after, kommo, airtable):
        before, after, kommo, airtable, ledger = sets(before, after, kommo, airtable, "ab")
        return merge(kommo, airtable, (ledger, ledger), intents=[sent_airtable(before, after)])

    # Kommo added k, which arrived, and then took it back.
    assert after_crash("ab", "abk", "ab", "abk") == to_airtable(frozenset("ab"), "set_merged")
    # Kommo removed a, which arrived, and then put it back.
    assert after_crash("ab", "b", "ab", "b") == to_airtable(frozenset("ab"), "set_merged")
    # Both added one; Airtable's half arrived, so Kommo's is still due.
    assert after_crash("abw", "abkw", "abk", "abkw") == to_kommo(frozenset("abkw"), "set_merged")


def test_a_half_done_first_write_of_a_set_is_a_meeting_if_it_arrived():
    def after_crash(before, after, kommo, airtable):
        before, after, kommo, airtable = sets(before, after, kommo, airtable)
        return merge(kommo, airtable, on_conflict="kommo", intents=[sent_airtable(before, after)])

    assert after_crash("b", "a", "a", "b") == to_airtable(frozenset("a"), "first_meeting")
    # It arrived, and then Airtable got one more, or Kommo lost one that both had had.
    assert after_crash("", "a", "a", "ac") == to_kommo(frozenset("ac"), "set_merged")
    assert after_crash("bc", "ab", "a", "ab") == to_airtable(frozenset("a"), "set_merged")


# --- records that were not read ------------------------------------------------------------------


def unread(kommo, *bases, intents=()):
    return merge(kommo, UNREAD, *bases, owner="kommo", intents=intents)


def test_unread_records_are_judged_by_kommos_column():
    assert unread("x", ("x", "rounded")) == Decision("unchanged", agree=True)
    assert unread("y", ("x", "y")) == to_airtable("y", "kommo_changed")
    assert unread(None, ("x", "x")) == to_airtable(None, "kommo_changed")


def test_an_unread_record_meets_kommos_values_but_not_its_blanks():
    assert unread("x") == to_airtable("x", "first_meeting")
    assert unread(None) == Decision("first_meeting_kept", agree=True)


def test_an_open_intent_on_an_unread_record_is_written_again():
    assert unread("y", ("x", "x"), intents=[sent_airtable("x", "y")]) == to_airtable(
        "y", "kommo_changed"
    )
    assert unread("x", ("x", "x"), intents=[sent_airtable("x", "y")]) == to_airtable(
        "x", "intent_open"
    )
    assert unread("x", intents=[sent_airtable(None, "x")]) == to_airtable("x", "intent_open")
    assert unread(None, intents=[sent_airtable(None, "x")]) == to_airtable(None, "intent_open")


@pytest.mark.parametrize("owner", ["airtable", "both"])
def test_a_field_in_which_airtable_has_a_say_must_be_read(owner):
    with pytest.raises(ValueError, match="without its record"):
        merge("x", UNREAD, owner=owner)


def test_only_mappings_that_kommo_owns_whole_do_without_the_record():
    name = "airtable: Deal Name, kommo: name"
    assert not needs_record(mapping_of(name, "airtable: Amount, kommo: price"))
    assert needs_record(mapping_of(name, "airtable: Amount, kommo: price, owner: both"))
    assert needs_record(mapping_of("airtable: Deal Name, kommo: name, owner: airtable"))
