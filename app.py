"""Entry: serves the page, as ``python -m studio serve`` does. Decides nothing."""

from studio.cli.commands import app

if __name__ == "__main__":
    app(["serve"])
