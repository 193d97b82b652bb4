"""Sets the residual of one layer and position to zero, in prompts that differ; a logit a task."""
