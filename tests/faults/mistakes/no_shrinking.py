"""A pytest plugin: one counterexample is enough to see that a mistake is caught, nobody needs the shortest."""

from hypothesis import Phase, settings

settings.register_profile("no-shrinking", phases=(Phase.explicit, Phase.generate), database=None, deadline=None)
settings.load_profile("no-shrinking")
