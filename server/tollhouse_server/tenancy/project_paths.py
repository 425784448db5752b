"""From a project's name to the departments above it, for calls that are booked to another project than the key's."""

from collections.abc import Callable

from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.names import ProjectName
from tollhouse_server.tenancy.store import active_project_path

_KEPT = 100_000


class ProjectPaths:
    """Remembers paths until anything in the tree changes."""

    def __init__(self, database: Database, epoch_watch: EpochWatch) -> None:
        self._database = database
        self._paths: dict[ProjectName, tuple[str, ...]] = {}
        self._generation = 0
        epoch_watch.on_change(Topic.IDENTITY, self._reload)

    async def path_of(self, project: ProjectName) -> tuple[str, ...]:
        """Return the department ids above an active project, from the top of the tree down.

        Raises:
            ResourceNotFound: there is no such project, or it or its tenant is not active.
            StoreUnavailable: the database cannot be asked.
        """
        known = self._paths.get(project)
        if known is not None:
            return known
        generation = self._generation
        async with self._database.transaction() as session:
            path = await active_project_path(session, project)
        # What was read before a change was announced may not be kept after it.
        if generation == self._generation:
            if len(self._paths) >= _KEPT:
                self._paths.clear()
            self._paths[project] = path
        return path

    async def _reload(self) -> Callable[[], None]:
        return self._forget

    def _forget(self) -> None:
        self._generation += 1
        self._paths.clear()
