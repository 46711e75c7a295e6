"""``python -m datavern``: the command line, where the installed command is not on the path."""

from datavern.cli import main

if __name__ == "__main__":
    main()
