"""Has packagers ship code as it is in the working tree, committed or not."""

from __future__ import annotations

import dataclasses
from typing import Any

from nemo_airflow.packaging.base import Packager
from nemo_airflow.packaging.git.packager import GitArchivePackager
from nemo_airflow.packaging.hybrid import HybridPackager


def with_changes(packager: Packager) -> Packager:
    """Returns a packager that includes what is not committed; others ship the files as they are anyway."""
    if isinstance(packager, HybridPackager):
        parts: dict[str, Any] = {
            prefix: [with_changes(each) for each in packagers] for prefix, packagers in packager.by_prefix().items()
        }
        return dataclasses.replace(packager, sub_packagers=parts)
    if isinstance(packager, GitArchivePackager):
        return dataclasses.replace(packager, uncommitted="include", untracked="include")
    return packager
