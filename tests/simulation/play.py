"""One seed, one story: people, lost and doubled hooks, outages, crashes, two workers, one clock.

The engine, store, clients and parsers are the real ones; the stand-ins' models answer them. The
same seed tells the same story again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.engine.context import LEASE_SECONDS, Engine
from kommo_airtable_sync.engine.follow import work_batch
from tests.simulated import World
from tests.trap import Crash, Trap

STEPS = (
    "inbox.claim",
    "inbox.settle",
    "journal.load",
    "journal.open",
    "journal.acknowledge",
    "kommo.leads_by_id",
    "airtable.upsert",
    "airtable.find_records",
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
NAMES = ("Müller & Söhne", "Café", 'Quote " me', "ООО Ромашка", "deal 🎓", "")
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
        self.late: list[bytes] = []
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
        """Salespeople create a lead, or change one or several."""
        if not self.leads or self.dice.random() < 0.25:
            internal = self.dice.random() < 0.1
            tags = {"_embedded": {"tags": [{"name": "internal"}]}} if internal else {}
            lead = self.world.add_lead(name=self.dice.choice(NAMES), **tags)
            self.leads.append(lead)
            if internal:
                self.hidden.add(lead)
            self.counts["created"] += 1
            return
        some = self.dice.sample(self.leads, min(len(self.leads), self.dice.choice((1, 1, 2, 12))))
        change: dict[str, Any] = self.dice.choice(
            ({"price": self.dice.randrange(100)}, {"name": self.dice.choice(NAMES)})
        )
        self.world.edit_leads(some, **change)
        self.counts["edited"] += len(some)

    def hooks(self) -> None:
        """Kommo's hooks arrive: some twice, some late, some never, in any order."""
        bodies = self.world.take_hooks()
        arrived: list[bytes] = []
        for body in bodies:
            fate = self.dice.random()
            if fate < 0.1:
                self.counts["hooks lost"] += 1
            elif fate < 0.3:
                self.late.append(body)
                self.counts["hooks late"] += 1
            else:
                arrived += [body] * self.dice.choice((1, 1, 2))
        while self.late and self.dice.random() < 0.3:
            arrived.append(self.late.pop(self.dice.randrange(len(self.late))))
        self.dice.shuffle(arrived)
        self.world.receive(arrived)
        self.counts["events"] += len(arrived)

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
        self.world.fail(side, times=self.dice.randrange(1, 4), **fault)
        self.counts[f"fault {fault['kind']}"] += 1

    def time(self) -> None:
        """Nothing happens for a while."""
        self.world.clock.advance(self.dice.choice((0.5, 3.0, 30.0, 600.0)))

    def end(self) -> None:
        """All is mended, what was late arrives, and what was lost is asked for again."""
        self.world.mend()
        self.world.clock.advance(LEASE_SECONDS + 1)
        self.world.receive(self.late)
        self.world.deliver_hooks()
        for lead in self.leads:
            self.world.hint(lead)
        self.world.work(patience=HOURS_OF_PATIENCE)

    def check(self) -> None:
        """Both sides agree, nothing is open, dead or doubled, and no limit was broken by us."""
        shown = [lead for lead in self.leads if lead not in self.hidden]
        self.world.assert_in_step(shown)
        assert self.world.errors() == []
        written = [(row.key, row.field) for row in self.world.journal_rows("done")
                   if row.operation == "create"]  # fmt: skip
        assert len(written) == len(set(written)), "a lead was created twice"


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
