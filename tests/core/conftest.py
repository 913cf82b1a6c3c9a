"""How long properties look for a counter-example; ``make properties`` looks longer."""

from __future__ import annotations

import os

from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("hundreds", max_examples=200, deadline=None)
settings.register_profile("thousands", max_examples=3_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "hundreds"))
