"""One seed, one story: people, lost and doubled hooks, outages, crashes, two workers, one clock.

The engine, store, clients and parsers are the real ones; the stand-ins' models answer them. The
same seed tells the same story again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.core.airtable_hooks import parse_automation
from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import Canonical, IncomingEvent, lead_key
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import LEASE_SECONDS, Engine
from kommo_airtable_sync.engine.follow import work_batch
from tests.simulated import World
from tests.simulation.judge import Edit, Judge
from tests.trap import Crash, Trap
from tests.two_way import edit

STEPS = (
    "inbox.claim",
    "inbox.settle",
    "journal.load",
    "journal.open",
    "journal.acknowledge",
    "kommo.leads_by_id",
    "airtable.upsert",
    "airtable.find_records",
    "kommo.update_leads",
)
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "drop_before"},
    {"kind": "drop_after"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 502},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 500, "applied": True},
    {"kind": "delay", "seconds": 17.0},
    {"kind": "delay", "seconds": 2.0},
)
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
HOURS_OF_PATIENCE = 48 * 3600.0


class Story:
    """Plays one seed in a world.

    Args:
        world: empty accounts.
        seed: decides everything.
    """

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = random.Random(seed)
        self.leads: list[int] = []
        self.hidden: set[int] = set()
        self.late: list[tuple[str, bytes]] = []
        self.edits: list[Edit] = []
        self.deletions: list[tuple[float, int]] = []
        self.fields = {each.name: each for each in world.engine.directory.mapping().fields}
        self.counts: Counter[str] = Counter()
        self.trace: list[str] = []
        self._runs = 0
        self._interleaving = False

    def play(self, acts: int) -> None:
        """So many things happen, one after another."""
        choices: list[tuple[int, Callable[[], None]]] = [
            (4, self.people),
            (4, self.hooks),
            (5, self.work),
            (1, self.trouble),
            (1, self.world.mend),
            (1, self.time),
        ]
        weights = [weight for weight, _ in choices]
        for _ in range(acts):
            act = self.dice.choices([act for _, act in choices], weights)[0]
            self.trace.append(act.__name__)
            act()

    def people(self) -> None:
        """Somebody creates a lead, or edits one or several on either side; now and then oddly."""
        fate = self.dice.random()
        if not self.leads or fate < 0.2:
            self._create()
        elif fate < 0.24:
            self.world.add_record(Deal_Name="Typed by hand", Amount=1)
            self.counts["records by hand"] += 1
        elif fate < 0.28:
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
        if internal:
            self.hidden.add(lead)
        self.counts["created"] += 1

    def _delete_a_record(self) -> None:
        records = self.world.by_lead()
        if records:
            lead = self.dice.choice(sorted(records))
            self.world.delete_record(records[lead]["id"])
            self.deletions.append((self._now(), lead))
            self.counts["records deleted"] += 1

    def _edit(self, side: str, lead: int) -> None:
        if side == "airtable" and lead not in self.world.by_lead():
            return
        if self.dice.random() < 0.3:
            tag, before = self.dice.choice(TAGS), self._shown(side, lead, "Tags")
            before = before if isinstance(before, frozenset) else frozenset()
            edit(self.world, side, lead, {}, before ^ {tag})
            self._note(side, lead, "Tags", tag in before, tag not in before, tag)
            return
        name = self.dice.choice(tuple(FIELDS))
        before = self._shown(side, lead, name)
        edit(self.world, side, lead, {name: FIELDS[name](self.dice)})
        after = self._shown(side, lead, name)
        if not canonical.same(before, after):
            self._note(side, lead, name, before, after)

    def _note(
        self, side: str, lead: int, name: str, before: Canonical, value: Canonical, tag: str = ""
    ) -> None:
        self.edits.append(Edit(self._now(), side, lead, name, before, value, tag))
        self.counts[f"edited in {side}"] += 1
        self.trace.append(f"  {self.edits[-1]}")

    def _shown(self, side: str, lead: int, name: str) -> Canonical:
        field = self.fields[name]
        if side == "kommo":
            return field.from_kommo(self.world.lead(lead), final=True)
        return field.from_cell(self.world.record(lead).get(name))

    def _now(self) -> float:
        return self.world.clock.now().timestamp()

    def hooks(self) -> None:
        """Both sides' posts arrive: some twice, some late, some never, in any order."""
        posts = [("kommo", body) for body in self.world.take_hooks()]
        posts += [("airtable", body) for body in self.world.take_automations()]
        arrived: list[tuple[str, bytes]] = []
        for post in posts:
            fate = self.dice.random()
            if fate < 0.1:
                self.counts["hooks lost"] += 1
            elif fate < 0.3:
                self.late.append(post)
                self.counts["hooks late"] += 1
            else:
                arrived += [post] * self.dice.choice((1, 1, 2))
        while self.late and self.dice.random() < 0.3:
            arrived.append(self.late.pop(self.dice.randrange(len(self.late))))
        self.dice.shuffle(arrived)
        self._receive(arrived)
        self.counts["events"] += len(arrived)

    def _receive(self, posts: list[tuple[str, bytes]]) -> None:
        for side, body in posts:
            if side == "kommo":
                self.world.receive([body])
            else:
                self.world.inbox.receive(parse_automation(body))

    def work(self) -> None:
        """A run takes a batch; it may die at any step, or another may work in between."""
        self._runs += 1
        run_id = f"run-{self._runs}"
        fate = self.dice.random()
        engine = self.world.new_engine() if fate < 0.5 else self.world.engine
        trap = Trap()
        if fate < 0.25:
            trap = Trap(self.dice.choice(STEPS), self.dice.random() < 0.5, 1)
        elif fate < 0.4:
            trap = _Interleaved(self.dice.choice(STEPS), lambda: self._other(run_id))
        try:
            self._batch(trap.set(engine), run_id)
        except Crash:
            self.counts["crashes"] += 1
            self.trace.append(f"  {run_id} dies at {trap.step}")
            self._find_the_body(run_id)

    def _batch(self, engine: Engine, run_id: str) -> None:
        batch = claim_batch(engine, run_id)
        if batch is not None:
            work_batch(engine, batch)
            self.counts["batches"] += 1

    def _find_the_body(self, run_id: str) -> None:
        """The sweep finds it, or the lease runs out."""
        if self.dice.random() < 0.5:
            self.world.inbox.release_run(run_id)
        else:
            self.world.clock.advance(LEASE_SECONDS + 1)

    def _other(self, run_id: str) -> None:
        """Another worker has its turn; now and then the first one has overslept its lease."""
        if self._interleaving:
            return
        self._interleaving = True
        if self.dice.random() < 0.4:
            self.counts["overslept"] += 1
            if self.dice.random() < 0.5:
                self.world.inbox.release_run(run_id)
            else:
                self.world.clock.advance(LEASE_SECONDS + 1)
        self.people()
        self.hooks()
        self._runs += 1
        self.counts["interleaved"] += 1
        self._batch(self.world.new_engine(), f"run-{self._runs}")
        self._interleaving = False

    def trouble(self) -> None:
        """A side goes wrong for a few calls."""
        side = self.dice.choice(("kommo", "airtable"))
        fault = self.dice.choice(FAULTS)
        method = self.dice.choice(("*", "PATCH"))
        self.world.fail(side, times=self.dice.randrange(1, 4), method=method, **fault)
        self.counts[f"fault {fault['kind']}"] += 1

    def time(self) -> None:
        """Nothing happens for a while."""
        self.world.clock.advance(self.dice.choice((0.5, 3.0, 30.0, 600.0)))

    def end(self) -> None:
        """All is mended, what was late arrives, and what was lost is asked for again."""
        self.world.mend()
        self.world.clock.advance(LEASE_SECONDS + 1)
        self._receive(self.late)
        for lead in self.leads:
            self.world.hint(lead)
        self._come_to_rest()
        self._decide()
        self._come_to_rest()

    def _come_to_rest(self) -> None:
        for _ in range(20):
            self.world.clock.advance(2)
            if not self.world.deliver_hooks() and self.world.next_due_at() is None:
                return
            self.world.work(patience=HOURS_OF_PATIENCE)
        raise AssertionError("it does not come to rest")

    def _decide(self) -> None:
        """People who edit one field against each other look like a loop: now somebody decides."""
        known = self.world.journal.load([lead_key(lead) for lead in self.leads])
        for key, each in known.items():
            for held in each.held.values():
                self.counts[f"held: {held.reason}"] += 1
                directive = {
                    "field": held.field,
                    "kommo": canonical.to_json(held.kommo),
                    "airtable": canonical.to_json(held.airtable),
                    "use": self.dice.choice(SIDES),
                    "actor": "test",
                }
                event = IncomingEvent(
                    key, "resolve", "resolve", always_read=True, directive=directive
                )
                self.world.inbox.receive([event])

    def check(self) -> None:
        """Both sides agree, nothing is open, dead or doubled, and no edit is lost."""
        shown = [lead for lead in self.leads if lead not in self.hidden]
        self.world.assert_in_step(shown, may_keep=True)
        assert self.world.errors() == []
        done = self.world.journal_rows("done")
        judge = Judge(self.edits, self.world.journal_rows(), self.deletions, self.counts)
        judge.no_edit_is_lost(
            {(lead, name): self._shown("airtable", lead, name)
             for lead in shown for name in (*FIELDS, "Tags")}
        )  # fmt: skip
        judge.nothing_is_written_twice()
        self.counts["writes"], self.counts["edits"] = judge.writes_per_edit()
        created = [(row.key, row.field) for row in done if row.operation == "create"]
        again = [lead_key(lead) for _, lead in self.deletions]
        once = [each for each in created if each[0] not in again]
        assert len(once) == len(set(once)), "a record was created twice"


class _Interleaved(Trap):
    """Lets another worker in at a step, instead of dying there."""

    def __init__(self, step: str, other: Callable[[], None]) -> None:
        super().__init__()
        self._at = step
        self._other = other
        self._done = False

    def call(self, step: str, act: Callable[[], Any]) -> Any:
        if step == self._at and not self._done:
            self._done = True
            try:
                self._other()
            except LeaseLost:
                raise AssertionError("a lost lease of another run is none of ours") from None
        return act()
