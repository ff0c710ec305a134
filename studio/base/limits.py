"""What one visitor, and one address, may ask of the page; all in one place. Knows not who counts.

A visitor is a browser (by its cookie), an address a machine or a network of them, so its limits are the wider ones.
Whoever sits at the machine itself (see ``docs/security.md``) has no limit by time, but those of what is in flight.
"""

from functools import cache

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Limits(BaseSettings):
    """Every limit has an environment variable, with the prefix ``STUDIO_LIMIT_``."""

    model_config = SettingsConfigDict(env_prefix="STUDIO_LIMIT_", extra="ignore")

    session_calls: int = Field(default=24, ge=1)
    """Calls of the page that one tab may have waiting or running; a busy one has three."""
    visitor_calls: int = Field(default=128, ge=1)
    """The same for all tabs of a visitor."""
    address_calls: int = Field(default=256, ge=1)
    """The same for all visitors from one address."""
    queue: int = Field(default=1024, ge=1)
    """Calls of all visitors that may wait; beyond, the page says that it is busy. Several addresses' worth."""
    visitor_tabs: int = Field(default=128, ge=1)
    """Tabs that a visitor may have opened within an hour."""
    address_tabs: int = Field(default=512, ge=1)
    """The same for one address: fewer than Gradio keeps the state of (``ui/launch.py``)."""
    visitor_connections: int = Field(default=200, ge=1)
    """Answers to a visitor that may be under way; each tab holds two open."""
    address_connections: int = Field(default=1000, ge=1)
    """The same for one address."""
    calls_per_minute: int = Field(default=600, ge=1)
    """Calls of a visitor, of whatever kind; a hand on a slider makes some ten a second."""
    address_calls_per_minute: int = Field(default=3000, ge=1)
    """The same for one address."""

    body_bytes: int = Field(default=1_000_000, ge=1024)
    """Of a request that is no upload: the longest prompt takes two fifths of it."""
    address_body_bytes: int = Field(default=32_000_000, ge=1024)
    """Of all that one address is sending at this moment, which is held until it is here."""
    body_seconds: float = Field(default=60.0, gt=0)
    """Until which a request has to be here as a whole."""
    upload_bytes: int = Field(default=1_000_000, ge=1024)
    """Of one file that is read: a text, a recipe."""
    upload_files: int = Field(default=1, ge=1)
    """Files of one request."""
    visitor_uploads_per_hour: int = Field(default=60, ge=1)
    """Requests that bring files, of a visitor."""
    address_uploads_per_hour: int = Field(default=300, ge=1)
    """The same for one address, and with it the disk that uploads of an hour can take."""

    visitor_jobs_per_hour: int = Field(default=40, ge=1)
    """Long jobs that a visitor may begin: compressing, drift, exports, verifying."""
    address_jobs_per_hour: int = Field(default=160, ge=1)
    """The same for one address."""
    visitor_answers_per_hour: int = Field(default=400, ge=1)
    """Messages that a visitor may have answered."""
    address_answers_per_hour: int = Field(default=1600, ge=1)
    """The same for one address."""


@cache
def limits() -> Limits:
    """Return the limits of this process. Raises pydantic's ValidationError for a variable that cannot be used."""
    return Limits()
