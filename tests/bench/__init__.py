"""What is measured here is measured as the studio's programs run: with the environment that they begin with."""

from studio.base import startup

startup.prepare()
