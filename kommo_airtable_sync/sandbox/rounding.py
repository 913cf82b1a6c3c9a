"""A number that a side does not keep as it was written, in both stand-ins."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from pydantic import BaseModel, ConfigDict, Field


class Rounding(BaseModel):
    """How a field's numbers are kept, as a value of the setting ``rounding``.

    Attributes:
        step: the nearest multiple of this is kept, halves away from zero.
        plus: and so much more. Two sides whose roundings share no number never come to rest.
        robot: not the write itself rounds, but an automation of the account, by an edit of its own
            right after every write that was not its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: float = Field(gt=0)
    plus: float = 0
    robot: bool = False

    def kept(self, number: float) -> float:
        """What is kept of a written number; whole ones as ints."""
        step = Decimal(str(self.step))
        steps = (Decimal(str(number)) / step).quantize(Decimal(1), ROUND_HALF_UP)
        kept = steps * step + Decimal(str(self.plus))
        return int(kept) if kept == kept.to_integral_value() else float(kept)
