"""Uploading an exported folder to the hub that `HF_ENDPOINT` names: huggingface.co, or one of one's own."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from preceptor.constitution.errors import UserError
from preceptor.judge.errors import ProviderStopped

TOKEN, ENDPOINT = "HF_TOKEN", "HF_ENDPOINT"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Target(NamedTuple):
    """Where to, as `target_of` has found it to be usable."""

    id: str
    public: bool


def target_of(name: str, public: bool) -> Target:
    """The model that `hub:OWNER/NAME` names; UserError where it names none, or where nothing could be sent."""
    prefix, _, identity = name.partition(":")
    if prefix != "hub" or not NAME.fullmatch(identity):
        raise UserError(f"--push {name}: wanted hub:OWNER/NAME, such as hub:acme/front-desk-reward")
    if not os.environ.get(TOKEN):
        raise UserError(
            f"--push needs {TOKEN} in the environment, a token that may write: make one at "
            "https://huggingface.co/settings/tokens and export it"
        )
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        raise UserError("--push needs the network, and HF_HUB_OFFLINE is set: unset it, or leave --push out")
    return Target(identity, public)


def push(folder: Path, target: Target) -> str:
    """Upload a folder as one commit to a model that is made if need be; returns its address.

    What is there of other files stays. Raises UserError where the model is there, open to all, and `public` was
    not asked for; ProviderStopped where the hub refuses or cannot be reached. The folder stays in both cases.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    # HTTPError is that of whichever HTTP library the hub's is built on
    api = HfApi(endpoint=os.environ.get(ENDPOINT) or None, token=os.environ[TOKEN])
    private = "" if target.public else " --private"
    again = f"{folder} is whole; to send it later: hf upload{private} {target.id} {folder}"
    try:
        api.create_repo(target.id, private=not target.public, exist_ok=True)
        if not target.public and not api.repo_info(target.id).private:
            raise UserError(
                f"{target.id} is open to all on the hub: say --public, or choose another name; {again}"
            )
        message = "Exported by preceptor"
        api.upload_folder(repo_id=target.id, folder_path=str(folder), commit_message=message)
    except HfHubHTTPError as error:
        said = str(error.server_message or error).strip().splitlines()[0]
        status = error.response.status_code
        raise ProviderStopped(f"the hub refused {target.id} ({status}): {said}. {again}") from error
    except (HTTPError, ValueError) as error:
        raise ProviderStopped(
            f"the hub at {api.endpoint} cannot be reached, or is none: {error}. {again}"
        ) from error
    return f"{api.endpoint}/{target.id}"
