"""The built wheel, installed into an empty environment and used from another folder. Run by `make test-wheel`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA = (
    "constitution/library/front-desk.yaml",
    "prompts/templates/embedded/compare.jinja",
    "prompts/pools/front-desk.jsonl",
    "judge/prices.yaml",
    "train/embedded/weights/model.safetensors",
    "preceptor/report.html",
    "preceptor/quickstart.yaml",
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", str(folder / "dist"), str(ROOT), cwd=ROOT)
        wheel = next((folder / "dist").glob("*.whl"))
        held = set(zipfile.ZipFile(wheel).namelist())
        missing = [path for path in DATA if path not in held]
        if missing:
            raise SystemExit(f"{wheel.name} lacks {', '.join(missing)}")
        venv.create(folder / "venv", with_pip=True)
        tools = folder / "venv" / "bin"
        pip = (str(tools / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, "--constraint", str(ROOT / "constraints.txt"), f"{wheel}[train]", cwd=folder)
        preceptor = str(tools / "preceptor")
        run(preceptor, "--version", cwd=folder)
        run(preceptor, "constitution", "list", cwd=folder)
        run(preceptor, "quickstart", "--out", "run", cwd=folder)
        run(preceptor, "verify", "run", cwd=folder)
        overall = json.loads((folder / "run" / "summary.json").read_text())["after"]["overall"]
        if not (folder / "run" / "9-report.html").stat().st_size or not 0 <= overall <= 1:
            raise SystemExit("the installed quickstart left no report")
        print(f"wheel: {wheel.name} works in an empty environment; quickstart reached {overall:.0%}")  # noqa: T201


def run(*command: str, cwd: Path) -> None:
    """Run a command; where it fails, show what it said and stop."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    main()
