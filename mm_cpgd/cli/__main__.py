"""``python -m mm_cpgd.cli``: the same as ``python -m mm_cpgd``."""

from mm_cpgd.__main__ import main

if __name__ == "__main__":
    main()
