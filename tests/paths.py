"""Places in the repository and beside it that tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Real data beside the project; tests that need it are skipped where it is absent.
SHARED = ROOT.parent / "shared"
DATASETS = SHARED / "datasets"
CASES = SHARED / "cases"
