"""The checks of `tollhouse doctor`, by what they look at; `registry.py` lists them all."""
