"""Who vouches for a folder: a signature of its SHA256SUMS by an SSH key, made and checked by `ssh-keygen -Y`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from preceptor.constitution.errors import UserError
from preceptor.prompts.manifest import SIGNATURE, SUMS, write_text

NAMESPACE = "preceptor"
"""A signature made for another purpose by the same key is none here."""
PROGRAM_S = 60


def sign(folder: Path, key: Path) -> None:
    """Write the signature of the folder's SHA256SUMS beside it. key: a private SSH key, or the public one of a key that
    an agent holds. Raises UserError."""
    if not key.is_file():
        raise UserError(f"--sign {key}: there is no such key; make one with: ssh-keygen -t ed25519 -f {key}")
    with tempfile.TemporaryDirectory(prefix="preceptor-") as place:
        copied = Path(place, SUMS)
        shutil.copyfile(folder / SUMS, copied)
        made = _ssh_keygen("sign", "-n", NAMESPACE, "-f", str(key), str(copied))
        if made.returncode:
            raise UserError(
                f"--sign {key}: ssh-keygen did not sign ({_said(made)}); wanted a private SSH key"
            )
        write_text(folder / SIGNATURE, copied.with_name(f"{SUMS}.sig").read_text(encoding="utf-8"))


def public_key(file: Path) -> str:
    """The line of a public SSH key. Raises UserError where there is none."""
    try:
        public = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise UserError(
            f"--signed-by {file}: cannot be read; wanted a public SSH key, as in key.pub"
        ) from exc
    if "PRIVATE KEY" in public or len(public.splitlines()) != 1:
        raise UserError(f"--signed-by {file}: is no public SSH key; wanted the one line of key.pub")
    return public


def check(folder: Path, signer: str | None) -> tuple[str, str]:
    """(what is wrong with the signature, who signed); both are empty where there is none and none is wanted.

    signer: the public key that must have signed; None: any. Raises UserError without ssh-keygen.
    """
    signature = folder / SIGNATURE
    if not signature.is_file():
        return ("is missing; the folder is not signed" if signer is not None else ""), ""
    if signer is None:
        found = _ssh_keygen("check-novalidate", "-n", NAMESPACE, "-s", str(signature), stdin=folder / SUMS)
        return ("", _said(found)) if found.returncode == 0 else (_broken(found), "")
    with tempfile.TemporaryDirectory(prefix="preceptor-") as place:
        allowed = Path(place, "allowed")
        allowed.write_text(f'{NAMESPACE} namespaces="{NAMESPACE}" {signer}\n', encoding="utf-8")
        found = _ssh_keygen(
            *("verify", "-n", NAMESPACE, "-I", NAMESPACE, "-f", str(allowed), "-s", str(signature)),
            stdin=folder / SUMS,
        )
    return ("", _said(found)) if found.returncode == 0 else (_broken(found), "")


def _broken(found: subprocess.CompletedProcess[str]) -> str:
    return f"is no signature of {SUMS} by that key ({_said(found)})"


def _ssh_keygen(action: str, *words: str, stdin: Path | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which("ssh-keygen") is None:
        raise UserError("signatures need ssh-keygen, which is not installed; install OpenSSH")
    with (stdin or Path("/dev/null")).open("rb") as given:
        try:
            return subprocess.run(
                ["ssh-keygen", "-Y", action, *words],
                stdin=given,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                timeout=PROGRAM_S,
            )
        except subprocess.TimeoutExpired as exc:
            raise UserError(
                "ssh-keygen did not answer; a key with a passphrase belongs into ssh-agent"
            ) from exc


def _said(ended: subprocess.CompletedProcess[str]) -> str:
    lines = (
        (ended.stderr or ended.stdout).strip().splitlines() if ended.returncode else ended.stdout.splitlines()
    )
    return lines[-1].strip() if lines else f"exit {ended.returncode}"
