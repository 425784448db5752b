"""Who issues and retires upstream keys: a person, Google's API Keys API, or the simulator in its place."""
