"""``python -m mm_cpgd`` and the ``mm-cpgd`` script; launchers such as torchrun take the module."""

import os
import sys

from mm_cpgd.import_guard import PackageConflictError


def main() -> None:
    """Run the command line; a conflict of package names is one message, exit status 2."""
    try:
        from mm_cpgd.cli.main import main as run
    except PackageConflictError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"mm-cpgd: {error}", file=sys.stderr)
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
