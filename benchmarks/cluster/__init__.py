"""A simulated cluster: a day of jobs, and three ways to run them."""
