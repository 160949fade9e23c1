"""Which configurations of a kernel a launch takes, chosen at build time.

::

    chosen = select(launches, SM90)      # of each launch: what it takes, by conditions on sizes
    chosen[0][0].when, chosen[0][0].configuration, chosen[0][0].checked.binary

A kernel's buckets are what is taken where nothing speaks against them. They are compared with its
candidates at sizes of its axis one after the other (``Kernel.axis``), by the model of
``strop.kernels.estimate``. A candidate is taken where it is faster by a margin, or where the usual
configuration breaks a limit. The same launches give the same choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from torch import SymInt

from strop.kernels.architecture import Architecture
from strop.kernels.compiler import CompileError
from strop.kernels.estimate import estimated_seconds, least_seconds
from strop.kernels.expression import names_in
from strop.kernels.gate import Checked, GateError, Readers, violations
from strop.kernels.kernel import Bucket, Configuration, Launch
from strop.kernels.sampling import at, samples
from strop.kernels.specialization import plain, variant_of
from strop.kernels.stored import Store
from strop.kernels.variant import Variant

# A model is rough: a candidate must take less than this share of the usual one's time, and less by
# more than these seconds, which are those of what no model holds.
MARGIN = 0.85
LEAST_GAIN = 5e-6

Timing = Callable[[Checked, Launch, Configuration], float | None]
Tried = Mapping[Variant, Checked | CompileError]


@dataclass(frozen=True)
class Taken:
    """A configuration that a launch takes.

    Attributes:
        when: a condition on the launch's whole numbers; "" for all that are left.
        configuration: how the kernel is compiled.
        checked: the compiled variant; it breaks no limit.
        candidate: whether it is one of the kernel's candidates, not what its buckets say.
    """

    when: str
    configuration: Configuration
    checked: Checked
    candidate: bool


def select(
    launches: Sequence[Launch],
    architecture: Architecture,
    seconds: Timing = estimated_seconds,
    store: Store | None = None,
) -> list[tuple[Taken, ...]]:
    """What each launch takes, in the order of conditions: the first one that holds counts.

    Variants are compiled together, so give all launches at once; candidates that cannot be faster
    by the model are not compiled.

    Args:
        launches: with plain or symbolic sizes.
        architecture: what is compiled for.
        seconds: how long a launch with plain sizes takes, None where that is not known; by the
            model, or as ``strop.kernels.measure`` measures it on a GPU.
        store: where compiled kernels are kept; what is taken does not depend on it.

    Raises:
        CompileError: a kernel cannot be compiled with any configuration that it may take.
        GateError: none of these holds to the limits.
    """
    here = [replace(one, kernel=one.kernel.on(architecture.capability)) for one in launches]
    tried = try_all(here, architecture, seconds, store)
    return [taken(one, tried, seconds) for one in here]


def try_all(
    launches: Sequence[Launch],
    architecture: Architecture,
    seconds: Timing = estimated_seconds,
    store: Store | None = None,
) -> Tried:
    """What launches may take, compiled and read, each once.

    First what is usual; then, again and again, of the candidates that may be faster than all that
    are compiled the most promising ones, until there are none.
    """
    tried: dict[Variant, Checked | CompileError] = {}
    choices = [_Choice(one, tried, seconds) for one in launches]
    wanted = [(one, bucket.configuration) for one in launches for bucket in usual_buckets(one)]
    with Readers(architecture, store) as readers:
        while wanted:
            distinct = list(dict.fromkeys(variant_of(*pair) for pair in wanted))
            tried.update(zip(distinct, readers.try_and_read(distinct)))
            wanted = [(one, c) for one, choice in zip(launches, choices) for c in choice.rivals()]
    return tried


def taken(launch: Launch, tried: Tried, seconds: Timing = estimated_seconds) -> tuple[Taken, ...]:
    """What one launch takes of what was tried; as ``select`` says."""
    return _Choice(launch, tried, seconds).taken()


def usual_buckets(launch: Launch) -> list[Bucket]:
    """The kernel's own, without those that never hold for this launch."""
    given = {**launch.arguments, **launch.constants}
    known = {name: plain(value) for name, value in given.items() if isinstance(value, int | SymInt)}
    sizes = {name: value for name, value in known.items() if value is not None}
    found: list[Bucket] = []
    for bucket in launch.kernel.buckets:
        if bucket.when and not names_in(bucket.when) <= sizes.keys():
            found.append(bucket)
        elif bucket.holds(sizes):
            return [*found, Bucket("", bucket.configuration)]
    return found


class _Choice:
    """The choice for one launch."""

    def __init__(self, launch: Launch, tried: Tried, seconds: Timing) -> None:
        self._launch = launch
        self._tried = tried
        self._seconds = seconds
        self._measured = seconds is not estimated_seconds

    def rivals(self) -> list[Configuration]:
        """Candidates to compile next, by what is known before; none if no more may be taken."""
        kernel = self._launch.kernel
        if not kernel.axis or not (self._measured or self._refused() or kernel.share):
            return []
        left = [one for one in kernel.candidates if self._checked(one) is None]
        if self._measured or self._refused():
            return left
        chosen = [self._most_promising(left, point) for point in self._points.values()]
        return [one for one in left if any(one is other for other in chosen)]

    def _most_promising(
        self, candidates: Sequence[Configuration], launch: Launch
    ) -> Configuration | None:
        """Of candidates that are not compiled the one with the least bound, if it may be taken."""
        usual = launch.kernel.configuration(launch.sizes())
        checked, times = self._checked(usual), self._times(launch)
        assert isinstance(checked, Checked)
        bounds = [least_seconds(checked, launch, one) for one in candidates]
        least = min(bounds, default=math.inf)
        if not times or not _faster(least, times[0][1]) or least >= min(t for _, t in times):
            return None
        return candidates[bounds.index(least)]

    def _refused(self) -> bool:
        usual = usual_buckets(self._launch)
        return any(isinstance(self._checked(b.configuration), Exception) for b in usual)

    def taken(self) -> tuple[Taken, ...]:
        """What it takes: the kernel's own buckets, if the model has nothing better anywhere."""
        usual = usual_buckets(self._launch)
        if not self._launch.kernel.axis:
            return tuple(self._own(bucket) for bucket in usual)
        sampled = list(self._sampled())
        if not self._refused() and not any(one.candidate for one in sampled):
            return tuple(self._own(bucket) for bucket in usual)
        return tuple(_merged(sampled))

    def _own(self, bucket: Bucket) -> Taken:
        return Taken(bucket.when, bucket.configuration, self._sound(bucket.configuration), False)

    def _sampled(self) -> Iterator[Taken]:
        """What is taken at sizes of the kernel's axis, one after the other."""
        for size, point in self._points.items():
            chosen, candidate = self._best(point)
            when = f"{self._launch.kernel.axis} <= {size}"
            yield Taken(when, chosen, self._sound(chosen), candidate)

    def _best(self, launch: Launch) -> tuple[Configuration, bool]:
        """The configuration for a launch with plain sizes, and whether it is a candidate."""
        usual = launch.kernel.configuration(launch.sizes())
        times = self._times(launch)
        if not times:
            return usual, False
        best, time = min(times, key=lambda pair: pair[1])
        first, its_time = times[0]
        if first == usual and not _faster(time, its_time):
            best = usual
        return best, best != usual

    def _times(self, launch: Launch) -> list[tuple[Configuration, float]]:
        """The times of what is compiled and breaks no limit, the usual configuration first.

        Nothing where the time of the usual one is not known; that of a candidate is then infinite.
        """
        usual = launch.kernel.configuration(launch.sizes())
        found: list[tuple[Configuration, float]] = []
        for configuration in (usual, *launch.kernel.candidates):
            checked = self._checked(configuration)
            if not isinstance(checked, Checked):
                continue
            time = self._seconds(checked, launch, configuration)
            if time is None and configuration == usual:
                return []
            found.append((configuration, math.inf if time is None else time))
        return found

    def _sound(self, configuration: Configuration) -> Checked:
        found = self._checked(configuration)
        if isinstance(found, Exception):
            raise found
        assert found is not None
        return found

    @cached_property
    def _points(self) -> dict[int, Launch]:
        """The launch at sizes of the kernel's axis."""
        axis = self._launch.kernel.axis
        return {n: at(self._launch, axis, n) for n in samples(self._launch.arguments[axis])}

    def _checked(self, configuration: Configuration) -> Checked | CompileError | GateError | None:
        """The compiled variant, or why it may not be taken; None where it was not tried."""
        found = self._tried.get(variant_of(self._launch, configuration))
        if isinstance(found, Checked):
            broken = violations(found)
            return GateError(broken) if broken else found
        return found


def _faster(time: float, usual: float) -> bool:
    """Whether a modelled time is so much less than another that it is believed."""
    return time < MARGIN * usual and usual - time > LEAST_GAIN


def _merged(sampled: Sequence[Taken]) -> Iterator[Taken]:
    """Neighbours with one configuration as one; the last one holds for all that are left."""
    runs = [list(run) for _, run in groupby(sampled, lambda one: one.checked.variant)]
    for run in runs[:-1]:
        yield run[-1]
    yield replace(runs[-1][-1], when="")
