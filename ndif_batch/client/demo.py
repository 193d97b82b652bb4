"""Where the demonstration lives: a queue and an archive beside the user's own."""

from __future__ import annotations

from ndif_batch.config import Settings, load_settings


def demo_settings() -> Settings:
    """The settings in force, but with queue and archive in ``demo`` inside the data directory."""
    settings = load_settings()
    folder = settings.data_dir.absolute() / "demo"
    return settings.model_copy(update={"data_dir": folder, "database_url": "", "archive_dir": None, "url": ""})
