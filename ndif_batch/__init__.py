"""Runs interpretability experiments in bulk: intervention graphs of many users in one forward pass."""
