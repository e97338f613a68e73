"""The tests: unit (pure), integration (real servers), smoke (whole processes), faults, browser."""
