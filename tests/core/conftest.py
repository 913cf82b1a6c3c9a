"""``HYPOTHESIS_PROFILE=thousands make test ARGS=tests/core`` looks longer for a counter-example."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("thousands", max_examples=3_000, deadline=None)
if os.environ.get("HYPOTHESIS_PROFILE"):
    settings.load_profile(os.environ["HYPOTHESIS_PROFILE"])
