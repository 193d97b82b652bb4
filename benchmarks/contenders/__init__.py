"""The contenders: each a script that runs in a process of its own."""
