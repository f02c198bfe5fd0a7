"""The built wheel, installed into an empty environment and used from another folder. Run by `make test-wheel`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("constitution", "prompts", "judge", "train", "preceptor")
PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"
WHERE = "import preceptor; print(preceptor.__file__)"
FEW = (
    *("prompts.limit=12", "prompts.held_out_limit=6", "respond.samples=3", "revise.rounds=1", "sft.epochs=1"),
    *("reward.epochs=1", "reward.held_out=0.3", "ppo.epochs=1", "ppo.max_new_tokens=32", "probes.size=2"),
)
"""The quickstart with all its stages, on a few prompts: that it teaches is shown elsewhere."""
PAIR = {"prompt": "Hi", "response_a": "- one\n- two", "response_b": "x" * 4000}


def wanted() -> set[str]:
    """Every file of the packages, by the name under which the wheel must hold it."""
    return {
        ("" if package == "preceptor" else "preceptor/") + path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for earlier in (
            "lib",
            f"bdist.{sysconfig.get_platform()}",
        ):  # what is left there would be packed again
            shutil.rmtree(ROOT / "build" / earlier, ignore_errors=True)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", str(folder / "dist"), str(ROOT), cwd=ROOT)
        wheel = next((folder / "dist").glob("*.whl"))
        held = set(zipfile.ZipFile(wheel).namelist())
        missing = sorted(wanted() - held)
        if missing:
            raise SystemExit(f"{wheel.name} lacks {', '.join(missing)}")
        if strange := {name.split("/")[0] for name in held if not name.startswith("preceptor-")} - {
            "preceptor"
        }:
            raise SystemExit(
                f"{wheel.name} puts {', '.join(sorted(strange))} at the top level of site-packages"
            )
        venv.create(folder / "venv", with_pip=True)
        tools = folder / "venv" / "bin"
        pip = (str(tools / "python"), "-m", "pip", "install", "--quiet", "--no-compile")
        pinned = ("--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt"))
        run(*pip, *pinned, str(wheel), cwd=folder)
        preceptor = str(tools / "preceptor")
        run(preceptor, "--version", cwd=folder)
        run(preceptor, "constitution", "list", cwd=folder)
        (folder / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n")
        run(
            preceptor,
            *("label", "pairs.jsonl", "-c", "style", "--judge", "checks", "--out", "labels"),
            cwd=folder,
        )
        # PyTorch is borrowed, not installed a second time: the wheel's own files still come before the checkout's
        package = borrow(tools / "python")
        run(preceptor, "run", str(package / "quickstart.yaml"), "out=run", *FEW, cwd=folder)
        run(preceptor, "verify", "run", cwd=folder)
        overall = json.loads((folder / "run" / "summary.json").read_text())["after"]["overall"]
        if not (folder / "run" / "9-report.html").stat().st_size or not 0 <= overall <= 1:
            raise SystemExit("the installed quickstart left no report")
        print(f"wheel: {wheel.name} works in an empty environment, the quickstart's stages too")  # noqa: T201


def borrow(python: Path) -> Path:
    """Let an environment find the libraries of this one after its own; not this one's editable installs. Returns the
    folder of the installed package."""
    own = Path(run(str(python), "-c", PURELIB, cwd=python.parent).strip())
    (own / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    found = Path(run(str(python), "-c", WHERE, cwd=python.parent).strip()).parent
    if own not in found.parents:
        raise SystemExit(f"the wheel's preceptor is not the one imported, but {found}")
    return found


def run(*command: str, cwd: Path) -> str:
    """What a command prints; where it fails, show what it said and stop."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
