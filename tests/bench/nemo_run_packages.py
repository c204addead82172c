"""The benchmark's peer: one of NeMo-Run's packagers. Runs in NeMo-Run's own environment."""

import os
import sys
import time
from pathlib import Path

import nemo_run as run

kind, repository, folder = sys.argv[1:]
os.chdir(repository)
packager = (
    run.GitArchivePackager()
    if kind == "GitArchivePackager"
    else run.PatternPackager(include_pattern="*", relative_path=repository)
)
begun = time.perf_counter()
archive = packager.package(Path(repository), folder, "package")
print(time.perf_counter() - begun, os.path.getsize(archive))
