"""The push to a hub, against a real HTTP server that speaks as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.hub import HubServer, Repository, serve_hub

SECRET = "hf_not_to_be_seen"
PUSH = """
import sys
from pathlib import Path
from preceptor import hub
try:
    print(hub.push(Path("out"), hub.target_of("hub:acme/desk", len(sys.argv) > 1)))
except Exception as error:
    sys.stderr.write(str(error))
    sys.exit(getattr(error, "exit_code", 70))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export, as far as the hub is concerned."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("---\nlibrary_name: peft\n---\n\n# desk\n")
    (out / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 300)
    (out / "manifest.json").write_text("{}")
    return out


def pushed(folder: Path, endpoint: str, *words: str, offline: str = "0") -> subprocess.CompletedProcess[str]:
    """In a process of its own, for the hub's library reads the environment once."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HF_HUB_OFFLINE": offline,
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": SECRET,
    }
    ended = subprocess.run(
        [sys.executable, "-c", PUSH, *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=folder.parent,
        timeout=600,
    )
    assert SECRET not in ended.stdout + ended.stderr
    return ended


@pytest.mark.parametrize("words", [(), ("public",)])
def test_the_whole_folder_is_sent_in_one_commit(folder: Path, words: tuple[str, ...]) -> None:
    with serve_hub(HubServer()) as server:
        ended = pushed(folder, server.url, *words)
        assert (ended.returncode, ended.stdout) == (0, f"{server.url}/acme/desk\n"), ended.stderr
        there = server.repositories["acme/desk"]
        assert there.private is (words == ())
        assert there.files == {path.name: path.read_bytes() for path in folder.iterdir()}
        commits = [asked for asked in server.requests if "/commit/" in asked.path]
        assert [asked.authorization for asked in commits] == [f"Bearer {SECRET}"]


def test_a_second_push_goes_to_the_same_model(folder: Path) -> None:
    with serve_hub(HubServer()) as server:
        assert pushed(folder, server.url).returncode == 0
        (folder / "manifest.json").write_text('{"kind": "export"}')
        assert pushed(folder, server.url).returncode == 0
        assert server.repositories["acme/desk"].files["manifest.json"] == b'{"kind": "export"}'


@pytest.mark.parametrize(("status", "said"), [(401, ""), (403, "you may not do that here")])
def test_a_hub_that_refuses_ends_with_4_and_the_folder_stays(folder: Path, status: int, said: str) -> None:
    with serve_hub(HubServer(refuse=status)) as server:
        ended = pushed(folder, server.url)
    assert ended.returncode == 4
    assert f"the hub refused acme/desk ({status}): {said}" in ended.stderr
    assert "to send it later: hf upload --private acme/desk out" in ended.stderr
    assert (folder / "manifest.json").exists()


def test_a_hub_that_is_not_there_ends_with_4(folder: Path) -> None:
    with serve_hub(HubServer()) as server:
        gone = server.url
    ended = pushed(folder, gone, "public")
    assert ended.returncode == 4
    assert f"the hub at {gone} cannot be reached" in ended.stderr
    assert "to send it later: hf upload acme/desk out" in ended.stderr


def test_nothing_is_sent_to_a_model_that_is_open_to_all_unless_asked_for(folder: Path) -> None:
    server = HubServer()
    server.repositories["acme/desk"] = Repository(False, {})
    with serve_hub(server):
        ended = pushed(folder, server.url)
        assert ended.returncode == 2
        assert "acme/desk is open to all on the hub: say --public" in ended.stderr
        assert server.repositories["acme/desk"].files == {}
        assert pushed(folder, server.url, "public").returncode == 0


def test_offline_nothing_is_asked(folder: Path) -> None:
    with serve_hub(HubServer()) as server:
        ended = pushed(folder, server.url, offline="1")
        assert ended.returncode == 2
        assert "HF_HUB_OFFLINE is set: unset it" in ended.stderr
        assert server.requests == []
