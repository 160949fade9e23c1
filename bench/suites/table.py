"""The suites by name."""

from __future__ import annotations

from collections.abc import Callable

from strop.bench.harness.listener import Listener
from strop.bench.pages.page import Section
from strop.bench.suites import builds, contests, encoders
from strop.bench.suites.order import Order

# Each measures, prints and writes its record, and returns the sections of its page.
SUITES: dict[str, Callable[[Order, Listener], list[Section]]] = {
    "encoders": encoders.run,
    "vision": contests.vision,
    "decoders": contests.decoders,
    "build": builds.run,
}
