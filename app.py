"""Entry: serves the page. Decides nothing."""

from studio.ui import launch

if __name__ == "__main__":
    launch()
