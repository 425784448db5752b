"""Priority classes: who waits for whom when upstream accounts are busy."""

from enum import IntEnum


class Priority(IntEnum):
    """The most important first, so that the smaller of two is the more important."""

    CRITICAL = 0
    DEFAULT = 1
    BATCH = 2
    SHEDDABLE = 3
