"""``python -m mm_cpgd``: the command line, where the script of that name is not on the path."""

from mm_cpgd.cli import main

if __name__ == "__main__":
    main()
