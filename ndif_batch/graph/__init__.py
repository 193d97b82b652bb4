"""The intervention graph: pure data, its operations, its meaning before any model runs."""
