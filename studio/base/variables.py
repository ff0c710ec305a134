"""What the environment may set, checked. Knows nothing of models, nor when it is read: ``settings.py`` does."""

from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every environment variable the studio listens to, with the prefix ``STUDIO_`` but for ``PORT``."""

    model_config = SettingsConfigDict(env_prefix="STUDIO_", extra="ignore")

    host: str = Field(default="127.0.0.1", validation_alias=AliasChoices("STUDIO_HOST", "GRADIO_SERVER_NAME"))
    """Address the page is served on; a Hugging Face Space sets the second name."""
    port: int = Field(default=7860, validation_alias=AliasChoices("PORT", "GRADIO_SERVER_PORT"), ge=0, le=65535)
    local_files: bool = False
    """Accept folders and .gguf files as models on a page bound to loopback."""
    cache_dir: Path = user_cache_path("quantization-studio")
    """Where prepared models, sensitivities and compressed folders are kept."""
    cache_gb: float | None = Field(default=None, ge=0)
    """Gigabytes that models which are kept there may take, downloads included; by default a quarter of the disk."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where weights are rounded and measured, and where models answer as far as their kernels know them."""
    native: bool = True
    """Compile the C twins of slow torch code where a compiler is found; without them all works, more slowly."""

    isolate: bool = True
    """Let models answer and be measured in processes of their own, so that a fault there ends nothing else."""
    native_flags: str = ""
    """What else the C compiler is told, such as ``-fsanitize=address``: the server then runs with code that stops at
    the first access it should not make. ``tests/sanitized.py`` says what has to be loaded first."""

    node_llama: Path | None = None
    """A folder in whose ``node_modules`` node-llama-cpp lies, which ``verify`` asks; by default the cache folder."""

    stop_after: float = Field(default=5, gt=0)
    """Seconds after which the jobs of a visitor who left are stopped."""
    free_after: float = Field(default=45, gt=0)
    """Seconds after which a compressed copy, its files and the models of a visitor who left are given back."""
    forget_after: float = Field(default=3600, gt=0)
    """Seconds after which the rest of such a visit is forgotten."""

    model_memory: int | None = Field(default=None, ge=0)
    """Bytes that the models of all chats may take together; by default what the machine has free."""

    @property
    def is_private(self) -> bool:
        """Whether the page is seen by this machine alone: only then may it use the owner's files and Hub login."""
        return self.host in ("127.0.0.1", "localhost", "::1")
