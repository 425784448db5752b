"""What a path of Gemini's REST API names: the Developer API's and Vertex's, express mode included."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tollhouse_server.simulator import errors

GLOBAL = "global"
_PATH = re.compile(
    r"^/(?P<version>v1|v1beta|v1beta1|v1alpha)/"
    r"(?:projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/)?(?P<publisher>publishers/google/)?"
    r"(?:models|tunedModels)(?:/(?P<model>[^/:]+)(?::(?P<method>\w+))?)?/?$"
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names; `project` and `region` only on Vertex, `method` None for `models.get` and `models.list`."""

    version: str
    project: str | None
    region: str | None
    model: str | None
    method: str | None
    vertex: bool

    @classmethod
    def read(cls, http_method: str, path: str) -> Target:
        """Read a path, or raise a 404."""
        found = _PATH.match(path)
        if found is None:
            raise errors.path_not_found()
        version, project, region, publisher, model, method = found.groups()
        if http_method != ("GET" if method is None else "POST"):
            raise errors.path_not_found()
        return cls(version, project, region, model, method, project is not None or publisher is not None)

    @property
    def service(self) -> str:
        """Google's name of the API behind this path."""
        return errors.VERTEX if self.vertex else errors.DEVELOPER

    def not_found(self, method: str) -> errors.GeminiError:
        """Give the error for a model that does not exist here or lacks a method."""
        if self.vertex:
            return errors.publisher_model_not_found(self.project or "-", self.region or GLOBAL, self.model or "")
        return errors.model_not_found(self.model or "", self.version, method)
