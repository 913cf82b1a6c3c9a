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

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.core.errors import SyncError
from kommo_airtable_sync.core.types import BULK, LIVE, lead_key
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import LEASE_SECONDS, Engine
from kommo_airtable_sync.engine.follow import work_batch
from kommo_airtable_sync.engine.reconcile import Comparison, compare_sides, hand_over, remember
from kommo_airtable_sync.store.entries import resolve_event
from kommo_airtable_sync.store.survey import Survey
from tests.simulation.acts import FAULTS, Act
from tests.simulation.doors import Doors, Leases
from tests.simulation.judge import Judge, Strains
from tests.simulation.people import FIELDS, LEADS_MAX, RENAMED, SIDES, People
from tests.simulation.stage import LOCK_SECONDS, Broken, Stage

WORKERS_MAX = 3
BATCHES_A_RUN = 3
LINGER_SECONDS = (2.0, 3.0)
"""A run without work looks again after these."""
HOURS_OF_RETRIES = 3 * 3600.0
"""Then Kommo has given up what it could not deliver, and every lease has run out."""
HOURS_OF_PATIENCE = 48 * 3600.0
ON_DISK_ONE_IN = 8


class Story(People):
    """Plays one seed.

    Args:
        seed: decides everything.
        folder: where a store on disk may be.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.path = folder / f"story-{seed}.db" if seed % ON_DISK_ONE_IN == 0 else None
        super().__init__(Stage(seed, self.path), seed)
        self.trace = self.world.trace
        self.counts: Counter[str] = Counter()
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

    def _wait(self, seconds: float) -> None:
        self.world.turns.pass_time(self.world.clock.true + timedelta(seconds=seconds))

    # ------------------------------------------------------------------ our workers

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
                if finding["key"] not in self.untold and not self._is_rounded_back(finding):
                    raise Broken("told", f"the night finds what was told long ago: {finding}")
            self._hand_over(self.world.engine, compared, release=True)

        if self._compare(then):
            self._come_to_rest()

    def _is_rounded_back(self, finding: Any) -> bool:
        """Whether Kommo has rounded a price to what it was: nothing changed there, so no news."""
        return all(
            change["name"] == "Amount"
            and self.world.alike(
                "Amount", *(canonical.from_json(change[each]) for each in ("before", "after"))
            )
            for change in finding["changes"]
        )

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
            for name in ("judged", "in the window"):
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
