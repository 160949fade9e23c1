"""``python -m strop.compiler.cli`` is the program ``strop``."""

from strop.compiler.cli.start import main

if __name__ == "__main__":
    main()
