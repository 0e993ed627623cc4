"""Writes what an installation consists of: a software bill of materials, in CycloneDX's JSON.

    python -m tests.house.sbom dist/sbom.cdx.json

`cyclonedx-py` reads the lock of what runs; the web UI's vendored files are added from the table
beside them. The same repository gives the same bytes. Licences are there of Synod and of the
vendored files; those of packages are in the packages, and a lock does not name them.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.run.lock"
VENDOR = ROOT / "gateway/ui/vendor"
_ROW = re.compile(
    r"^\| `(?P<file>[\w.\-]+)` \| (?P<name>[\w.\-]+) (?P<version>[\d.]+), .*? \| (?P<licence>[^|]+)"
    r" \| `(?P<sha256>[0-9a-f]{64})` \|$",
    re.MULTILINE,
)
_LICENCE = re.compile(r"^([A-Za-z0-9.\-]+), `")


def vendored() -> list[dict[str, Any]]:
    """The components whose released files lie in the repository, each with its files."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in _ROW.finditer((VENDOR / "README.md").read_text()):
        name, version = row["name"], row["version"]
        component = found.setdefault(
            (name, version),
            {
                "bom-ref": f"vendored-{name}",
                "components": [],
                "name": name,
                "purl": f"pkg:npm/{name.lower()}@{version}",
                "type": "library",
                "version": version,
            },
        )
        if licence := _LICENCE.match(row["licence"]):
            component["licenses"] = [{"license": {"id": licence[1]}}]
        component["components"].append(
            {
                "bom-ref": f"vendored-{name}-{row['file']}",
                "hashes": [{"alg": "SHA-256", "content": row["sha256"]}],
                "name": f"gateway/ui/vendor/{row['file']}",
                "type": "file",
            }
        )
    return list(found.values())


def make() -> str:
    """The document. Raises `ValueError` if it is not valid CycloneDX."""
    listed = subprocess.run(
        [
            *(Path(sys.executable).with_name("cyclonedx-py"), "requirements", LOCK),
            *("--pyproject", ROOT / "pyproject.toml", "--output-reproducible"),
            *("--no-validate", "--spec-version", "1.6"),
        ],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    document = json.loads(listed.stdout)
    document["components"] += vendored()
    document["dependencies"] = sorted(
        document["dependencies"] + [{"ref": f"vendored-{one['name']}"} for one in vendored()],
        key=lambda one: str(one["ref"]),
    )
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"it is no valid CycloneDX: {error}")
    return text


def main() -> None:
    """Write the document to the path that is given."""
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(make())
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
