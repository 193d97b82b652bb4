"""Settings: where data lives, which database, how large a batch. From ``NDIF_BATCH_*`` variables or a TOML file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from ndif_batch.errors import SettingsError

APP = "ndif-batch"


class Settings(BaseSettings):
    """Every setting, its default and its bounds. A variable beats the file; the file beats the default."""

    model_config = SettingsConfigDict(env_prefix="NDIF_BATCH_", extra="forbid")

    data_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir(APP)))
    model_cache: Path = Field(default_factory=lambda: Path(platformdirs.user_cache_dir(APP)) / "models")
    database_url: str = ""
    archive_dir: Path | None = None
    user: str = Field(default_factory=lambda: os.environ.get("USER") or "local")
    lease_seconds: Annotated[float, Field(gt=1)] = 60.0
    heartbeat_seconds: Annotated[float, Field(gt=0)] = 2.0
    max_batch_tokens: Annotated[int, Field(ge=1)] = 1024
    limits: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Bounds on a graph that differ from the defaults of ``graph.limits.Limits``, by name."""

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the queue; SQLite in the data directory unless one is set."""
        return self.database_url or f"sqlite:///{self.data_dir / 'queue.db'}"

    @property
    def archive(self) -> Path:
        """Root of the Zarr stores."""
        return self.archive_dir or self.data_dir / "archive"

    @property
    def blobs(self) -> Path:
        """Where constant tensors lie, one safetensors file a digest."""
        return self.data_dir / "blobs"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then the settings file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())


def config_file() -> Path:
    """The settings file: ``NDIF_BATCH_CONFIG`` or ``config.toml`` in the user's configuration directory."""
    return Path(os.environ.get("NDIF_BATCH_CONFIG") or Path(platformdirs.user_config_dir(APP)) / "config.toml")


def load_settings() -> Settings:
    """The settings now in force; ``SettingsError`` names the first wrong one."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"setting {name!r}: {first['msg']}") from None
