"""Patches the residual of every layer and position of one prompt into another; a value a run."""
