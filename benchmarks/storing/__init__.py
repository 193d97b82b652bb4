"""What storing results costs: writing beside a computation, and reading one task of many."""
