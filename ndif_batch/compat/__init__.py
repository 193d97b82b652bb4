"""Experiments written for other libraries, recorded as graphs."""
