"""Records experiments written in Python as intervention graphs."""
