"""A read of the last block's output at the last token, and a chain of small operations on it; a vector a task."""
