"""``python -m studio``: the terminal's commands."""

from studio.cli.commands import main

if __name__ == "__main__":
    main()
