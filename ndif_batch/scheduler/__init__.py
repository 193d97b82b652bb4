"""Keeps the right pilots alive: as many of each model as its waiting work is worth."""
