"""Routing: from a tier or a model's name to the upstream targets that can serve a call, in order."""
