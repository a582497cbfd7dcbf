"""What can go wrong, by what the doors do about it.

Each message is one readable line: what is wrong, the value, the remedy.
"""


class EmergenceError(Exception):
    """Base of every error that a person can act on."""


class UsageError(EmergenceError):
    """A config, option, vocabulary or name that cannot mean what was written (exit 2)."""


class NotMeasurable(EmergenceError):
    """The model cannot be had here, or the lens refuses its architecture (tests are skipped)."""


class BrokenExperiment(EmergenceError):
    """Diverged, NaN, disk full, adapter not applied: never a verdict (fixture error, exit 3)."""
