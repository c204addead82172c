"""Checks the pages: types, the API document and what is generated from it, and the size: ``python ui/check.py``.

``--write`` brings the API document and the generated types up to date first.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import build

_LIMIT = 120_000
"""Most bytes of all pages, packed by gzip."""

_ROOT = build.HERE.parent
_DOCUMENT, _TYPES = _ROOT / "docs" / "openapi.json", build.HERE / "src" / "api.gen.ts"


def main(arguments: list[str]) -> str | None:
    """Returns what is wrong, or None."""
    from nemo_airflow.plugin.api import document

    with build.alone():
        build.install(unless="typescript")
    if "--write" in arguments:
        document.main([str(_DOCUMENT)])
        _generate(_TYPES)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        document.main([str(fresh / "openapi.json")])
        _generate(fresh / "api.gen.ts")
        for kept in (_DOCUMENT, _TYPES):
            if kept.read_bytes() != (fresh / kept.name).read_bytes():
                return f"{kept.relative_to(_ROOT)} is not that of the API: run 'python ui/check.py --write'"
    build.run_node("node_modules/typescript/bin/tsc", "--noEmit")
    build.build()
    files = list(build.STATIC.rglob("*.js"))
    size = sum(len(gzip.compress(file.read_bytes())) for file in files)
    print(f"the pages have {size / 1000:.1f} kB (gzip) in {len(files)} files")
    return f"the pages have {size} bytes, and may have {_LIMIT}: leave a library out" if size > _LIMIT else None


def _generate(types: Path) -> None:
    document = str(_DOCUMENT)
    build.run_node("node_modules/openapi-typescript/bin/cli.js", document, "--output", str(types))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RuntimeError as error:
        sys.exit(str(error))
