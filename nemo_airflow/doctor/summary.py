"""Says what an examination has found, in a text for people who have no terminal."""

from __future__ import annotations

from collections.abc import Sequence

from nemo_airflow.connections import redact
from nemo_airflow.executors.finding import Finding, Verdict

_ORDER = (Verdict.FAIL, Verdict.WARN, Verdict.OK)


def summarize(findings: Sequence[Finding]) -> tuple[bool, str]:
    """Returns whether jobs can run, and a line for each finding: failures first, without secrets."""
    ordered = sorted(findings, key=lambda finding: _ORDER.index(finding.verdict))
    lines = [
        f"{each.verdict} {each.name}: {each.said}" + (f"; to mend it: {each.fix}" if each.fix else "")
        for each in ordered
    ]
    return all(each.verdict is not Verdict.FAIL for each in findings), redact("\n".join(lines))
