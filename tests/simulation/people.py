"""People on both sides: what they do, what of that we are told, and what is lost on the way."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.core.types import Canonical, IncomingEvent, lead_key
from kommo_airtable_sync.receiver.app import automation_events, kommo_events
from tests.simulation.judge import Edit
from tests.simulation.stage import CAMPAIGN_ID, Stage
from tests.two_way import edit

NAMES = ("Müller & Söhne", "Café", 'Quote " me', "ООО Ромашка", "deal 🎓")
TAGS = ("hot", "VIP", "partner")
FIELDS: dict[str, Callable[[random.Random], Any]] = {
    "Deal Name": lambda dice: f"{dice.choice(NAMES)} {dice.randrange(1000)}",
    "Amount": lambda dice: dice.randrange(100),
    "Region": lambda dice: dice.choice(("EU", "UK", "US")),
    "Seats": lambda dice: dice.randrange(100),
    "Website": lambda dice: f"https://example.com/{dice.randrange(1000)}",
}
"""What people edit, on either side, whoever owns it."""
SIDES = ("kommo", "airtable")
RENAMED = ("Budget", "Kickoff", "Contract Date")
"""Fields whose names people change; nobody edits their values."""
LEADS_MAX = 12

Post = tuple[str, bytes]


def parsed(side: str, body: bytes) -> list[IncomingEvent]:
    """What a body tells, as the receiver reads it."""
    return kommo_events(body, links=True) if side == "kommo" else automation_events(body)


class People:
    """Those who work in both accounts.

    Args:
        world: theirs.
        seed: decides what they do.
    """

    def __init__(self, world: Stage, seed: int) -> None:
        self.world = world
        self.happened = world.happened
        self.dice = random.Random(seed)
        self.leads: list[int] = []
        self.hidden: set[int] = set()
        self.late: list[Post] = []
        self.edits: list[Edit] = []
        self.deletions: list[tuple[float, int]] = []
        self.acknowledged = 0
        # Whether Kommo tells of what programs write is an inference (reference 6): here it may not.
        self.silent = seed % 3 == 1
        # Keys of which news was lost, or there is none: Airtable tells of no deleted record.
        self.untold: set[str] = set()
        # What people did, to the second: (side, key, when).
        self.touched: set[tuple[str, str, int]] = set()

    def _now(self) -> float:
        return self.world.servers.now().timestamp()

    def act_people(self) -> None:
        """Somebody creates a lead, or edits one or several on either side; now and then oddly."""
        fate = self.dice.random()
        if not self.leads or (fate < 0.2 and len(self.leads) < LEADS_MAX):
            self._create()
        elif fate < 0.22:
            self.world.add_record(Deal_Name="Typed by hand", Amount=1)
            self.happened["records made by people"] += 1
        elif fate < 0.25:
            self._type_a_record()
        elif fate < 0.29:
            self._delete_a_record()
        else:
            many = self.dice.choice((1, 1, 1, 2, 6))
            for lead in self.dice.sample(self.leads, min(len(self.leads), many)):
                for side in self.dice.choice((*((each,) for each in SIDES), SIDES)):
                    self._edit(side, lead)

    def _create(self) -> None:
        internal = self.dice.random() < 0.1
        tags = {"_embedded": {"tags": [{"name": "internal"}]}} if internal else {}
        lead = self.world.add_lead(name=self.dice.choice(("", *NAMES)), **tags)
        self.leads.append(lead)
        self._touch("kommo", lead)
        if internal:
            self.hidden.add(lead)
        self.happened["leads made by people"] += 1
        self.world.say(f"  lead {lead}")

    def _type_a_record(self) -> None:
        """Somebody types a lead's record, with its key, before we have made one."""
        without = set(self.leads) - self.hidden - set(self.world.record_ids())
        busy = self.world.turns.workers or any(w.next_due_at() for w in self.world.turns.wires)
        if not without or busy:
            return
        lead = self.dice.choice(sorted(without))
        names = self.dice.sample(tuple(FIELDS), 3)
        values = {name: FIELDS[name](self.dice) for name in names}
        self.world.add_record(Kommo_Deal_ID=lead, **values)
        self.happened["records made by people"] += 1
        for name in names:
            self._note("airtable", lead, name, None, self.world.shown("airtable", lead, name))

    def _delete_a_record(self) -> None:
        records = self.world.record_ids()
        if records:
            lead = self.dice.choice(sorted(records))
            self.world.delete_record(records[lead])
            self.deletions.append((self._now(), lead))
            self.untold.add(lead_key(lead))
            self.happened["records deleted by people"] += 1
            self.world.say(f"  record of lead {lead} deleted")

    def _edit(self, side: str, lead: int) -> None:
        if side == "airtable" and lead not in self.world.record_ids():
            return
        if self.dice.random() < 0.3:
            tag = self.dice.choice(TAGS)
            if side == "kommo" and self.dice.random() < 0.1:
                tag = f"new-{self.dice.randrange(20)}"  # Airtable has no such option yet
            before = self.world.shown(side, lead, "Tags")
            before = before if isinstance(before, frozenset) else frozenset()
            edit(self.world, side, lead, {}, before ^ {tag})
            self._note(side, lead, "Tags", tag in before, tag not in before, tag)
            return
        if side == "kommo" and self.dice.random() < 0.15:
            values = [{"field_id": CAMPAIGN_ID, "values": [{"value": f"{self.dice.random()}"}]}]
            self.world.edit_lead(lead, custom_fields_values=values)
            self.happened["edits of what nobody mapped"] += 1
            self._touch("kommo", lead)
            self.world.say(f"  kommo {lead} Campaign")
            return
        name = self.dice.choice(tuple(FIELDS))
        before = self.world.shown(side, lead, name)
        edit(self.world, side, lead, {name: FIELDS[name](self.dice)})
        after = self.world.shown(side, lead, name)
        if not canonical.same(before, after):
            self._note(side, lead, name, before, after)

    def _note(
        self, side: str, lead: int, name: str, before: Canonical, value: Canonical, tag: str = ""
    ) -> None:
        self.edits.append(Edit(self._now(), side, lead, name, before, value, tag))
        self.happened[f"edits in {side}"] += 1
        self._touch(side, lead)
        self.world.say(f"  {side} {lead} {name}{f' {tag}' if tag else ''}: {before!r} -> {value!r}")

    def _touch(self, side: str, lead: int) -> None:
        self.touched.add((side, lead_key(lead), int(self._now())))

    def act_schema(self) -> None:
        """Somebody renames a field that we write, names it as before, or adds an option."""
        self.happened["schema changes"] += 1
        if self.dice.random() < 0.3:
            name = f"option-{self.dice.randrange(1000)}"
            self.world.add_option("Products", name)
            self.world.say(f"  option {name}")
            return
        name = self.dice.choice(RENAMED)
        self._rename(name, f"{name} (old)")

    def _rename(self, name: str, other: str) -> None:
        here = {each.name for each in self.world.table.fields.values()}
        old, new = (name, other) if name in here else (other, name)
        self.world.alter_field(old, name=new)
        self.world.say(f"  {old} is now {new}")

    # ------------------------------------------------------------------ what we are told

    def act_hooks(self) -> None:
        """Both sides' posts arrive: some twice, some late, some never, in any order."""
        if self.dice.random() < 0.05:
            # Kommo tries again later, an automation does not.
            refused = [("airtable", body) for body in self.world.take_automations()]
            self.happened["posts that found nobody"] += len(refused) + self.world.refuse_kommo()
            self._lose(refused)
            return
        arrived: list[Post] = []
        for post in self._posts():
            fate = self.dice.random()
            if fate < 0.1:
                self.happened["posts lost"] += 1
                self._lose([post])
            elif fate < 0.3:
                self.late.append(post)
                self.happened["posts delayed"] += 1
            else:
                arrived += [post] * self.dice.choice((1, 1, 2))
        while self.late and self.dice.random() < 0.3:
            arrived.append(self.late.pop(self.dice.randrange(len(self.late))))
        self.dice.shuffle(arrived)
        self._receive(arrived)

    def _posts(self) -> list[Post]:
        """What both sides have to tell now."""
        kommo: list[Post] = [("kommo", body) for body in self.world.take_hooks()]
        if self.silent:
            kommo = [post for post in kommo if self._news([post])]
        return kommo + [("airtable", body) for body in self.world.take_automations()]

    def _lose(self, posts: Sequence[Post]) -> None:
        """Nobody hears of these; the night has to find out."""
        self.untold |= self._news(posts)

    def _news(self, posts: Sequence[Post]) -> set[str]:
        """The leads on which these posts tell of people. Of our own writes there is no news."""
        leads = {record: lead for lead, record in self.world.record_ids().items()}
        told: set[str] = set()
        for side, event in [(each, event) for each, body in posts for event in parsed(each, body)]:
            kind, _, which = event.key.partition(":")
            key = f"lead:{leads.get(which)}" if kind == "record" else event.key
            at = event.occurred_at and int(event.occurred_at.timestamp())
            if at is None or (side, key, at) in self.touched:
                told.add(key)
        return told

    def _receive(self, posts: Sequence[Post]) -> None:
        for side, body in posts:
            self.happened[f"posts delivered by {side}"] += 1
            events = parsed(side, body)
            self.world.inbox.receive(events)
            self.acknowledged += len(events)
        if posts:
            self.world.say(f"  {len(posts)} posts")
