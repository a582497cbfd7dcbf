"""What a run says to people and programs: the page, its figures and tables, results as files. No MLX."""
