"""The invariants: a function each, from the facts of a history to the violations in words."""
