"""Registering with both stand-ins: once, again, elsewhere, and not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kommo_airtable_sync.cli.webhooks import _register
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.registration import (
    automation_steps,
    edited_in_airtable,
    specification,
)
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.pull import pull_webhook
from kommo_airtable_sync.engine.registration import (
    KOMMO_DOCUMENT,
    SIDES,
    Registration,
    mend_kommo_webhook,
    register_airtable,
    register_kommo,
    remove,
)
from kommo_airtable_sync.sandbox.airtable.notifying import break_webhook
from kommo_airtable_sync.store.documents import Documents
from kommo_airtable_sync.store.gaps import Gaps
from kommo_airtable_sync.store.registrations import registered
from tests.engine.test_pull import BASE, FIELDS, told
from tests.simulated import World

SECRET = "a-secret-of-kommo-s-webhook"
ELSEWHERE = "https://elsewhere.example.com"


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    made = new_world(fields=FIELDS)
    for shown in made.engine.kommo.webhooks():
        made.engine.kommo.unsubscribe(shown["destination"])
    return made


def registrations(engine: Engine, secret: str) -> list[Registration]:
    """The webhooks of ours on both sides, as `webhooks list` shows them."""
    return [each for listed in SIDES.values() for each in listed(engine, secret)]


def pinged(world: World) -> list[str]:
    return [str(shown["notificationUrl"]) for shown in world.engine.airtable.webhooks()]


def test_it_watches_what_airtable_may_edit_and_the_key(world: World) -> None:
    hook = register_airtable(world.engine, BASE)
    mapping = world.engine.directory.mapping()
    ids = {field.name: field.id for field in mapping.fields}
    assert hook.specification == {
        "options": {
            "filters": {
                "dataTypes": ["tableData"],
                "recordChangeScope": mapping.table_id,
                "watchDataInFieldIds": [mapping.key.id, ids["Amount"], ids["Notes"]],
            }
        }
    }
    assert hook.user_id == world.engine.airtable.user_id()


@pytest.mark.parametrize("modified", [None, "Last Modified"])
def test_the_automation_triggers_on_what_airtable_may_edit_and_nothing_else(
    new_world: Callable[..., World], modified: str | None
) -> None:
    table = {"table": "Deals", "key_field": "Kommo Deal ID", "modified_field": modified}
    mapping = new_world(fields=FIELDS, airtable=table).engine.directory.mapping()
    fields = edited_in_airtable(mapping)
    assert [field.name for field in fields] == ["Amount", "Notes"]
    trigger, *others = automation_steps(mapping, fields)
    assert '"Deals"' in trigger
    assert '"Amount", "Notes"' in trigger
    assert "Deal Name" not in trigger
    assert any("changedAt" in step for step in others) == (modified is not None)


def test_where_kommo_owns_all_it_watches_the_key_and_sees_deletions(
    new_world: Callable[..., World],
) -> None:
    world = new_world()
    hook = register_airtable(world.engine, BASE)
    key = world.engine.directory.mapping().key.id
    assert specification(world.engine.directory.mapping())["options"]["filters"][
        "watchDataInFieldIds"
    ] == [key]
    record = world.add_record(Kommo_Deal_ID=5)
    world.edit_record(record, Amount=5)
    world.delete_record(record)
    pull_webhook(world.engine, hook.id)
    assert [kind for _, kind in told(world)] == ["create", "delete"]


def test_registering_again_keeps_the_webhook_and_wakes_it(world: World) -> None:
    first = register_airtable(world.engine, BASE)
    world.airtable.webhooks[first.id].notifies = False
    world.clock.advance(3600)
    again = register_airtable(world.engine, BASE)
    assert again.id == first.id
    assert pinged(world) == [f"{BASE}/hooks/airtable/ping"]
    assert world.airtable.webhooks[first.id].notifies
    [hook] = registered(Documents(world.database))
    assert hook.refreshed_at > first.refreshed_at + 3599


def test_another_address_or_mapping_replaces_it_and_nothing_falls_between(world: World) -> None:
    first = register_airtable(world.engine, BASE)
    record = world.add_record(Amount=1)
    second = register_airtable(world.engine, ELSEWHERE)
    assert pinged(world) == [f"{ELSEWHERE}/hooks/airtable/ping"]
    assert told(world) == [(record, "create")]
    world.restart(fields=FIELDS[:2])
    third = register_airtable(world.engine, ELSEWHERE)
    assert len({first.id, second.id, third.id}) == 3
    assert [hook.id for hook in registered(Documents(world.database))] == [third.id]
    assert len(pinged(world)) == 1


def test_one_that_airtable_has_ended_is_replaced(world: World) -> None:
    first = register_airtable(world.engine, BASE)
    with world.airtable.lock:
        break_webhook(world.airtable, world.airtable.webhooks[first.id], "INVALID_HOOK")
    [shown] = registrations(world.engine, SECRET)
    assert "register again" in shown.state
    assert register_airtable(world.engine, BASE).id != first.id
    [shown] = registrations(world.engine, SECRET)
    assert shown.state == "ok"
    assert len(pinged(world)) == 1


def test_what_a_lost_store_left_behind_is_cleared_and_others_are_not(world: World) -> None:
    for url in (f"{BASE}/hooks/airtable/ping", "https://another.example.com/hook"):
        world.engine.airtable.create_webhook(url, specification(world.engine.directory.mapping()))
    register_airtable(world.engine, BASE)
    assert sorted(pinged(world)) == [
        "https://another.example.com/hook", f"{BASE}/hooks/airtable/ping",
    ]  # fmt: skip


def test_a_base_that_is_full_says_so(world: World) -> None:
    for _ in range(10):
        world.engine.airtable.create_webhook(
            "https://another.example.com", specification(world.engine.directory.mapping())
        )
    with pytest.raises(ConfigurationError, match="ten webhooks"):
        register_airtable(world.engine, BASE)
    assert registered(Documents(world.database)) == []


def test_the_list_shows_both_sides_their_state_and_no_secret(world: World) -> None:
    register_kommo(world.engine, BASE, SECRET)
    world.engine.kommo.subscribe(f"{BASE}/hooks/kommo/an-older-secret", ["add_lead"])
    world.engine.kommo.subscribe("https://another.example.com?token=theirs", ["add_lead"])
    hook = register_airtable(world.engine, BASE)
    world.airtable.webhooks[hook.id].notifies = False
    found = registrations(world.engine, SECRET)
    assert [(each.side, each.address, each.state == "ok") for each in found] == [
        ("kommo", f"{BASE}/hooks/kommo/***", True),
        ("kommo", f"{BASE}/hooks/kommo/***", False),
        ("airtable", f"{BASE}/hooks/airtable/ping", False),
    ]
    assert SECRET not in str(found)
    assert "older-secret" not in str(found)
    assert "theirs" not in str(found)
    assert hook.secret not in str(found)


def test_another_installation_on_the_same_accounts_is_none_of_ours(world: World) -> None:
    watch = specification(world.engine.directory.mapping())
    world.engine.kommo.subscribe(f"{ELSEWHERE}/hooks/kommo/their-secret", ["add_lead"])
    world.engine.airtable.create_webhook(f"{ELSEWHERE}/hooks/airtable/ping", watch)
    assert registrations(world.engine, SECRET) == []
    # One at our own address is ours, left by a store that is gone.
    world.engine.kommo.subscribe(f"{BASE}/hooks/kommo/{SECRET}", ["add_lead"])
    world.engine.airtable.create_webhook(f"{BASE}/hooks/airtable/ping", watch)
    assert [(each.side, each.state) for each in registrations(world.engine, SECRET)] == [
        ("kommo", "ok"), ("airtable", "not registered by this store"),
    ]  # fmt: skip


def test_where_kommo_has_no_webhooks_by_api_airtable_s_are_removed_all_the_same(
    world: World,
) -> None:
    register_airtable(world.engine, BASE)
    world.fail("kommo", "status", status=403, variant="json", route="*/webhooks")
    assert [each.side for each in remove(world.engine, SECRET)] == ["airtable"]
    assert pinged(world) == []


def test_removing_ends_ours_and_only_ours(world: World) -> None:
    register_kommo(world.engine, BASE, SECRET)
    world.engine.kommo.subscribe("https://another.example.com/hook", ["add_lead"])
    hook = register_airtable(world.engine, BASE)
    world.engine.airtable.create_webhook(
        "https://another.example.com", specification(world.engine.directory.mapping())
    )
    assert [each.side for each in remove(world.engine, SECRET)] == ["kommo", "airtable"]
    left = [shown["destination"] for shown in world.engine.kommo.webhooks()]
    assert left == ["https://another.example.com/hook"]
    assert pinged(world) == ["https://another.example.com"]
    assert Documents(world.database).get(hook.document) is None
    assert remove(world.engine, SECRET) == []


def test_one_that_is_gone_already_can_be_removed(world: World) -> None:
    hook = register_airtable(world.engine, BASE)
    world.engine.airtable.delete_webhook(hook.id)
    [shown] = registrations(world.engine, SECRET)
    assert shown.state != "ok"
    remove(world.engine, SECRET)
    assert registered(Documents(world.database)) == []


def disable(world: World) -> None:
    for webhook in world.kommo.state.rows["webhooks"].values():
        webhook["disabled"] = True


def test_a_webhook_that_is_well_is_left_alone(world: World) -> None:
    register_kommo(world.engine, BASE, SECRET)
    before = world.engine.kommo.webhooks()
    world.clock.advance(60)
    assert mend_kommo_webhook(world.engine, SECRET) == ""
    assert world.engine.kommo.webhooks() == before
    assert Gaps(world.database).since() is None


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (disable, "disabled by Kommo after too many errors"),
        (lambda world: world.kommo.state.rows["webhooks"].clear(), "gone from Kommo"),
    ],
)
def test_a_webhook_that_went_bad_is_registered_again_and_what_it_missed_is_a_gap(
    world: World, harm: Callable[[World], None], said: str
) -> None:
    register_kommo(world.engine, BASE, SECRET)
    world.clock.advance(86_400)
    mend_kommo_webhook(world.engine, SECRET)
    well_at = world.clock.now().timestamp()
    harm(world)
    world.clock.advance(86_400)
    assert mend_kommo_webhook(world.engine, SECRET) == said
    assert [each.state for each in registrations(world.engine, SECRET)] == ["ok"]
    assert Gaps(world.database).since() == pytest.approx(well_at, abs=2.0)
    assert mend_kommo_webhook(world.engine, SECRET) == ""


def test_a_disabled_webhook_whose_address_was_not_kept_is_mended_all_the_same(world: World) -> None:
    register_kommo(world.engine, BASE, SECRET)
    registered_at = world.clock.now().timestamp()
    Documents(world.database).delete(KOMMO_DOCUMENT)
    world.clock.advance(86_400)
    disable(world)
    assert mend_kommo_webhook(world.engine, SECRET)
    assert Gaps(world.database).since() == pytest.approx(registered_at, abs=2.0)


def test_what_a_person_never_registered_or_removed_is_not_registered_by_itself(
    world: World,
) -> None:
    assert mend_kommo_webhook(world.engine, SECRET) == ""
    register_kommo(world.engine, BASE, SECRET)
    remove(world.engine, SECRET)
    assert mend_kommo_webhook(world.engine, SECRET) == ""
    assert world.engine.kommo.webhooks() == []


def test_registering_by_hand_switches_a_disabled_webhook_on(world: World) -> None:
    register_kommo(world.engine, BASE, SECRET)
    disable(world)
    register_kommo(world.engine, BASE, SECRET)
    assert [each.state for each in registrations(world.engine, SECRET)] == ["ok"]


def test_registered_for_another_address_kommo_no_longer_calls_the_former(world: World) -> None:
    by_hand = f"https://by-hand.example.com/hooks/kommo/{SECRET}"
    world.engine.kommo.subscribe(by_hand, ["add_lead"])
    for base in (BASE, ELSEWHERE):
        register_kommo(world.engine, base, SECRET)
    called = {str(shown["destination"]) for shown in world.engine.kommo.webhooks()}
    assert called == {by_hand, f"{ELSEWHERE}/hooks/kommo/{SECRET}"}


def test_where_the_plan_has_no_webhooks_only_a_webhook_of_ours_is_missed(world: World) -> None:
    world.fail("kommo", "status", status=403, variant="json", route="*/webhooks")
    assert mend_kommo_webhook(world.engine, SECRET) == ""
    world.mend()
    register_kommo(world.engine, BASE, SECRET)
    world.fail("kommo", "status", status=403, variant="json", route="*/webhooks")
    with pytest.raises(ConfigurationError, match="Kommo denies this"):
        mend_kommo_webhook(world.engine, SECRET)


def test_a_plan_without_webhooks_leaves_the_other_side_and_says_how_by_hand(world: World) -> None:
    world.fail("kommo", "status", status=403, variant="json", route="*/webhooks")
    world.fail("airtable", "status", status=403, method="POST", route="*/webhooks")
    done, failures = _register(world.engine, BASE, SECRET)
    assert done["automation"]
    in_kommo, in_airtable = failures
    assert "Settings > Integrations > Web hooks" in str(in_kommo)
    assert "Airtable denies this" in str(in_airtable)
