"""`infer models show | verify | add | rm | default`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from infer_cli.cli.models.command import app
from infer_cli.errors import CheckFailed, ExitStatus, ModelInvalid, ModelNotFound, UsageError
from infer_cli.models import catalogue_edit
from infer_cli.models.catalogue import load_catalogue, user_path
from infer_cli.models.sources import HubQuant, LocalFile
from tests.cli_helpers import infer, one_error_line
from tests.model_server import ModelServer, serving
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    for name in ("HOME", "USERPROFILE", "OLLAMA_MODELS", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as running:
        yield running


@pytest.fixture
def installed(server: ModelServer, tiny: Path, own_home: Path) -> Path:
    """`mine`, downloaded; its file."""
    sha256 = hashlib.sha256(tiny.read_bytes()).hexdigest()
    run("add", "mine", server.add("/m.gguf", tiny.read_bytes()), "--sha256", sha256)
    run("pull", "--quiet", "mine")
    return own_home / "models" / "mine" / "m.gguf"


def run(*arguments: str | Path) -> tuple[str, str]:
    """stdout and stderr of a command that must succeed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout, result.stderr


def write_user(text: str) -> None:
    user_path().parent.mkdir(parents=True, exist_ok=True)
    user_path().write_text(text, "utf-8")


# --- show -----------------------------------------------------------------------------------------


def rows(*arguments: str | Path) -> dict[str, list[str]]:
    return {cells[0]: cells[1:] for cells in (line.split("\t") for line in run(*arguments)[0].splitlines())}


def test_show_installed(installed: Path) -> None:
    shown = rows("show", "mine")
    assert shown["name"][0] == "mine" and shown["installed"][0] == "yes"
    assert shown["path"][0] == str(installed)
    assert shown["architecture"] == ["llama", "general.architecture"]
    assert shown["sha256"][0] == hashlib.sha256(installed.read_bytes()).hexdigest()
    assert shown["quantization"][0].startswith("F16 ")
    assert rows("show", "mine", "--ctx", "256")["window"] == ["256", "--ctx"]


def test_show_json(tiny: Path) -> None:
    shown: dict[str, Any] = json.loads(run("show", tiny, "--json")[0])
    assert (shown["name"], shown["installed"]) == ("tiny", True)
    assert shown["context"] == {"value": 512, "origin": "llama.context_length"}


def test_show_what_is_not_installed(server: ModelServer) -> None:
    run("add", "mine", server.add("/m.gguf", b"GGUF"))
    shown = rows("show", "mine")
    assert shown["installed"][0].startswith("no: `infer models pull mine`")
    assert "architecture" not in shown
    assert json.loads(run("show", "qwen3-4b", "--json")[0])["size"] == {
        "value": 2497280256,
        "origin": "catalogue",
    }
    assert server.requests == []


def test_show_on_a_terminal(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    app(["show", str(tiny)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "architecture" in shown and "general.architecture" in shown and "\t" not in shown


def test_text_from_the_file_is_shown_safely(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "x.gguf", overrides={"general.name": "a\x1b[31m\nb\u202e"})
    shown = rows("show", path)
    assert shown["title"][0] == "a\ufffd[31m b\ufffd"


@pytest.mark.parametrize("ctx", ["0", "-1", "x", "1.5", "513", "9" * 5000])
def test_bad_window(tiny: Path, ctx: str) -> None:
    result = CliRunner().invoke(app, ["show", str(tiny), f"--ctx={ctx}"])
    assert isinstance(result.exception, UsageError)


def test_errors_reach_the_user_as_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but no more")
    one_error_line(infer("models", "show", tmp_path / "bad.gguf"), ExitStatus.MODEL_INVALID, "bad.gguf")
    one_error_line(infer("models", "show", "ollama:none"), ExitStatus.MODEL_NOT_FOUND, "ollama has no model")


# --- verify ---------------------------------------------------------------------------------------


def test_verify_says_what_it_compared_with(installed: Path, tiny: Path) -> None:
    sha256 = hashlib.sha256(installed.read_bytes()).hexdigest()
    assert run("verify", "mine")[0] == f"mine\t{sha256}\tok, as published\t{installed}\n"
    assert run("verify", tiny)[0] == f"tiny\t{sha256}\tno hash is known\t{tiny}\n"


def test_verdicts_as_json(installed: Path) -> None:
    (verdict,) = json.loads(run("verify", "mine", "--json")[0])
    assert verdict["holds"] and verdict["sha256"] == verdict["expected"]
    assert (verdict["origin"], verdict["path"]) == ("published", str(installed))
    installed.write_bytes(b"GGUF")
    failed = CliRunner().invoke(app, ["verify", "--all", "--jsonl"])
    assert isinstance(failed.exception, CheckFailed)
    assert json.loads(failed.stdout)["holds"] is False


def test_verify_reads_every_byte(installed: Path) -> None:
    run("verify", "--all")
    data = bytearray(installed.read_bytes())
    before = installed.stat()
    data[-1] ^= 1
    installed.write_bytes(data)
    os.utime(installed, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a failing disk would
    for arguments in (["verify", "mine"], ["verify", "--all"]):
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, CheckFailed)
        assert result.exception.exit_status == 9
        assert result.stdout.startswith("mine\t") and "DIFFERS from" in result.stdout
        assert result.stdout.count("\n") == 1
    assert "infer models rm mine" in CliRunner().invoke(app, ["verify", "mine"]).exception.hint  # type: ignore[union-attr]
    run("rm", "mine")
    run("pull", "mine")
    assert "ok, as published" in run("verify", "mine")[0]


def test_verify_without_a_published_hash_uses_the_noted_one(server: ModelServer, tiny: Path) -> None:
    run("add", "mine", server.add("/m.gguf", tiny.read_bytes()))
    path = Path(run("pull", "--quiet", "mine")[0].strip())
    assert "ok, as noted when it was installed" in run("verify", "mine")[0]
    path.write_bytes(tiny.read_bytes()[:-1] + b"\1")
    assert isinstance(CliRunner().invoke(app, ["verify", "mine"]).exception, CheckFailed)


def test_verify_what_is_not_here() -> None:
    assert isinstance(CliRunner().invoke(app, ["verify", "qwen3-4b"]).exception, ModelNotFound)
    assert isinstance(CliRunner().invoke(app, ["verify", "qwen3-4b", "--all"]).exception, UsageError)
    assert run("verify", "--all") == ("", "")


# --- add ------------------------------------------------------------------------------------------


def test_add_keeps_what_is_there() -> None:
    text = "# mine\ndefault = 'own'\n\n[[model]]  # first\nname = 'own'\nsources = ['hf:o/r:Q8_0']"
    write_user(text)
    out, err = run("add", "new", "hf:o/r:Q4_0", "--alias", "n", "--alias", "n2", "--sha256", "a" * 64)
    assert (out, err) == ("", f"added new to {user_path()}\n")
    assert user_path().read_text().startswith(text + "\n\n[[model]]\n")
    entry = load_catalogue().find("n2")
    assert (entry.name, entry.sha256, entry.aliases) == ("new", "a" * 64, ("n", "n2"))
    assert entry.sources == (HubQuant("o/r", "Q4_0"),)
    assert load_catalogue().default == "own"


def test_add_a_path_counts_from_here(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.parent)
    run("add", "mine", "tiny.gguf")
    assert load_catalogue().find("mine").sources == (LocalFile(tiny),)
    assert isinstance(CliRunner().invoke(app, ["add", "other", "none.gguf"]).exception, ModelNotFound)


def test_what_was_added_is_listed_and_verified_before_its_first_use(tiny: Path) -> None:
    sha256 = hashlib.sha256(tiny.read_bytes()).hexdigest()
    run("add", "mine", tiny, "--sha256", sha256)
    (row,) = [line for line in run("list")[0].splitlines() if line.startswith("mine\t")]
    assert row.startswith(f"mine\t{tiny.stat().st_size}\t-\t-\t{tiny}\t")
    assert run("verify", "mine")[0] == f"mine\t{sha256}\tok, as published\t{tiny}\n"


def test_add_again_wants_replace() -> None:
    run("add", "mine", "hf:o/r:Q8_0", "--alias", "m")
    before = user_path().read_text()
    for arguments in (
        ["add", "mine", "hf:o/r:Q4_0"],
        ["add", "m", "hf:o/r:Q4_0"],
        ["add", "x", "hf:o/r:Q4_0", "--alias", "m"],
    ):
        assert isinstance(CliRunner().invoke(app, arguments).exception, UsageError)
    assert user_path().read_text() == before
    run("add", "mine", "hf:o/r:Q4_0", "--replace")
    assert load_catalogue().find("mine").sources == (HubQuant("o/r", "Q4_0"),)
    assert load_catalogue().get("m") is None


@pytest.mark.parametrize("source", ["o/r:Q4_0", "hf.co/o/r:Q4_0", "https://huggingface.co/o/r:Q4_0"])
def test_add_a_name_or_a_page_of_the_hub(source: str) -> None:
    run("add", "mine", source)
    assert load_catalogue().find("mine").sources == (HubQuant("o/r", "Q4_0"),)


def test_add_may_override_a_shipped_entry() -> None:
    run("add", "smollm2-360m-instruct", "hf:o/r:Q4_0")
    assert load_catalogue().find("smollm2-360m-instruct").sources == (HubQuant("o/r", "Q4_0"),)


@pytest.mark.parametrize(
    "arguments",
    [
        ["A", "hf:o/r:Q8_0"],
        ["", "hf:o/r:Q8_0"],
        ["a/b", "hf:o/r:Q8_0"],
        ["x.gguf", "hf:o/r:Q8_0"],
        ["x", "ftp:x"],
        ["x", "hf:o/r:Q8_0", "--sha256", "ABC"],
        ["x", "hf:o/r:Q8_0", "--alias", "b c"],
        ["x", "hf:o/r:Q8_0", "--alias", "x"],
    ],
)
def test_add_refuses(arguments: list[str]) -> None:
    assert isinstance(CliRunner().invoke(app, ["add", *arguments]).exception, UsageError)
    assert not user_path().exists()


def test_add_to_a_file_that_is_wrong_already() -> None:
    write_user("[[model")
    with pytest.raises(UsageError, match="not valid TOML"):
        catalogue_edit.add_entry("x", "hf:o/r:Q8_0")
    assert user_path().read_text() == "[[model"


ENTRY = "[[model]]\nname = '{}'\nsources = [\n  'hf:o/r:Q8_0',  # a comment\n]\n"
OWN = '{ name = "own", sources = ["hf:o/r:Q8_0"] }'
NEW = '{name = "new", sources = ["hf:o/r:Q4_0"]}'


@pytest.mark.parametrize(
    "before, with_new, without_own",
    [
        (f"model = [{OWN}]\n", f"model = [{OWN}, {NEW}]\n", "model = []\n"),
        (
            f"model = [\n  # mine\n  {OWN}  # first\n]  # all\n",
            f"model = [\n  # mine\n  {OWN},  # first\n  {NEW}\n]  # all\n",
            "model = [\n  # mine\n]  # all\n",
        ),
    ],
)
def test_entries_of_an_array_are_edited_in_it(before: str, with_new: str, without_own: str) -> None:
    write_user(before)
    catalogue_edit.add_entry("new", "hf:o/r:Q4_0")
    assert user_path().read_text() == with_new
    catalogue_edit.remove_entry("new")
    assert load_catalogue().own == {"own"}
    write_user(before)
    catalogue_edit.remove_entry("own")
    assert user_path().read_text() == without_own
    catalogue_edit.add_entry("new", "hf:o/r:Q4_0")
    assert load_catalogue().own == {"new"}


@pytest.mark.parametrize(
    "header, inside",
    [
        ('[["model"]]', ""),
        ("[[ 'model' ]]  # one", ""),
        ("  [[model]]", "sampling.top_k = 1\nsampling.temperature = 0.5\n"),
        ("[[model]]", "sampling = { top_k = 1 }\n"),
        ("[[model]]", '  [ model . "sampling" ]\n  top_k = 1\n'),
        ("[[model]]", 'notes = """\n[[model]]\nname = "none"\n# kept\n"""\n'),
        ("[[model]]", "'aliases' = [\n  'n',\n\n  # [[model]]\n]\n"),
    ],
)
def test_however_an_entry_is_written_it_can_be_removed(header: str, inside: str) -> None:
    entry = f"{header}\nname = 'own'\nsources = ['hf:o/r:Q8_0']\n{inside}"
    other = ENTRY.format("other").replace("[[model]]", header)  # tomlkit spells all headers of an array alike
    for text in (
        f"# top\n\n{{}}# after\n\n{other}",
        f"# top\n\n{other}# between\n\n{{}}  # last\n",
        "# top\n\n{}\n# last\n",
    ):
        write_user(text.format(entry))
        assert "own" in load_catalogue().own
        catalogue_edit.remove_entry("own")
        assert user_path().read_text() == text.format("")
        assert load_catalogue().own <= {"other"}


def test_default_is_set_however_it_is_written() -> None:
    for text in (
        '"default" = {}  # why\n',
        "model = []\ndefault={}\n",
        "# top\r\ndefault = {}\r\n\r\n",
        "default = {}",
    ):
        for old in ("'qwen3-4b'", '"""\nqwen3-4b"""', '"""qwen3\\\n   -4b"""'):
            user_path().parent.mkdir(parents=True, exist_ok=True)
            user_path().write_bytes(text.format(old).encode())
            assert load_catalogue().default == "qwen3-4b"
            catalogue_edit.set_default("smollm2-360m-instruct")
            assert user_path().read_bytes().decode() == text.format('"smollm2-360m-instruct"')


def test_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("# kept\n")
    user_path().parent.mkdir(parents=True)
    user_path().symlink_to(real)
    run("add", "mine", "hf:o/r:Q8_0")
    assert user_path().is_symlink() and "# kept" in real.read_text() and "mine" in real.read_text()


_GAPS = st.lists(st.sampled_from(["", "# note", "  # [[model]]", "\t"]), max_size=3)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 4),
    chosen=st.integers(0, 3),
    gaps=st.lists(_GAPS, min_size=5, max_size=5),
    data=st.data(),
)
def test_removing_one_entry_keeps_every_other_line(
    count: int, chosen: int, gaps: list[list[str]], data: st.DataObject
) -> None:
    chosen %= count
    blocks = [ENTRY.format(f"m{i}") for i in range(count)]
    if data.draw(st.booleans()):
        blocks[chosen] += "[model.sampling]\ntemperature = 1\n"
    texts = ["".join(line + "\n" for line in gap) for gap in gaps]
    write_user("".join(gap + block for gap, block in zip(texts, blocks, strict=False)) + texts[count])
    catalogue_edit.remove_entry(f"m{chosen}")
    kept = [block if i != chosen else "" for i, block in enumerate(blocks)]
    expected = "".join(gap + block for gap, block in zip(texts, kept, strict=False)) + texts[count]
    assert user_path().read_text() == expected
    assert load_catalogue().own == {f"m{i}" for i in range(count)} - {f"m{chosen}"}


# --- rm -------------------------------------------------------------------------------------------


def test_rm_frees_and_says_so(installed: Path) -> None:
    size = installed.stat().st_size
    out, err = run("rm", "mine")
    assert out == "" and err.startswith("removed mine: ") and "freed" in err
    assert size > 1000 and not installed.exists()
    assert isinstance(CliRunner().invoke(app, ["path", "mine"]).exception, ModelNotFound)
    assert isinstance(CliRunner().invoke(app, ["rm", "mine"]).exception, ModelNotFound)
    assert load_catalogue().get("mine") is not None


def test_rm_entry_removes_both(installed: Path) -> None:
    _, err = run("rm", "mine", "--entry")
    assert err.endswith("removed the entry mine\n")
    assert load_catalogue().get("mine") is None and not installed.exists()


def test_rm_entry_without_files() -> None:
    run("add", "mine", "hf:o/r:Q8_0", "--alias", "m")
    assert run("rm", "m", "--entry") == ("", "removed the entry mine\n")
    assert load_catalogue().get("mine") is None


def test_rm_what_the_catalogue_has_forgotten(installed: Path) -> None:
    write_user("")
    run("rm", "mine")
    assert not installed.exists()


def test_rm_keeps_your_own_file(tiny: Path) -> None:
    assert isinstance(CliRunner().invoke(app, ["rm", str(tiny)]).exception, UsageError)
    run("add", "mine", str(tiny))
    run("pull", "mine")
    _, err = run("rm", "mine")
    assert f"kept {tiny}: it was used in place" in err
    assert tiny.exists()


def test_rm_an_unfinished_download(own_home: Path) -> None:
    part = own_home / "models" / "qwen3-4b" / "x.gguf.0.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(5000))
    assert run("rm", "qwen3-4b")[1] == "removed qwen3-4b: 5 kB freed\n"
    assert not part.exists()


def test_rm_entry_of_the_shipped_catalogue_or_the_default() -> None:
    assert isinstance(CliRunner().invoke(app, ["rm", "qwen3-4b", "--entry"]).exception, UsageError)
    run("add", "mine", "hf:o/r:Q8_0")
    run("default", "mine")
    result = CliRunner().invoke(app, ["rm", "mine", "--entry"])
    assert isinstance(result.exception, UsageError) and "infer models default" in result.exception.hint
    assert load_catalogue().default == "mine"


# --- default --------------------------------------------------------------------------------------


def test_default_is_printed_and_set() -> None:
    assert run("default")[0] == "smollm2-135m-instruct\n"
    assert run("default", "qwen2.5-0.5b")[0] == "qwen2.5-0.5b-instruct\n"
    assert run("default")[0] == "qwen2.5-0.5b-instruct\n"
    assert user_path().read_text() == 'default = "qwen2.5-0.5b-instruct"\n'
    assert isinstance(CliRunner().invoke(app, ["default", "none"]).exception, ModelNotFound)


def test_default_keeps_what_is_there() -> None:
    write_user(f"# top\ndefault = 'own' # why\n\n{ENTRY.format('own')}")
    run("default", "qwen3-4b")
    assert user_path().read_text() == f'# top\ndefault = "qwen3-4b" # why\n\n{ENTRY.format("own")}'
    write_user(ENTRY.format("own"))
    run("default", "own")
    assert user_path().read_text() == 'default = "own"\n\n' + ENTRY.format("own")


# --- list -----------------------------------------------------------------------------------------


def test_list_shows_what_other_tools_hold(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "elsewhere/.lmstudio/models/pub/repo/m.gguf"
    path.parent.mkdir(parents=True)
    tiny.rename(path)
    name, size = "lmstudio:pub/repo/m.gguf", path.stat().st_size
    assert run("list")[0].splitlines()[-1].startswith(f"{name}\t{size}\t-\t-\t{path}\t")
    row = json.loads(run("list", "--json")[0])[-1]
    assert (row["name"], row["tool"], row["installed"], row["size"]) == (name, "LM Studio", False, size)
    assert run("path", name)[0] == f"{path}\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    app(["list"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "found elsewhere" in shown and "LM Studio" in shown


def test_changed_file_is_not_shown_as_if_it_were_the_same(installed: Path) -> None:
    write_tiny_gguf(installed, seed=1, n_ctx_train=256)
    shown = rows("show", "mine")
    assert "sha256" not in shown and shown["context"][0] == "256"
    assert isinstance(CliRunner().invoke(app, ["path", "mine"]).exception, ModelInvalid)
