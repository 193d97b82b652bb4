"""The SQL queue: jobs, shards, leases, events."""
