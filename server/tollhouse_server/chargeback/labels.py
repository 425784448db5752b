"""Labels that the server puts on every record of a project or key, whatever its caller says."""

from collections.abc import Callable, Mapping

from tollhouse_server.chargeback import label_store
from tollhouse_server.database.engine import Database
from tollhouse_server.names import ApiKeyName, ProjectName


def holder_of(name: ProjectName | ApiKeyName) -> str:
    """Return what labels of a project or key are kept under: its id alone, for departments move."""
    return f"projects/{name.project}" if isinstance(name, ProjectName) else f"apiKeys/{name.api_key}"


class LiveBoundLabels:
    """All bound labels in memory, as they are by the epoch of the labels: a call looks twice, and asks nobody."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._labels: Mapping[tuple[str, str], Mapping[str, str]] = {}

    async def reload(self) -> Callable[[], None]:
        """Read them all; what is returned puts them in force.

        Raises:
            StoreUnavailable: PostgreSQL cannot be reached.
        """
        async with self._database.transaction() as session:
            labels = await label_store.all_labels(session)

        def put_in_force() -> None:
            self._labels = labels

        return put_in_force

    def on(self, free: Mapping[str, str], *, tenant: str, project: str, credential: str) -> dict[str, str]:
        """Return the labels of a call's records: its own, over them those of its project, over all those of its key."""
        return {**free, **self.bound(tenant=tenant, project=project, credential=credential)}

    def bound(self, *, tenant: str, project: str, credential: str) -> dict[str, str]:
        """Return the labels that are bound to a project and a key of it, those of the key over those of the project."""
        labels: dict[str, str] = {}
        for holder in (f"projects/{project}", f"apiKeys/{credential}"):
            bound = self._labels.get((tenant, holder))
            if bound is not None:
                labels.update(bound)
        return labels
