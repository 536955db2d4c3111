"""Check that every relative link in the documentation leads to a file.

If some do not, the program lists them and exits with status 1.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def broken_links(page: Path) -> list[str]:
    """Return the links of one page that lead nowhere."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    return [f"{page.relative_to(ROOT)}: {target}" for target in targets if not (page.parent / target).exists()]


def main() -> int:
    """Check every Markdown file that git tracks, and return the exit status."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    pages = [ROOT / name for name in listed.stdout.split()]
    found = [link for page in pages for link in broken_links(page)]
    print("\n".join(found) or f"{len(pages)} pages, no broken links")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
