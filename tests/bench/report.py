"""The promises of the design against what was measured; a bar that is missed is called missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.ack import saturation
from tests.bench.latency import FLOOR_SECONDS, PATTERNS

Known = dict[str, Any]
Row = dict[str, str]
Cells = tuple[str, str, str, str, str, str]

COLUMNS = ("promise", "figure", "bar", "baseline in the same run", "ratio", "verdict")
LATENCY_BARS = {"p50_s": 0.9, "p95_s": 1.5, "max_s": 3.0}
ACK_BAR_MS = 50
ACK_BAR_RATE = 100
CALLS_BAR = 0.15
SHARE_BAR = 0.9
MEMORY_GROWTH_BAR = 1.5
CPU_BAR_PERCENT = 5.0
MEMORY_BAR_MB = 900
MARKS = ("<!-- begin: make bench -->", "<!-- end: make bench -->")


def promises(known: Known) -> list[Row]:
    """A row for each promise; what was not measured is named."""
    rows: list[Cells] = []
    for part, tell in TELLERS.items():
        rows += tell(known) if part in known else [(part, "", "", "", "", "not measured")]
    rows += _duplicates(known)
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def _latency(known: Known) -> Iterator[Cells]:
    rows = {(r["rhythm"], r["path"], r["direction"]): r for r in known["latency"]}
    for direction, name in (("forward", "Kommo to Airtable"), ("reverse", "Airtable to Kommo")):
        for rhythm in PATTERNS:
            ours = rows.get((rhythm, "warm", direction))
            if ours is None:
                continue
            stock, naive = (rows.get((rhythm, path, direction)) for path in ("stock", "naive"))
            others = {"stock Dagster": stock, "naive script": naive}
            yield (
                f"{name}, {rhythm}: p50 / p95 / worst",
                f"{_three(ours)} s",
                " / ".join(f"{bar:g}" for bar in LATENCY_BARS.values()) + " s",
                "; ".join(
                    [f"{each} {_three(row)}" for each, row in others.items() if row]
                    + [f"two calls {FLOOR_SECONDS}"]
                ),
                "; ".join(
                    [f"{row['p50_s'] / ours['p50_s']:.1f}" for row in others.values() if row]
                    + [f"{FLOOR_SECONDS / ours['p50_s']:.1f}"]
                ),
                _ok(all(ours[part] < bar for part, bar in LATENCY_BARS.items())),
            )


def _three(row: dict[str, Any]) -> str:
    return " / ".join(f"{row[part]:.2f}" for part in LATENCY_BARS)


def _ack(known: Known) -> Iterator[Cells]:
    at = {(row["server"], row["rate_per_s"]): row for row in known["ack"]}
    bare = at["bare", ACK_BAR_RATE]["p99_ms"]
    for server in ("SQLite", "PostgreSQL"):
        p99 = at[server, ACK_BAR_RATE]["p99_ms"]
        yield (
            f"acknowledged after the commit, {server}, {ACK_BAR_RATE}/s: p99",
            f"{p99:g} ms",
            f"< {ACK_BAR_MS} ms",
            f"an endpoint that does nothing: {bare:g} ms",
            f"{bare / p99:.2f}",
            _ok(p99 < ACK_BAR_MS),
        )
    most = saturation(known["ack"], "bare")
    for server in ("SQLite", "PostgreSQL"):
        ours = saturation(known["ack"], server)
        yield (
            f"keeps up, {server}, until",
            f"{ours:,}/s",
            "none set",
            f"an endpoint that does nothing: {most:,}/s",
            f"{ours / most:.2f}",
            "",
        )


def _burst(known: Known) -> Iterator[Cells]:
    ours = [row for row in known["burst"] if row["by"] == "product"]
    naive = {row["leads"]: row for row in known["burst"] if row["by"] == "naive"}
    for row in ours:
        other, name = naive[row["leads"]], f"burst of {row['leads']:,}, {row['mapping']}"
        by_share = "" if other["measured_share"] == 1 else f" ({other['measured_share']:.0%} of it)"
        own = row["mapping"] == "Kommo owns all"
        yield (
            f"{name}: calls a deal",
            f"{row['calls_per_lead']:.3f}",
            f"<= {CALLS_BAR}" if own else "none set",
            f"naive script{by_share}: {other['calls_per_lead']:g}",
            f"{other['calls_per_lead'] / row['calls_per_lead']:.1f}",
            _ok(row["calls_per_lead"] <= CALLS_BAR) if own else "",
        )
        yield (
            f"{name}: share of the limits' speed",
            f"{1 / row['times_floor']:.0%} ({row['seconds']:g} s)",
            f">= {SHARE_BAR:.0%}",
            f"naive script{by_share}: {other['seconds']:,.0f} s",
            f"{other['seconds'] / row['seconds']:.1f}",
            _ok(1 / row["times_floor"] >= SHARE_BAR),
        )
    refused = sum(row["too_many_requests"] + row["again_429"] for row in ours)
    yield _zero("429s of our own making in these", refused)
    yield _zero("writes for what has not changed, in these", sum(r["again_writes"] for r in ours))


def _thrift(known: Known) -> Iterator[Cells]:
    for row in known["thrift"]:
        idle = row["pattern"] == "told of no change"
        yield (
            f"one at a time, {row['pattern']}: calls / writes",
            f"{row['calls_per_event']:g} / {row['writes_per_event']:g}",
            "0 writes" if idle else "none set",
            f"naive script: {row['naive_calls_per_event']} / 1",
            f"{row['naive_calls_per_event'] / row['calls_per_event']:.1f}",
            _ok(row["writes_per_event"] == 0) if idle else "",
        )


def _echo(known: Known) -> Iterator[Cells]:
    [row] = known["echo"]
    figure = row["writes_per_edit"]
    yield (
        "writes an edit, both sides told of all",
        f"{figure:g}",
        "<= 1",
        "",
        "",
        _ok(figure <= 1),
    )


def _machines(known: Known) -> Iterator[Cells]:
    [row] = known["machines"]
    lost = row["events acknowledged"] - row["in the inbox"] + row["not done"] + row["differences"]
    name = f"{row['events acknowledged']:,} events, {row['kills']} times kill -9"
    yield _zero(f"{name}: lost", lost)
    yield _zero(f"{name}: out of order", row["out of order"])


def _crash(known: Known) -> Iterator[Cells]:
    for row in known["crash"]:
        name = f"{row['kills']} times kill -9 of any part, {row['pattern']}"
        wrong = (
            "acknowledged and lost",
            "not done",
            "differences",
            "deals without their last edit",
            "out of order",
        )
        yield _zero(f"{name}: lost, different or out of order", sum(row[each] for each in wrong))


def _outage(known: Known) -> Iterator[Cells]:
    [row] = known["outage"]
    dead = row["dead"] + row["differences"]
    away = f"Airtable away for {row['outage_s']:g} s"
    yield _zero(f"{away}: dead, or different", dead)
    yield _zero(f"{away}: 429s after it", row["too_many_requests"])


def _duplicates(known: Known) -> Iterator[Cells]:
    parts = [part for part in ("burst", "outage", "echo", "machines", "crash") if part in known]
    count = sum(row.get("duplicates", 0) for part in parts for row in known[part])
    if parts:
        yield _zero(f"duplicates ({', '.join(parts)})", count)


def _reconcile(known: Known) -> Iterator[Cells]:
    parts = known["reconcile"]
    scale = next((rows for name, rows in parts.items() if name.startswith("scale")), [])
    if scale:
        last, first = scale[-1], scale[0]
        yield (
            f"{last['pattern']} compared: the processor's time",
            f"{last['plan_cpu_s']:.0f} s",
            "less than the calls' at the limits",
            f"{last['floor_s']:.0f} s",
            f"{last['floor_s'] / last['plan_cpu_s']:.1f}",
            _ok(last["plan_cpu_s"] < last["floor_s"]),
        )
        growth = last["plan_rss_mb"] / first["plan_rss_mb"]
        yield (
            f"{last['pattern']} compared: memory",
            f"{last['plan_rss_mb']} MB",
            f"<= {MEMORY_GROWTH_BAR} times",
            f"{first['pattern']}: {first['plan_rss_mb']} MB",
            f"{growth:.2f}",
            _ok(growth <= MEMORY_GROWTH_BAR),
        )
    for name, rows in parts.items():
        if name.startswith("drifts"):
            row = rows[0]
            wrong = row["missed"] + row["extra"] + row["again_not_for_people"]
            yield _zero(f"{row['planted']} drifts in {row['leads']:,}: wrong or left", wrong)


def _start(known: Known) -> Iterator[Cells]:
    rows = known["start"]
    for ours, stock in zip(rows[:2], rows[2:], strict=True):
        yield (
            f"{ours['pattern']}: ready / first event in Airtable",
            f"{ours['ready_s']} / {ours['first_event_s']} s",
            "none set",
            f"dagster dev: {stock['ready_s']} / {stock['first_event_s']} s",
            f"{stock['first_event_s'] / ours['first_event_s']:.1f}",
            "",
        )


def _idle(known: Known) -> Iterator[Cells]:
    rows = {row["pattern"]: row for row in known["idle"]}
    ours, stock = rows["whole stack"], rows["stock Dagster, whole"]
    for name, part, bar, unit in (
        ("processor", "cpu_percent", CPU_BAR_PERCENT, "% of a core"),
        ("memory (PSS)", "pss_mb", MEMORY_BAR_MB, "MB"),
    ):
        yield (
            f"idle, whole stack: {name}",
            f"{ours[part]:.4g} {unit}",
            f"< {bar:g}",
            f"dagster dev with a plain sensor: {stock[part]:.4g}",
            f"{stock[part] / ours[part]:.1f}",
            _ok(ours[part] < bar),
        )


def _zero(promise: str, count: int) -> Cells:
    return promise, str(count), "0", "", "", _ok(count == 0)


def _ok(kept: bool) -> str:
    return "ok" if kept else "MISSED"


TELLERS: dict[str, Callable[[Known], Iterator[Cells]]] = {
    "latency": _latency,
    "ack": _ack,
    "burst": _burst,
    "thrift": _thrift,
    "echo": _echo,
    "outage": _outage,
    "machines": _machines,
    "crash": _crash,
    "reconcile": _reconcile,
    "start": _start,
    "idle": _idle,
}


def write(known: Known, page: Path) -> None:
    """Put machine and table between the marks of the page."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    minutes = known["minutes"]
    lines = [
        "{cores} cores, Python {python}, Dagster {dagster}, {date}, commit {commit}.".format(
            **known["machine"]
        ),
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
        *("| " + " | ".join(row[name] for name in COLUMNS) + " |" for row in promises(known)),
        "",
        "Minutes: " + ", ".join(f"{part} {minutes[part]:g}" for part in minutes) + ".",
    ]
    table = "\n".join(lines)
    page.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")
