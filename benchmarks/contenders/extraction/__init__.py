"""Reads the residual of one layer at the last token of many prompts; a vector a prompt."""
