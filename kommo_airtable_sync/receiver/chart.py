"""The latency chart of the status page: an SVG made on the server. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT, LEFT, BOTTOM = 720, 170, 44, 24
BAR_GAP = 4
# The scale's end: the least of these that holds all bars.
SCALES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


def latency_chart(hours: Sequence[tuple[float, float, int] | None]) -> Markup:
    """Bars by hour: p95 in light, p50 in full colour before it; a title for each.

    Args:
        hours: (p50, p95, how many) in seconds, oldest first; None where nothing came.
    """
    worst = max((each[1] for each in hours if each), default=0.0)
    top = next((scale for scale in SCALES if worst <= scale), SCALES[-1])
    high, step = HEIGHT - BOTTOM - 8, (WIDTH - LEFT) / max(1, len(hours))

    def y(seconds: float) -> float:
        return round(8 + high * (1 - min(seconds, top) / top), 1)

    lines = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y(top * part)}" y2="{y(top * part)}"/>'
        f'<text x="{LEFT - 6}" y="{y(top * part) + 4}" text-anchor="end">{top * part:g} s</text>'
        for part in (0, 0.5, 1)
    ]
    for number, each in enumerate(hours):
        x, wide = round(LEFT + number * step + BAR_GAP / 2, 1), round(step - BAR_GAP, 1)
        back = len(hours) - 1 - number
        if back % 6 == 0:
            label = "now" if back == 0 else f"-{back} h"
            lines.append(
                f'<text x="{x + wide / 2:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{label}</text>'
            )
        if each is None:
            continue
        told = f"{each[2]} changes: half within {each[0]:.2f} s, 95 % within {each[1]:.2f} s"
        bars = "".join(
            f'<rect class="{name}" x="{x}" y="{y(value)}" width="{wide}" '
            f'height="{round(HEIGHT - BOTTOM - y(value), 1)}" rx="2"/>'
            for name, value in (("p95", each[1]), ("p50", each[0]))
        )
        lines.append(f"<g><title>{told}</title>{bars}</g>")
    # Numbers only: nothing of a lead's is in here.
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Seconds from being told of a change to having written it, by hour">'
        f"{''.join(lines)}</svg>"
    )
