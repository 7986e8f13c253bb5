"""``python -m leo_core`` is the command ``leo``."""

from leo_core.cli import main

if __name__ == "__main__":
    main(prog_name="leo")
