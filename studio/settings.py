"""What the environment may set; read once, when the program starts. Knows nothing of models."""

from functools import cache
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every environment variable the studio listens to, with the prefix ``STUDIO_`` but for ``PORT`` and ``HOST``."""

    model_config = SettingsConfigDict(env_prefix="STUDIO_", extra="ignore")

    host: str = Field(default="127.0.0.1", validation_alias="HOST")
    """Address the page is served on."""
    port: int = Field(default=7860, validation_alias="PORT", ge=0, le=65535)
    local_files: bool = False
    """Accept folders and .gguf files as models on a page bound to loopback."""
    cache_dir: Path = user_cache_path("quantization-studio")
    """Where prepared models, sensitivities and compressed folders are kept."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of torch; 0 leaves torch's own choice."""


@cache
def settings() -> Settings:
    """Return the settings of this process."""
    return Settings()
