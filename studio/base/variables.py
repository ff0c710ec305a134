"""What the environment may set, checked. Knows nothing of models, nor when it is read: ``settings.py`` does."""

from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path
from pydantic import AliasChoices, Field, PrivateAttr
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

    access: Literal["auto", "private", "public"] = "auto"
    """Who may use the owner's files and Hub login: ``auto``, whoever opens the page at the machine it runs on, by a
    loopback name and through no proxy, unless it has other names or a proxy; ``private``, all who reach it;
    ``public``, nobody."""
    allowed_hosts: str = ""
    """More names that the page may be called by, between commas: ``studio.example.org,*.example.net``, or ``*``."""
    proxy: bool | None = None
    """Whether a proxy of the owner's stands before the page: then its word on a visitor's address is believed. By
    default on a Space."""
    space_host: str = Field(default="", validation_alias="SPACE_HOST")
    """The page's own name on a Hugging Face Space, which sets it."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Where counters are served in Prometheus' format, 0 for a free port; by default nowhere."""
    metrics_host: str = "127.0.0.1"
    """The address for that."""
    log: str = ""
    """Where a line of JSON goes for each job: a file, or ``-`` for standard error. By default standard error on a page
    that is bound to more than loopback, and nowhere else."""

    _has_strangers: bool = PrivateAttr(default=False)

    @property
    def is_private(self) -> bool:
        """Whether only the owner sees the page: only then may it use the owner's Hub login."""
        if self.access != "auto":
            return self.access == "private"
        is_here = self.host in ("127.0.0.1", "localhost", "::1")
        return is_here and not self.is_for_others and not self._has_strangers

    @property
    def is_for_others(self) -> bool:
        """Whether the settings speak of a proxy, or of names that only others would say: some proxies pass nothing by
        which their visitors could be told from the owner."""
        return bool(self.proxy or self.allowed_hosts or self.space_host)

    def admit_strangers(self) -> None:
        """Hold the page for public from now on: somebody came who does not sit at this machine."""
        self._has_strangers = True
