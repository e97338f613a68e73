"""Measurements of the whole stack; see `bench/__main__.py`."""
