"""``python -m mm_cpgd``: the command line, for launchers that take a module (torchrun, accelerate launch)."""

from mm_cpgd.cli.main import main

if __name__ == "__main__":
    main()
