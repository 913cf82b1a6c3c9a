"""One seed, one story: what people, networks, machines and other programs do, and our workers.

The engine, store, clients and parsers are the real ones; the stand-ins' models answer them. A story
is a list of acts. Each draws from dice of its own, so that any act can be left out and the others
stay as they were; and the same seed tells the same story again, byte for byte.

What counts as a simulated event (`Story.happened`): whatever happens to the system from outside, or
that it does to the outside. That is each edit, creation and deletion by a person; each webhook body
delivered, delayed or lost (a body that comes twice counts twice); each HTTP call that our clients
make, and each of another program; each fault that hits a call; each worker that begins, dies, or is
put to sleep; each change of a clock, a schema or a token; each wait. Calls to our own store are
counted apart (`Leases.steps`) and are no events.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.core.errors import SyncError
from kommo_airtable_sync.core.types import BULK, LIVE, Canonical, IncomingEvent, lead_key
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import LEASE_SECONDS, Engine
from kommo_airtable_sync.engine.follow import work_batch
from kommo_airtable_sync.engine.reconcile import Comparison, compare_sides, hand_over, remember
from kommo_airtable_sync.receiver.app import automation_events, kommo_events
from kommo_airtable_sync.store.entries import resolve_event
from kommo_airtable_sync.store.survey import Survey
from tests.simulation.doors import Doors, Leases
from tests.simulation.judge import Edit, Judge, Strains
from tests.simulation.stage import CAMPAIGN_ID, LOCK_SECONDS, Broken, Stage
from tests.two_way import edit

FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "drop_before"},
    {"kind": "drop_after"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 502},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 500, "applied": True},
    {"kind": "delay", "seconds": 19.0},
    {"kind": "delay", "seconds": 5.0},
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
RENAMED = ("Budget", "Kickoff", "Contract Date")
"""Fields whose names people change; nobody edits their values."""
LEADS_MAX = 12
WORKERS_MAX = 3
BATCHES_A_RUN = 3
LINGER_SECONDS = (2.0, 3.0)
"""A run without work looks again after these."""
HOURS_OF_RETRIES = 3 * 3600.0
"""Then Kommo has given up what it could not deliver, and every lease has run out."""
HOURS_OF_PATIENCE = 48 * 3600.0
ON_DISK_ONE_IN = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Act:
    """One act: what happens, and what its dice are seeded with."""

    name: str
    seed: str


WEIGHTS = {
    "people": 7,
    "haste": 1.5,
    "hooks": 7,
    "run": 6,
    "step": 12,
    "crash": 0.8,
    "sweep": 0.8,
    "sleep": 0.3,
    "trouble": 0.8,
    "mend": 1.2,
    "time": 3,
    "foreign": 0.2,
    "token": 0.2,
    "clock": 0.15,
    "schema": 0.15,
    "offsets": 0.2,
    "night": 0.15,
    "calm": 0.5,
}
"""Which acts there are, and how often they happen."""


def acts_of(seed: int, count: int) -> list[Act]:
    """The acts of a seed's story."""
    names = random.Random(seed).choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
    return [Act(name, f"{seed}/{n}") for n, name in enumerate(names)]


Post = tuple[str, bytes]


def parsed(side: str, body: bytes) -> list[IncomingEvent]:
    """What a body tells, as the receiver reads it."""
    return kommo_events(body, links=True) if side == "kommo" else automation_events(body)


class Story:
    """Plays one seed.

    Args:
        seed: decides everything.
        folder: where a store on disk may be.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.path = folder / f"story-{seed}.db" if seed % ON_DISK_ONE_IN == 0 else None
        self.world = Stage(seed, self.path)
        self.happened, self.trace = self.world.happened, self.world.trace
        self.counts: Counter[str] = Counter()
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
        self.strains = Strains()
        self.leases = Leases()
        self.dead: list[str] = []
        self.engines: list[Engine] = []
        self.bulk = self.world.new_engine(BULK)
        self._runs = 0

    def close(self) -> None:
        self.world.close()
        for suffix in ("", "-wal", "-shm") if self.path else ():
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def play(self, acts: Sequence[Act]) -> None:
        """These happen, one after another."""
        for act in acts:
            self.dice = self.world.turns.dice = random.Random(act.seed)
            self.world.say(act.name)
            getattr(self, f"act_{act.name}")()

    def _now(self) -> float:
        return self.world.servers.now().timestamp()

    def _wait(self, seconds: float) -> None:
        self.world.turns.pass_time(self.world.clock.true + timedelta(seconds=seconds))

    # ------------------------------------------------------------------ people

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

    def act_haste(self) -> None:
        """Edits of one lead follow each other within a second or two, and we are at it."""
        if not self.leads:
            return
        lead = self.dice.choice(self.leads)
        sides = self.dice.choice((SIDES[:1], SIDES[1:], SIDES, SIDES))
        for _ in range(self.dice.choice((3, 6))):
            self._edit(self.dice.choice(sides), lead)
            self.act_hooks()
            self.act_run()
            self._wait(self.dice.choice((0.1, 0.3, 0.5)))

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

    # ------------------------------------------------------------------ our workers

    def act_run(self) -> None:
        """A worker begins, beside up to two others."""
        if len(self.world.turns.workers) < WORKERS_MAX:
            self._begin("run", LIVE, self._work)

    def act_night(self) -> None:
        """The nightly reconciliation begins, unless one is under way."""
        if not any(each.name.startswith("night") for each in self.world.turns.workers):
            self._begin("night", BULK, self._reconcile)

    def _begin(self, kind: str, lane: Any, work: Callable[[Engine, str], None]) -> None:
        self._runs += 1
        name = f"{kind}-{self._runs}"
        # A process that goes on after its run, or a new one.
        warm = self.engines.pop() if self.engines and lane == LIVE else self.world.new_engine(lane)

        def run() -> None:
            work(Doors(self.world, self.leases, name).set(warm), name)
            if lane == LIVE:
                self.engines.append(warm)

        self.happened["workers begun"] += 1
        self.world.turns.begin(name, run)
        self.world.say(f"  {name}")

    def _work(self, engine: Engine, run_id: str) -> None:
        lingers, batches = iter(LINGER_SECONDS), 0
        while batches < BATCHES_A_RUN:
            batch = claim_batch(engine, run_id)
            if batch is not None:
                work_batch(engine, batch)
                batches += 1
                self.counts["batches"] += 1
            elif seconds := next(lingers, 0.0):
                engine.clock.advance(seconds)
            else:
                return

    def _reconcile(self, engine: Engine, run_id: str) -> None:
        survey = Survey(Path(":memory:"), engine.clock)
        try:
            compared = compare_sides(engine, survey, None, lambda _what, _done: None)
            if compared.brake is None:
                self._hand_over(engine, compared, release=False)
        except SyncError as error:
            # The run fails; the next night is another one.
            self.counts[f"reconciliations failed: {type(error).__name__}"] += 1
        finally:
            survey.close()
        self._work(engine, run_id)

    def _hand_over(self, engine: Engine, compared: Comparison, *, release: bool) -> None:
        hand_over(engine, compared, release=release)
        remember(engine, compared, {})
        self.counts["reconciliations"] += 1
        self.counts["found by reconciliation"] += sum((+compared.summary.kinds).values())

    def act_step(self) -> None:
        """One worker goes on for some steps, while others wait for their answers."""
        for _ in range(self.dice.choice((1, 2, 4, 8, 16, 32))):
            if not self.world.turns.workers:
                return
            worker = self.dice.choice(self.world.turns.workers)
            for _ in range(self.dice.choice((1, 2, 3))):
                if not worker.over:
                    self.world.turns.step(worker)

    def act_crash(self) -> None:
        """A worker dies where it is; now and then the sweep finds it at once, and another begins."""
        if self.world.turns.workers:
            worker = self.dice.choice(self.world.turns.workers)
            self.world.say(f"  {worker.name} dies")
            worker.die()
            self.dead.append(worker.name)
            self.happened["workers killed"] += 1
            if self.dice.random() < 0.3:
                self._free(self.dead.pop())
                self._go_on()

    def act_sweep(self) -> None:
        """The sweep finds a dead run and frees what it held; else its lease runs out."""
        if self.dead:
            self._free(self.dead.pop(self.dice.randrange(len(self.dead))))

    def _free(self, run_id: str) -> None:
        self.world.inbox.release_run(run_id)
        self.leases.swept(run_id)
        self.happened["runs swept"] += 1
        self.world.say(f"  {run_id} is swept")

    def act_sleep(self) -> None:
        """A worker's machine stands still; now and then it is swept meanwhile."""
        if not self.world.turns.workers:
            return
        worker = self.dice.choice(self.world.turns.workers)
        seconds = self.dice.choice((3.0, 15.0, LEASE_SECONDS + 5))
        self.world.disturb(seconds + 2)
        self.world.disturb(seconds + LOCK_SECONDS, "airtable")
        self.strains.slept[worker.name] += seconds
        worker.wake_at = max(worker.wake_at, self.world.clock.true) + timedelta(seconds=seconds)
        worker.slept_until = worker.wake_at.timestamp()
        self.happened["workers put to sleep"] += 1
        self.world.say(f"  {worker.name} sleeps {seconds:g} s")
        if self.dice.random() < 0.3:
            self._free(worker.name)
            self._go_on()

    def _go_on(self) -> None:
        """Whatever has become of a worker or a call, people go on, and so do other workers."""
        if len(self.leads) < LEADS_MAX and self.dice.random() < 0.3:
            self._create()
        else:
            self.act_people()
        self.act_hooks()
        self.act_run()

    # ------------------------------------------------------------------ networks, machines, others

    def act_trouble(self) -> None:
        """A side goes wrong for a few calls; now and then somebody edits just then."""
        side = self.dice.choice(SIDES)
        fault = self.dice.choice(FAULTS)
        method = self.dice.choice(("*", "PATCH"))
        self.world.fail(side, times=self.dice.randrange(1, 4), method=method, **fault)
        self.world.say(f"  {side} {method} {fault}")
        if self.dice.random() < 0.5:
            self._go_on()

    def act_mend(self) -> None:
        """Nothing goes wrong any more."""
        self.world.mend()
        for name in RENAMED if self.dice.random() < 0.5 else ():
            self._name_as_before(name)

    def _name_as_before(self, name: str) -> None:
        if name not in {each.name for each in self.world.table.fields.values()}:
            self._rename(name, f"{name} (old)")
            self.happened["schema changes"] += 1

    def act_foreign(self) -> None:
        """Another program uses up the account's rate for a while."""
        side = self.dice.choice(SIDES)
        bursts = self.dice.choice((1, 2, 4))
        self.world.disturb(bursts + (LOCK_SECONDS if side == "airtable" else 2), side)
        for _ in range(bursts):
            for _ in range(self.dice.randrange(2, 6)):
                self.world.foreign_call(side)
            self._wait(0.4)

    def act_token(self) -> None:
        """Kommo's access token runs out."""
        self.world.renew_token()
        self.happened["tokens run out"] += 1

    def act_clock(self) -> None:
        """Our machine's clock jumps by some seconds, or is put right."""
        seconds = self.dice.choice((-4.0, -1.5, 0.0, 1.5, 4.0))
        self._set_clock(seconds)
        self.world.disturb(10)
        self.world.disturb(10 + LOCK_SECONDS, "airtable")
        self.happened["clock steps"] += 1
        self.world.say(f"  wrong by {seconds:g} s")

    def _set_clock(self, seconds: float) -> None:
        self.world.clock.wrong_by = timedelta(seconds=seconds)
        self.world.clock.stepped_at = self._now()
        self.strains.clock.append((self._now(), seconds))

    def act_offsets(self) -> None:
        """Airtable forgets where its listings stood."""
        if self.world.airtable.offsets:
            self.world.airtable.offsets.clear()
            self.happened["fault: offsets expired"] += 1

    def act_time(self) -> None:
        """Nothing happens for a while."""
        self.happened["waits"] += 1
        self._wait(self.dice.choice((0.05, 0.5, 3.0, 3.0, 30.0, 30.0, 120.0, 900.0)))

    # ------------------------------------------------------------------ the end

    def act_calm(self) -> None:
        """All is mended, what was late arrives, and what was lost the night finds."""
        self.happened["calms"] += 1
        self.world.mend()
        for name in RENAMED:
            self._name_as_before(name)
        self._set_clock(0.0)
        self.world.disturb(2 * LOCK_SECONDS)
        self._wait(HOURS_OF_RETRIES)
        self._receive(self.late)
        self.late.clear()
        self._come_to_rest()
        self._night()
        self.untold.clear()

    def end(self) -> None:
        """A calm, and a person decides what is held."""
        self.dice = self.world.turns.dice = random.Random(f"{self.seed}/end")
        self.world.say("end")
        self.act_calm()
        self._decide()
        self._come_to_rest()

    def _come_to_rest(self) -> None:
        for _ in range(20):
            self._wait(2)
            due = [lane for lane in (LIVE, BULK) if self.world.next_due_at(lane) is not None]
            if not self._deliver() and not due:
                return
            for engine in (self.world.engine, self.bulk):
                self.world.work(engine, patience=HOURS_OF_PATIENCE)
        raise Broken("rest", "it does not come to rest")

    def _deliver(self) -> int:
        posts = self._posts()
        self._receive(posts)
        return len(posts)

    def _night(self) -> None:
        """A reconciliation in quiet times; a person lets go what the brake holds."""

        def then(compared: Comparison) -> None:
            for finding in compared.survey.found("update", "create", "recreate"):
                if finding["key"] not in self.untold:
                    raise Broken("told", f"the night finds what was told long ago: {finding}")
            self._hand_over(self.world.engine, compared, release=True)

        if self._compare(then):
            self._come_to_rest()

    def _compare(self, then: Callable[[Comparison], None]) -> dict[str, int]:
        survey = Survey(Path(":memory:"), self.world.clock)
        try:
            compared = compare_sides(self.bulk, survey, None, lambda _what, _done: None)
            then(compared)
            return dict(+compared.summary.kinds)
        finally:
            survey.close()

    def _decide(self) -> None:
        """People who edit one field against each other look like a loop: now somebody decides."""
        known = self.world.journal.load([lead_key(lead) for lead in self.leads])
        for key, each in known.items():
            for held in each.held.values():
                self.counts[f"held: {held.reason}"] += 1
                use = self.dice.choice(("kommo", "airtable"))
                self.world.inbox.receive([resolve_event(key, held, use, "test")])

    def check(self) -> None:
        """Both sides agree, nothing is open, dead or doubled, and no edit is lost."""
        shown = [lead for lead in self.leads if lead not in self.hidden]
        try:
            self.world.assert_in_step(shown, may_keep=True, alike=self.world.alike)
        except AssertionError as error:
            raise Broken("agreement", str(error)) from error
        if errors := self.world.errors():
            raise Broken("events", f"dead: {errors}")
        stored = sum(each.source in SIDES for each in self.world.events())
        if stored != self.acknowledged:
            raise Broken("events", f"{self.acknowledged} acknowledged, {stored} stored")
        judge = Judge(
            self.edits,
            self.world.journal_rows(),
            self.deletions,
            self.counts,
            self.strains,
            self.world.alike,
        )
        judge.no_edit_is_lost(
            {(lead, name): self.world.shown("airtable", lead, name)
             for lead in shown for name in (*FIELDS, "Tags")}
        )  # fmt: skip
        judge.nothing_is_written_twice()
        judge.no_record_is_made_twice()
        self.counts["writes"], self.counts["edits"] = judge.writes_per_edit()
        if self.strains.steady:
            for name in ("edits", "in the window"):
                self.counts[f"{name}, steady"] = self.counts[name]
        self._is_quiet()

    def _is_quiet(self) -> None:
        """Told of everything once more, and compared once more, it writes nothing."""
        before = len(self.world.journal_rows())
        for lead in self.leads:
            self.world.hint(lead)
        self.world.work(patience=HOURS_OF_PATIENCE)
        found = self._compare(lambda _: None)
        if len(self.world.journal_rows()) != before or found:
            raise Broken("causes", f"in quiet times it writes, or finds {found}")
