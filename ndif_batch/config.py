"""Settings: where data lives, which database, how large a batch. From ``NDIF_BATCH_*`` variables or a TOML file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from ndif_batch.errors import SettingsError

APP = "ndif-batch"

Resources: TypeAlias = dict[str, int | float | str | dict[str, str | int | bool]]
"""What a pilot gets, in submitit's words: ``gpus_per_node``, ``mem_gb``, ``slurm_partition``, …"""


class ModelPilots(BaseModel):
    """The pilots of one model, where they differ from those of all: more ``resources``, how few and how many.

    ``parallel`` says how workers put it on several GPUs: ``layers`` one after another, or (``tensor``) each weight
    split over all of them, a process a GPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resources: Resources = Field(default_factory=dict)
    minimum: Annotated[int, Field(ge=0)] = 0
    maximum: Annotated[int, Field(ge=0)] | None = None
    parallel: Literal["layers", "tensor"] = "layers"


class ClusterSettings(BaseModel):
    """How the scheduler starts and ends pilots. Times are in seconds, ``gpus`` counts those of all pilots together.

    A pilot without GPUs counts as one. ``load_seconds`` is assumed of models that were never loaded; a pilot that the
    launcher keeps waiting for longer than ``pending_seconds`` is given up, and one that was asked to end and has not
    after ``drain_seconds`` is killed. The others: ``scheduling.cluster.Limits``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    launcher: Literal["inline", "local", "slurm"] = "local"
    folder: Path | None = None
    resources: Resources = Field(default_factory=dict)
    models: dict[str, ModelPilots] = Field(default_factory=dict)
    gpus: Annotated[int, Field(ge=0)] = 1
    partitions: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    gpus_per_user: Annotated[int, Field(ge=0)] | None = None
    tick_seconds: Annotated[float, Field(gt=0)] = 5.0
    worth: Annotated[float, Field(gt=0)] = 5.0
    least_seconds: Annotated[float, Field(gt=0)] = 60.0
    idle_seconds: Annotated[float, Field(ge=0)] = 300.0
    patience_seconds: Annotated[float, Field(gt=0)] = 120.0
    residence_seconds: Annotated[float, Field(ge=0)] = 1800.0
    shortest_walltime: Annotated[float, Field(ge=60)] = 3600.0
    longest_walltime: Annotated[float, Field(ge=60)] = 4 * 3600.0
    load_seconds: Annotated[float, Field(gt=0)] = 60.0
    pending_seconds: Annotated[float, Field(gt=0)] = 3600.0
    drain_seconds: Annotated[float, Field(gt=0)] = 120.0


class ServerSettings(BaseModel):
    """What a server takes from each who asks, so that it has time for all.

    A token may ask ``burst`` times at once and ``requests_per_second`` after that; workers, who share one, ten times
    as much. A request comes within ``patience_seconds`` and a second for each ``bytes_per_second`` of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_second: Annotated[float, Field(gt=0)] = 200.0
    burst: Annotated[int, Field(ge=1)] = 2000
    connections: Annotated[int, Field(ge=1)] = 1024
    patience_seconds: Annotated[float, Field(gt=0)] = 20.0
    bytes_per_second: Annotated[int, Field(ge=1)] = 16_384


class Settings(BaseSettings):
    """Every setting, its default and its bounds. A variable beats the file; the file beats the default."""

    model_config = SettingsConfigDict(env_prefix="NDIF_BATCH_", extra="forbid")

    data_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir(APP)))
    model_cache: Path = Field(default_factory=lambda: Path(platformdirs.user_cache_dir(APP)) / "models")
    database_url: str = ""
    archive_dir: Path | None = None
    user: str = Field(default_factory=lambda: os.environ.get("USER") or "local")
    url: str = ""
    """A server to ask in place of the database: ``http://127.0.0.1:8080``, or ``unix:`` and the path of its socket."""
    token: Annotated[SecretStr | None, Field(exclude=True)] = None
    token_file: Path | None = None
    reason: Annotated[str | None, Field(exclude=True, max_length=200)] = None
    """Why what is done is done: events keep it."""
    lease_seconds: Annotated[float, Field(gt=1)] = 60.0
    heartbeat_seconds: Annotated[float, Field(gt=0)] = 2.0
    max_batch_tokens: Annotated[int, Field(ge=1)] | None = None
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    """How long the results of a job are kept after its end that does not say so itself; None keeps them."""
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
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

    def ranks(self, model: str) -> int | None:
        """Over how many processes a model is split where no GPU says it; ``None`` if it is not to be split."""
        pilots = self.cluster.models.get(model)
        if pilots is None or pilots.parallel != "tensor":
            return None
        return int(str((self.cluster.resources | pilots.resources).get("gpus_per_node", 1)))

    @property
    def pilots(self) -> Path:
        """Where the folders of pilots lie."""
        return self.cluster.folder or self.data_dir / "pilots"

    def access_token(self) -> str:
        """The token for the server at ``url``: ``token``, else what ``token_file`` has, which nobody else may read."""
        if self.token is not None:
            return self.token.get_secret_value()
        file = self.token_file or config_file().with_name("token")
        hint = f"write it to {file} with mode 600, or set NDIF_BATCH_TOKEN"
        try:
            if file.stat().st_mode & 0o077:
                raise SettingsError(f"others may read the token in {file}", hint=f"chmod 600 {file}")
            return file.read_text().strip()
        except FileNotFoundError:
            raise SettingsError(f"there is no token for {self.url}", hint=hint) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"the token in {file} cannot be read: {error}", hint=hint) from None

    def environment(self) -> dict[str, str]:
        """The variables that give another process these settings, but for the token, wherever it starts.

        One that asks a server is not told where the database is.
        """
        places = {"data_dir": self.data_dir, "model_cache": self.model_cache, "archive_dir": self.archive}
        places |= {} if self.token_file is None else {"token_file": self.token_file}
        absolute = self.model_copy(update={name: path.absolute() for name, path in places.items()})
        values = absolute.model_dump(mode="json") | {"database_url": None if self.url else absolute.database}
        return {
            f"NDIF_BATCH_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in values.items()
            if value is not None
        }

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
    except (OSError, ValueError) as error:
        raise SettingsError(f"{config_file()}: {error}") from None


def without_password(url: str) -> str:
    """A database URL with its password starred out."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)
