"""The weights of departments in the queue, as the catalogue in force has them."""

from collections.abc import Callable, Iterator, Mapping

from tollhouse_server.routing.catalogue import Catalogue


class LiveWeights(Mapping[tuple[str, str], float]):
    """A view by (tenant, department) that always reads the catalogue of the moment; others have no entry."""

    def __init__(self, catalogue: Callable[[], Catalogue]) -> None:
        self._catalogue = catalogue

    def __getitem__(self, key: tuple[str, str]) -> float:
        return self._catalogue().department_weights[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._catalogue().department_weights)

    def __len__(self) -> int:
        return len(self._catalogue().department_weights)
