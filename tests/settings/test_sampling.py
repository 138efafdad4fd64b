"""Who decides a sampling parameter, and what a model's untrusted file may say about it."""

from __future__ import annotations

import struct
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from infer_cli.errors import ModelInvalid, UsageError
from infer_cli.models.gguf.reading import read_header
from infer_cli.settings.defaults import SAMPLING_TEMPERATURE
from infer_cli.settings.origins import Given
from infer_cli.settings.sampling import checked, effective_params, parse_set, resolve_sampling
from infer_cli.types import SamplingParams
from tests.cli_helpers import infer, one_error_line
from tests.tiny_gguf import write_tiny_gguf

MODEL = {"temperature": Given("model", "-t")}
IN_FILE = {
    "temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "xtc_probability": "xtc_probability", "xtc_threshold": "xtc_threshold", "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty", "mirostat": "mirostat", "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}  # fmt: skip


def resolve(
    given: dict[str, Given],
    entry: dict[str, object] | None = None,
    gguf: dict[str, object] | None = None,
    default: str = "0",
) -> tuple[SamplingParams, dict[str, str]]:
    """The parameters, and where each came from."""
    params, settings = resolve_sampling(given, entry or {}, gguf or {}, default_temperature=default)
    return params, {setting.name: setting.origin for setting in settings}


def tiny(path: Path, **recommended: Any) -> Path:
    overrides = {f"general.sampling.{name}": value for name, value in recommended.items()}
    return write_tiny_gguf(path / "tiny.gguf", overrides=overrides)


# --- precedence -----------------------------------------------------------------------------------


def test_a_flag_comes_before_the_entry_before_the_file_before_ours() -> None:
    entry: dict[str, object] = {"temperature": 0.5, "top_k": 5, "top_p": 0.5}
    gguf: dict[str, object] = {"temp": 0.6, "top_k": 6, "top_p": 0.6, "min_p": 0.6}
    params, origins = resolve({**MODEL, "top_k": Given("4", "--top-k")}, entry, gguf)
    assert params == SamplingParams(temperature=0.5, top_k=4, top_p=0.5, min_p=0.6)
    assert (origins["top_k"], origins["top_p"], origins["min_p"]) == ("--top-k", "model entry", "model file")
    assert (origins["temperature"], origins["typical_p"]) == ("model entry", "default")


def test_whatever_the_user_gave_comes_first_whichever_way() -> None:
    for origin in ("INFER_TOP_K", "config.toml", "--set top_k"):
        params, origins = resolve({**MODEL, "top_k": Given("4", origin)}, {"top_k": 5}, {"top_k": 6})
        assert (params.top_k, origins["top_k"]) == (4, origin)


@pytest.mark.parametrize(("in_file", "ours"), IN_FILE.items())
def test_every_recommendation_of_a_file_has_its_parameter(tmp_path: Path, in_file: str, ours: str) -> None:
    value = {"top_k": 7, "penalty_last_n": 33, "mirostat": 2, "penalty_repeat": 1.3}.get(in_file, 0.31)
    header = read_header(tiny(tmp_path, **{in_file: value}))
    assert header.sampling == {in_file: value}
    params, origins = resolve(MODEL, gguf=dict(header.sampling))
    assert getattr(params, ours) == value
    assert origins[ours] == "model file"
    expected = {"temperature": SAMPLING_TEMPERATURE, ours: value}
    assert params == SamplingParams(**expected)  # type: ignore[arg-type]


def test_a_temperature_of_the_users_keeps_the_other_recommendations() -> None:
    params, origins = resolve({"temperature": Given("0.4", "-t")}, gguf={"temp": 0.31, "top_k": 7})
    assert (params.temperature, params.top_k) == (0.4, 7)
    assert origins["temperature"] == "-t"


def test_no_recommendation_is_llama_cpps_temperature() -> None:
    assert resolve(MODEL)[0] == SamplingParams(temperature=SAMPLING_TEMPERATURE)
    assert resolve({}, default="model")[0].temperature == SAMPLING_TEMPERATURE


def test_greedy_asks_no_model() -> None:
    for given in ({}, {"temperature": Given("0", "-t")}):
        params, origins = resolve(
            given, {"repeat_penalty": 1.2}, {"penalty_repeat": float("nan"), "top_k": "x"}
        )
        assert params == SamplingParams()
        assert "top_k" not in origins
    # A file may recommend it.
    assert resolve(MODEL, gguf={"temp": 0, "top_k": 7})[0] == SamplingParams()


def test_greedy_refuses_a_flag_that_means_nothing_but_not_a_setting() -> None:
    with pytest.raises(UsageError, match="--top-k has no meaning without sampling"):
        resolve({"top_k": Given("4", "--top-k")})
    assert resolve({"top_k": Given("4", "config.toml")})[0] == SamplingParams()
    assert resolve({"repeat_penalty": Given("1.1", "--set repeat_penalty")})[0].repeat_penalty == 1.1


# --- values ---------------------------------------------------------------------------------------


def test_every_parameter_has_bounds_that_hold_its_default() -> None:
    for field in fields(SamplingParams):
        value = checked(field.name, field.default, "default")
        assert value == field.default
        assert type(value) is type(field.default)
        for bad in (float("nan"), 1e300, -1e300, True, "", "much", None, [1]):
            with pytest.raises(UsageError, match=f"here: {field.name} must be"):
                checked(field.name, bad, "here")


def test_a_whole_number_may_be_written_as_a_float() -> None:
    assert checked("top_k", 7.0, "here") == 7
    assert type(checked("top_k", "7.0", "here")) is int
    with pytest.raises(UsageError, match=r"must be a whole number, not 7\.5"):
        checked("top_k", 7.5, "here")


@pytest.mark.parametrize("temperature", ["warm", "", "-1", "nan", "inf", "101"])
def test_a_temperature_that_is_none(temperature: str) -> None:
    with pytest.raises(UsageError, match=r"-t: .*temperature"):
        resolve({"temperature": Given(temperature, "-t")})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temp", "warm"),
        ("temp", "0.7"),  # text, even of a number
        ("temp", float("nan")),
        ("temp", float("inf")),
        ("temp", True),
        ("temp", -0.5),
        ("temp", [0.5, 0.6]),
        ("top_k", 1.5),
        ("top_k", 2**40),
        ("top_k", -1),
        ("top_p", 1.01),
        ("min_p", -0.01),
        ("penalty_last_n", -2),
        ("penalty_repeat", 0.0),
        ("mirostat", 3),
        ("mirostat_eta", 1e30),
        ("xtc_threshold", "\x1b[2J"),
    ],
)
def test_a_recommendation_that_cannot_be_used(tmp_path: Path, name: str, value: Any) -> None:
    recommended: dict[str, object] = dict(read_header(tiny(tmp_path, **{name: value})).sampling)
    with pytest.raises(ModelInvalid, match=rf"'general\.sampling\.{name}' that can't be used") as caught:
        resolve(MODEL, gguf=recommended)
    assert caught.value.message.isprintable()
    assert IN_FILE[name] in caught.value.hint
    # Where the user says it, or the reply is greedy, the file is not asked.
    resolve({**MODEL, IN_FILE[name]: Given("1", "config.toml")}, gguf=recommended)
    resolve({}, gguf=recommended)


def test_a_float_of_32_bits_is_the_decimal_that_was_meant(tmp_path: Path) -> None:
    wanted = {"temp": 0.31, "top_p": 0.95, "min_p": 0.05, "penalty_repeat": 1.1, "mirostat_tau": 1 / 3}
    found = read_header(tiny(tmp_path, **wanted)).sampling
    for name, value in found.items():
        assert struct.pack("<f", value) == struct.pack("<f", wanted[name])
    assert found == {**wanted, "mirostat_tau": 0.33333334}


# --- --set ----------------------------------------------------------------------------------------


def test_set_names_parameters() -> None:
    assert parse_set([]) == {}
    assert parse_set(["top-k= 5 ", "min_p=0.1", "top_k=6"]) == {
        "top_k": Given("6", "--set top_k"),
        "min_p": Given("0.1", "--set min_p"),
    }
    for bad, message in [
        ("top_k", "is not NAME=VALUE"),
        ("=1", "knows no parameter ''"),
        ("temp=1", "knows no parameter 'temp'"),
        ("penalty_repeat=1", "knows no parameter"),
    ]:
        with pytest.raises(UsageError, match=message):
            parse_set([bad])
    with pytest.raises(UsageError, match="--set top_k: top_k must be a whole number, not 'many'"):
        resolve({**MODEL, **parse_set(["top_k=many"])})


# --- what a record holds --------------------------------------------------------------------------


def test_the_parameters_that_decide_a_reply() -> None:
    assert effective_params(SamplingParams(), 5, ()) == {"temperature": 0.0, "max_tokens": 5, "stop": []}
    sampled = effective_params(SamplingParams(temperature=0.5), 5, ("a",))
    assert sampled == {
        "temperature": 0.5, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "max_tokens": 5, "stop": ["a"],
    }  # fmt: skip
    penalized = effective_params(SamplingParams(top_k=7, repeat_penalty=1.3), 5, ())
    assert penalized == {"temperature": 0.0, "repeat_penalty": 1.3, "max_tokens": 5, "stop": []}


# --- the whole way --------------------------------------------------------------------------------


def test_the_files_own_sampling_is_what_a_reply_is_drawn_with(tmp_path: Path) -> None:
    path = tiny(tmp_path, temp=0.31, top_k=7, penalty_repeat=1.3)
    done = infer("run", "-m", path, "-t", "model", "-n", 1, "--seed", 1, "--json", "hello")
    assert done.code == 0, done.err
    params = done.json["params"]
    assert isinstance(params, dict)
    assert {name: params[name] for name in ("temperature", "top_k", "repeat_penalty")} == {
        "temperature": 0.31,
        "top_k": 7,
        "repeat_penalty": 1.3,
    }
    shown = infer("models", "show", path, "--json").json["sampling_in_file"]
    assert shown == {
        "value": {"temp": 0.31, "top_k": 7, "penalty_repeat": 1.3},
        "origin": "general.sampling.*",
    }


def test_a_bad_recommendation_is_one_line_where_it_would_be_used(tmp_path: Path) -> None:
    path = tiny(tmp_path, temp=0.31, top_p=7.0)
    sampled = infer("run", "-m", path, "-t", "model", "-n", 1, "hello")
    one_error_line(sampled, 4, "'general.sampling.top_p'", "7.0", "--set top_p=")
    assert infer("run", "-m", path, "-t", "model", "--set", "top_p=0.5", "-n", 1, "hello").code == 0
    assert infer("run", "-m", path, "-n", 1, "hello").code == 0
