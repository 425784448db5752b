"""What stands against reading, exporting or dropping the records of a month."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


@dataclass(eq=False, kw_only=True)
class RecordsDropped(TollhouseError):
    """The answer takes single records of a month that were dropped after an export; sums by whole days are left."""

    reason = "RECORDS_DROPPED"
    month: str

    def message(self) -> str:
        return (
            f"The records of {self.month} (UTC) were exported and dropped, and this answer needs them; ask for whole "
            f"days of the calendar in which they were rolled up, or read the export."
        )


@dataclass(eq=False, kw_only=True)
class ExportMismatch(TollhouseError):
    """What was downloaded is not what the month holds; nothing was confirmed."""

    reason = "EXPORT_MISMATCH"
    name: str
    field: str
    expected: str
    found: str

    def message(self) -> str:
        return f"{self.name} has {self.field} {self.expected}, the download {self.found}; download the month again."


@dataclass(eq=False, kw_only=True)
class MonthNotDroppable(TollhouseError):
    """The records of a month cannot be dropped as it stands; nothing was changed."""

    reason = "MONTH_NOT_DROPPABLE"
    name: str
    obstacle: str

    def message(self) -> str:
        return f"The records of {self.name} stay: the month {self.obstacle}."
