"""Arrays in, numbers out: masses, intervals, permutation tests, probes, tidy frames. No MLX."""

DEALS = 40
"""Deals of a class's prompts into halves in which a verdict is looked at; the first is the recorded one."""
