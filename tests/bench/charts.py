"""Charts of the JSON as SVG: white ground, so that they can be read in a dark page, too.

The same figures give the same bytes: no dates, no random ids.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.ack import saturation
from tests.bench.latency import FLOOR_SECONDS, PATTERNS
from tests.bench.report import ACK_BAR_MS, LATENCY_BARS

Known = dict[str, Any]

STYLE = {
    "svg.hashsalt": "kommo-airtable-sync",
    "svg.fonttype": "path",  # looks the same wherever it is shown
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
OURS, BACK, STOCK, NAIVE, FLOOR = "#0b6e4f", "#63b598", "#c8553d", "#e09f3e", "#555555"
SECONDS_MIN = 0.1


def draw(known: Known, folder: Path) -> None:
    """A picture for each part that was measured."""
    with mpl.rc_context(STYLE):
        for part, picture in PICTURES.items():
            if part in known:
                figure = picture(known[part])
                figure.savefig(folder / f"bench-{part}.svg", metadata={"Date": None})


def _latency(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    paths = {
        ("warm", "forward"): ("Kommo to Airtable", OURS),
        ("warm", "reverse"): ("Airtable to Kommo", BACK),
        ("stock", "forward"): ("the same ops, stock Dagster", STOCK),
        ("naive", "forward"): ("naive script", NAIVE),
    }
    found = {(row["rhythm"], row["path"], row["direction"]): row for row in rows}
    rhythms = [name for name in PATTERNS if any(key[0] == name for key in found)]
    step = len(paths) + 1
    for at, (path, (name, colour)) in enumerate(paths.items()):
        here = [(n, found[(r, *path)]) for n, r in enumerate(rhythms) if (r, *path) in found]
        for n, row in here:
            box = axes.boxplot(
                [[max(SECONDS_MIN, each) for each in row["seconds"]]],
                positions=[n * step + at],
                widths=0.7,
                whis=(5, 95),
                patch_artist=True,
                flierprops={"marker": ".", "markersize": 3, "markeredgecolor": colour},
                medianprops={"color": "black"},
            )
            box["boxes"][0].set_facecolor(colour)
        if here:
            axes.bar(0, 0, color=colour, label=name)
    axes.set_yscale("log")
    axes.set_xticks(
        [n * step + (len(paths) - 1) / 2 for n in range(len(rhythms))],
        [f"{rhythm}\n({found[rhythm, 'warm', 'forward']['events']} events)" for rhythm in rhythms],
    )
    axes.axhline(FLOOR_SECONDS, color=FLOOR, linestyle=":", label="two API calls")
    axes.axhline(LATENCY_BARS["p95_s"], color=FLOOR, linestyle="--", label="bar of p95")
    _seconds(axes, (SECONDS_MIN, 0.2, 0.5, 1, 2, 5, 10, 20, 50))
    axes.set_ylabel("seconds from edit to write")
    axes.set_title("Latency by pattern: box p25 to p75, whiskers p5 to p95")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _seconds(axes: Axes, ticks: tuple[float, ...]) -> None:
    high = axes.get_ylim()[1]
    shown = [tick for tick in ticks if tick <= high]
    axes.set_yticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.set_ylim(SECONDS_MIN * 0.9, high)


def _ack(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for server, name, colour in (
        ("SQLite", "receiver on SQLite", OURS),
        ("PostgreSQL", "receiver on PostgreSQL", STOCK),
        ("bare", "an endpoint that does nothing", FLOOR),
    ):
        here = sorted(
            (row["rate_per_s"], row["p50_ms"], row["p99_ms"])
            for row in rows
            if row["server"] == server
        )
        if not here:
            continue
        rates, p50, p99 = zip(*here, strict=True)
        axes.plot(rates, p99, color=colour, marker="o", markersize=3, label=f"{name}, p99")
        axes.plot(rates, p50, color=colour, linestyle=":", label=f"{name}, p50")
        most = saturation(rows, server)
        axes.axvline(most, color=colour, linewidth=0.8)
        axes.annotate(
            f"{most:,}/s", (most, 0.98), xycoords=("data", "axes fraction"), color=colour,
            rotation=90, ha="right", va="top",
        )  # fmt: skip
    axes.axhline(
        ACK_BAR_MS, color=FLOOR, linestyle="--", linewidth=0.8, label="bar of p99 at 100/s"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(
        [50, 100, 200, 400, 800, 1600, 3200, 6400],
        ["50", "100", "200", "400", "800", "1,600", "3,200", "6,400"],
    )
    axes.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    axes.minorticks_off()
    axes.set_xlabel("webhooks a second; upright lines: the highest rate that is kept up with")
    axes.set_ylabel("milliseconds to the answer")
    axes.set_title("Acknowledgement, after the commit")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _burst(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    ours = [row for row in rows if row["by"] == "product" and row["mapping"] == "Kommo owns all"]
    naive = {row["leads"]: row for row in rows if row["by"] == "naive"}
    names = [f"{row['leads']:,} deals" for row in ours]
    calls, seconds = figure.subplots(1, 2)
    _groups(
        calls,
        names,
        {
            "product": ([row["airtable_calls"] + row["kommo_calls"] for row in ours], OURS),
            "naive script": ([2 * row["leads"] for row in ours], NAIVE),
        },
    )
    calls.set_title("API calls")
    _groups(
        seconds,
        names,
        {
            "product": ([row["seconds"] for row in ours], OURS),
            "floor: its calls at the limits": ([row["airtable_floor_s"] for row in ours], FLOOR),
            "naive script (of 10,000 a share)": (
                [naive[row["leads"]]["seconds"] for row in ours],
                NAIVE,
            ),
        },
    )
    seconds.set_title("Seconds")
    handles, labels = seconds.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _groups(axes: Axes, names: list[str], series: dict[str, tuple[list[float], str]]) -> None:
    width = 0.8 / len(series)
    for at, (name, (values, colour)) in enumerate(series.items()):
        places = [n + (at - (len(series) - 1) / 2) * width for n in range(len(names))]
        bars = axes.bar(places, values, width * 0.92, color=colour, label=name)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=1, fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.margins(y=0.12)


def _reconcile(parts: dict[str, list[dict[str, Any]]]) -> Figure:
    rows = next(rows for name, rows in parts.items() if name.startswith("scale"))
    names = [row["pattern"] for row in rows]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    _groups(
        seconds,
        names,
        {
            "processor": ([row["plan_cpu_s"] for row in rows], OURS),
            "its API calls at the limits": ([row["floor_s"] for row in rows], FLOOR),
        },
    )
    seconds.set_title("Seconds to compare both sides")
    seconds.legend(loc="upper left")
    _groups(memory, names, {"memory": ([row["plan_rss_mb"] for row in rows], OURS)})
    memory.set_title("Most memory held (MB)")
    return figure


def _idle(rows: list[dict[str, Any]]) -> Figure:
    wholes = ("whole stack", "stock Dagster, whole")
    parts = [row for row in rows if row["pattern"] not in wholes]
    whole = {row["pattern"]: row for row in rows if row["pattern"] in wholes}
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    names = [
        row["pattern"] + (f" ({row['processes']})" if row["processes"] > 1 else "") for row in parts
    ]
    for axes, part, title in zip(
        figure.subplots(1, 2, sharey=True),
        ("cpu_percent", "pss_mb"),
        ("Processor, % of a core", "Memory, MB (proportional set size)"),
        strict=True,
    ):
        bars = axes.barh(names, [row[part] for row in parts], color=OURS)
        axes.bar_label(bars, [f"{row[part]:.3g}" for row in parts], padding=2, fontsize=8)
        ours, stock = (f"{whole[name][part]:.3g}" for name in wholes)
        axes.set_title(f"{title}\nwhole stack {ours}, stock Dagster {stock}")
        axes.margins(x=0.12)
    return figure


PICTURES: dict[str, Callable[[Any], Figure]] = {
    "latency": _latency,
    "ack": _ack,
    "burst": _burst,
    "reconcile": _reconcile,
    "idle": _idle,
}
