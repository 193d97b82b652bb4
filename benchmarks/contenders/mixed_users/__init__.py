"""Many different requests, as many users make: each reads one layer and overwrites neurons in another."""
