"""The process that holds one model and drains its shards."""
