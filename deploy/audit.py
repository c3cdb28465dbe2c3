"""`python -m deploy.audit`: known vulnerabilities of the packages in requirements.lock.

Status 1 when there is one that is not listed below. Where pip-audit cannot reach its data, which it reports package by
package, the audit says that it was skipped and ends well: a build without the network must not fail for that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Identifier -> why it does no harm here. Looked at again at every release.
ACCEPTED: dict[str, str] = {}


def run(lock: Path) -> dict[str, Any] | str:
    """Ask pip-audit; its report, or why there is none."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    try:
        result = subprocess.run(
            [*command, "--timeout", "15", "-f", "json", "-r", str(lock)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        report: dict[str, Any] = json.loads(result.stdout)
    except subprocess.TimeoutExpired:
        return "pip-audit did not end within ten minutes"
    except ValueError:
        return result.stderr.strip().rpartition("\n")[2] or "pip-audit gave no report"
    return report


def judged(report: dict[str, Any] | str) -> tuple[int, str]:
    """Return the exit status for a report and what to say of it."""
    if isinstance(report, str):
        return 0, f"audit skipped: {report}"
    packages = report["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        return 0, f"audit skipped: the data on vulnerabilities cannot be reached ({packages[0]['skip_reason']})"
    lines = []
    status = 0
    for package in packages:
        for found in package.get("vulns", []):
            names = {found["id"], *found.get("aliases", [])}
            reason = next((ACCEPTED[name] for name in sorted(names) if name in ACCEPTED), None)
            status = status if reason else 1
            mended = ", ".join(found.get("fix_versions", [])) or "no version yet"
            lines.append(
                f"{package['name']} {package['version']}: {found['id']}, mended by {mended}"
                + (f" (accepted: {reason})" if reason else "")
            )
    lines.append(f"{len(packages) - len(skipped)} of {len(packages)} packages audited")
    return status, "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit a lock file."""
    parser = argparse.ArgumentParser(prog="python -m deploy.audit", description="Known vulnerabilities of the lock.")
    parser.add_argument("lock", type=Path, nargs="?", default=ROOT / "requirements.lock")
    status, text = judged(run(parser.parse_args(arguments).lock))
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
