"""The way to the models: one Protocol, one module per kind of upstream. Knows HTTP, knows nothing of money."""
