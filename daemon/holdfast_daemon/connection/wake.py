"""Whether this machine slept, or the daemon stood still. Sans-I/O, no clock.

While a machine sleeps its monotonic clock stands and its boot clock goes on. A process
that was stopped, or whose virtual machine was, sees both go on, and that nobody has
looked for long. Either way the hosts may have given us up meanwhile.
"""

from __future__ import annotations


class Watch:
    """Compares two clocks from look to look."""

    def __init__(self) -> None:
        self._looked: tuple[float, float] | None = None

    def look(
        self, monotonic: float, boottime: float, *, due: float, least: float
    ) -> float:
        """Return the seconds missed since the last look, at least `least`, or 0.

        Args:
            monotonic: The clock that stands still in sleep.
            boottime: The clock that goes on in sleep.
            due: Seconds that there ought to be between two looks.
            least: Less than this is no sleep: a busy machine is late too.
        """
        before, self._looked = self._looked, (monotonic, boottime)
        if before is None:
            return 0.0
        awake = monotonic - before[0]
        asleep = (boottime - before[1]) - awake
        missed = max(asleep, awake - due)
        return missed if missed >= least else 0.0
