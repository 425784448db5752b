"""The lossless mapping between Gemini's REST JSON and the messages of `tollhouse.v1`."""

from tollhouse_server.api.gemini_json.mapper import Mapper

__all__ = ["Mapper"]
