"""Arrays in, numbers out: masses, intervals, permutation tests, probes, tidy frames. No MLX."""
