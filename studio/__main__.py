"""``python -m studio``: the terminal's commands. Decides nothing."""

from studio.cli.commands import main

if __name__ == "__main__":
    main()
