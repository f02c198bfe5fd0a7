"""How models are reached and asked: flags, run files and Python say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preceptor.constitution.errors import UserError
from preceptor.run.config import RunConfig, load
from preceptor.run.running import asking_of
from preceptor.settings import Access, Asking, AskSettings

RUN = "out: here\nmodel: embedded\njudge: openai/j\nconstitution: style\nprompts: {file: starter}\n"
SAID: dict[str, Any] = {
    "base_url": "http://localhost:1/v1",
    "timeout_s": 9,
    "flex": True,
    "dtype": "float32",
    "device_map": "auto",
    "four_bit": True,
    "concurrency": 3,
    "max_cost_usd": 2,
    "rpm": 30,
    "tpm": 4000,
    "prices": ["0.25,2"],
    "batch": True,
    "then_sync": True,
    "engine": "ray",
    "address": "auto",
    "gpus": 0.5,
    "workers": 2,
}
"""A value for each field, in the form that a person writes."""


@pytest.mark.parametrize("name", AskSettings.model_fields)
def test_a_run_asks_as_its_file_says(name: str) -> None:
    """Nothing that the advice of a message names is missing in a run file, and nothing of it is forgotten."""
    along = {"engine": "ray"} if name in ("address", "gpus", "workers") else {}
    values = {name: SAID[name], **along}
    config = RunConfig.model_validate(
        {"out": "here", "model": "m", "judge": "j", "constitution": "c", "prompts": {"file": "f"}} | values
    )
    asked = asking_of(config)
    assert getattr(asked, name) == getattr(Asking.model_validate(values), name)
    assert getattr(asked, name) != AskSettings.model_fields[name].get_default(call_default_factory=True)


def test_a_run_file_and_its_words_on_the_command_line_take_what_flags_take(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN + 'prices: ["openai/j=0.25,2"]\nbase_url: openai/j=http://localhost:1/v1\n')
    config = load(file, ["rpm=30", "batch=true"])
    assert (config.prices["openai/j"].output, config.rpm, config.in_batches) == (2, 30, True)
    assert config.base_url == {"openai/j": "http://localhost:1/v1"}
    file.write_text(RUN + "prices: {openai/j: {input: 0.25, output: 2}}\nbase_url: http://localhost:1/v1\n")
    again = load(file)
    assert again.prices["openai/j"].output == 2
    assert (
        again.model_dump(mode="json")["base_url"] == "http://localhost:1/v1"
    )  # as before there were several


def test_what_no_model_has_a_use_for_is_refused() -> None:
    away, here = Access(base_url="http://x", timeout_s=3), Access.model_validate({"dtype": "float32"})
    with pytest.raises(UserError, match="embedded, hf/a does not take --base-url"):
        away.require_use(["embedded", "hf/a", "checks"])
    with pytest.raises(UserError, match="openai/a does not take --dtype"):
        here.require_use(["openai/a"])
    for settings in (away, here):
        settings.require_use(["embedded", "openai/a"])
        settings.require_use(["checks"])


def test_one_server_for_all_and_another_for_one() -> None:
    access = Access.model_validate({"base_url": ["http://all/v1", "openai/a=http://one/v1"]})
    assert access.base_url == {"": "http://all/v1", "openai/a": "http://one/v1"}


ADDRESSES = ("https://host/v1", "http://[::1]:8000", "HTTP://host", "http://host/openai/deployments/m=1/v1")
QUERIES = ("", "?token=K", "?api-version=1&key=a%3Db", "?next=https://other/v1", "?a==")


@pytest.mark.parametrize("address", [base + query for base in ADDRESSES for query in QUERIES])
@pytest.mark.parametrize("name", ["", "openai/gpt-oss:20b", "openai/org/model:free", "anthropic/a"])
def test_an_address_is_known_by_its_scheme_whatever_stands_in_it(name: str, address: str) -> None:
    said = f"{name}={address}" if name else address
    assert Access.model_validate({"base_url": [said]}).base_url == {name: address}


@pytest.mark.parametrize("slip", ["host:8000/v1?token=K", "http:/host/v1?token=K", "openai/m=host:80/v1"])
def test_what_was_meant_as_an_address_is_not_taken_for_a_models_name(slip: str) -> None:
    """It would be passed over in silence, and another server be asked."""
    access = Access.model_validate({"base_url": slip})
    with pytest.raises(UserError, match="is no address; wanted an address such as http"):
        access.open("openai/m")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus": 1}, "--gpus is for --engine ray"),
        ({"engine": "ray", "batch": True}, "leave out --engine ray"),
        ({"engine": "ray", "gpus": 1.5}, "wanted a share up to 1, or a whole number"),
        ({"prices": ["much"]}, "--price is 'much'"),
    ],
)
def test_what_does_not_go_together_is_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Asking.model_validate(values)


def test_an_effort_without_effect_is_never_silent(caplog: pytest.LogCaptureFixture) -> None:
    access = Access()
    for names in (["embedded"], ["hf/a", "checks"], ["scripted/x", "human"]):
        with pytest.raises(UserError, match="does not take an effort \\(low\\)"):
            access.require_effort(names, "low")
        access.require_effort(names, None)
    assert caplog.messages == []
    access.require_effort(["openai/gpt-6-luna", "embedded"], "low")
    assert caplog.messages == ["the effort low has no effect on embedded"]
    caplog.clear()
    access.require_effort(["openai/gpt-6.1-sol"], "none")
    (said,) = caplog.messages
    assert said.startswith("openai/gpt-6.1-sol takes no effort none: low is asked for, of low, medium")
    caplog.clear()
    Access.model_validate({"base_url": "http://x/v1"}).require_effort(["openai/gpt-6.1-sol"], "none")
    assert caplog.messages == [], "elsewhere a name says nothing"


def test_a_run_file_with_an_effort_that_nobody_heeds_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN + "respond: {effort: low}\n")
    with pytest.raises(UserError, match="embedded does not take an effort"):
        load(file)
    for said in ("label: {effort: low}\n", "label: {effort: low}\nrespond: {effort: low}\n"):
        file.write_text(RUN + said)
        assert load(file).label.effort == "low"


def test_a_tier_of_service_that_nobody_has_is_refused() -> None:
    flex = Access(flex=True)
    with pytest.raises(UserError, match="anthropic/a has no flex tier"):
        flex.require_use(["anthropic/a"])
    flex.require_use(["anthropic/a", "openai/b"])
    with pytest.raises(UserError, match="two ways to half the price"):
        Asking(flex=True, batch=True)
