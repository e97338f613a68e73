"""`textgen up`: one supervisor that starts, watches, restarts and stops the whole stack.

`plan` says what is to run, `supervisor` runs it as `child` processes, `guard` ends them when the
supervisor itself is killed, `address` is how everybody else finds the stack.
"""
