"""Parameter spaces: axes, tasks, tiles, and the YAML that describes them."""
