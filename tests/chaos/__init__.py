"""Chaos: real processes, broken on purpose, and what readers see while that happens.

`make chaos` runs all of it; `python -m tests.chaos --help` tells the rest.
"""
