"""What is no regular file where one is expected: one line, no waiting. And files that are written at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.settings.config_file import config_path
from infer_cli.settings.durations import MOST_SECONDS, parse_duration
from infer_cli.settings.toml_file import parse_toml
from infer_cli.system.files import UnusableFile, naming, open_regular, read_regular, write_atomic
from tests.cli_helpers import INFER, REPO, infer, one_error_line, script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs and devices here")


def _fifo(path: Path) -> str:
    os.mkfifo(path)
    return "pipe (FIFO)"


def _directory(path: Path) -> str:
    path.mkdir()
    return "directory"


def _link_to(target: str, words: str) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        path.symlink_to(target)
        return words

    return make


KINDS: dict[str, Callable[[Path], str]] = {
    "fifo": _fifo,
    "directory": _directory,
    "device": _link_to("/dev/zero", "device"),
    "terminal": _link_to("/dev/tty", "device"),
    "endless link": lambda path: _link_to(path.name, "endless link")(path),
    "broken link": _link_to("nowhere", "link to nothing"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_file_is_opened(tmp_path: Path, kind: str) -> None:
    words = KINDS[kind](tmp_path / "it")
    with pytest.raises(UnusableFile) as raised:
        open_regular(tmp_path / "it")
    assert words in str(raised.value)


def test_a_socket_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("it")
        with pytest.raises(UnusableFile, match="socket"):
            open_regular("it")


def test_a_directory_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").symlink_to(tmp_path / "not mounted")
    with pytest.raises(UnusableFile, match="config is a link to nothing"):
        open_regular(tmp_path / "config" / "config.toml")


def test_files_are_read_through_links_and_the_null_device_is_empty(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"abc"
    assert read_regular(os.devnull) == b""
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    with pytest.raises(UnusableFile, match="more than 0 MB"):
        read_regular(tmp_path / "file", 2)


PLACES: dict[str, tuple[str, ...]] = {
    "config.toml": ("run", "-m", "fake", "hi"),
    "models.toml": ("models", "list"),
    "job.json": ("batch", "-m", "fake", "ROWS", "-o", "OUT"),
    "records": ("records", "list"),
    "--prompt-template": ("run", "-m", "fake", "--prompt-template", "IT", "hi"),
    "--chat-template": ("run", "-m", "fake", "--chat-template", "IT", "hi"),
    "--messages": ("run", "-m", "fake", "--messages", "IT"),
    "--tools": ("run", "-m", "fake", "--tools", "IT", "hi"),
    "-f": ("run", "-m", "fake", "-f", "IT", "hi"),
    "-m": ("run", "-m", "IT", "hi"),
    "-m fake:": ("run", "-m", "fake:IT", "hi"),
    "--lora": ("run", "-m", "fake", "--lora", "IT", "hi"),
    "chat -f": ("chat", "-m", "fake", "-f", "IT"),
    "template": ("template", "check", "-m", "fake", "--chat-template", "IT"),
    "tokens -f": ("tokens", "-m", "fake", "-f", "IT"),
    "tiktoken": ("tokens", "-m", "IT.tiktoken", "hi"),
    "batch": ("batch", "-m", "fake", "--format", "lines", "IT", "-o", "OUT"),
    "verify": ("verify", "IT", "-m", "fake"),
    "merge": ("merge", "IT", "-o", "OUT"),
    "cache warm": ("cache", "warm", "-m", "fake", "-f", "IT"),
    "models add": ("models", "add", "own", "IT"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_place_of_a_file_says_so_in_one_line(tmp_path: Path, own_home: Path, kind: str) -> None:
    """None of them waits, and none goes on as if there were nothing."""
    (tmp_path / "rows.txt").write_text("a\n")
    names = {"ROWS": str(tmp_path / "rows.txt"), "OUT": str(tmp_path / "out.jsonl")}
    own = {
        "config.toml": own_home / "config" / "config.toml",
        "models.toml": own_home / "config" / "models.toml",
        "job.json": tmp_path / "out.jsonl.job" / "job.json",
        "records": own_home / "data" / "records.sqlite",
    }
    for place, arguments in PLACES.items():
        it = own.get(place, tmp_path / ("it.tiktoken" if place == "tiktoken" else "it.md"))
        it.parent.mkdir(parents=True, exist_ok=True)
        words = KINDS[kind](it)
        line = [names.get(a, a.replace("IT.tiktoken", str(it)).replace("IT", str(it))) for a in arguments]
        done = infer(*line, timeout=20)
        assert done.code in (1, 2, 3, 4), (place, done)
        one_error_line(done, done.code, it.name)
        assert words in done.err, (place, done.err)
        assert "unexpected" not in done.err
        it.rmdir() if kind == "directory" else it.unlink()


def test_what_a_shell_opened_is_read_as_the_pipe_that_it_is() -> None:
    """`-f <(command)`."""
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe")
    os.close(writing)
    done = subprocess.run(
        [*INFER, "run", "-m", "fake", "-f", f"/dev/fd/{reading}"],
        pass_fds=[reading], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=REPO, timeout=30,
    )  # fmt: skip
    os.close(reading)
    assert (done.returncode, done.stdout) == (0, "You said: from a pipe\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"a = " + b"{b = " * 10_000 + b"1" + b"}" * 10_000, "nested too deeply"),
        (b"a." * 100_000 + b"a = 1", "line 1 has a key of more than 32 parts"),
        (b"\n[" + b"'a' . " * 100_000 + b"a]", "line 2 has a key of more than 32 parts"),
        (b"\n\na = '\xff'\n", "byte 0xff in line 3"),
        (b"\xef\xbb\xbfseed = 1\n", "byte order mark"),
        (b"seed = " + b"9" * 5000, "digits"),
        (b"#" * (4 * 10**6) + b"\n", "more than 4 MB"),
        (b"seed = \n", "not valid TOML"),
        (b"\x00", "not valid TOML"),
    ],
)
@pytest.mark.parametrize("name", ["config.toml", "models.toml"])
def test_toml_that_can_not_be_read(own_home: Path, name: str, content: bytes, words: str) -> None:
    path = config_path().with_name(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    one_error_line(infer("models", "list"), 2, name, words)
    if name == "models.toml":
        one_error_line(infer("models", "default", "smollm2-135m-instruct"), 2, name, words)
        assert path.read_bytes() == content


def test_dots_that_are_not_in_keys_do_not_count(tmp_path: Path) -> None:
    dots = "a." * 100
    lines = [
        f"# {dots}",
        f"x = \"{dots}\\\"{dots}\" # '''",
        f"y = '{dots}\\'",
        f"z = '''\n\"{dots}'''",
        f'w = """\n{dots}\\"""{dots}"""',
        f"numbers = [{'1.5, ' * 100}]",
        f"{'a.' * 31}a = 1",
    ]
    values = parse_toml("\n".join(lines).encode(), tmp_path)
    assert (values["x"], values["y"]) == (f'{dots}"{dots}', f"{dots}\\")
    assert (values["z"], values["w"]) == (f'"{dots}', f'{dots}"""{dots}')


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("max-tokens = 1e999", "max-tokens can't be inf"),
        ("max-tokens = 1e300", "is not between"),
        ("temperature = nan", "temperature can't be nan"),
        ("threads = true", "threads can't be true"),
        ("stop = 3", "stop can't be 3"),
        ("stop = [[1]]", "stop can't be [[1]]"),
        ("seed = []", "seed can't be []"),
        ("quiet = 1e999", "quiet can't be inf"),
        ("json = [1]", "json can't be [1]"),
        ("deadline = '99999999999s'", "more than 100 years"),
        ("cache-size = '9e999'", "not an amount of bytes"),
        ("cache-size = '99999999999T'", "more than any file can hold"),
        ("ctx = 1e999", "ctx can't be inf"),
    ],
)
def test_a_setting_that_its_flag_can_not_have(own_home: Path, setting: str, words: str) -> None:
    config_path().parent.mkdir(parents=True)
    config_path().write_text(setting + "\n")
    one_error_line(infer("run", "-m", "fake", "hi"), 2, "config.toml", words)
    assert infer("config", "path").code == 0


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "99999999999999999999", "true"])
@pytest.mark.parametrize("key", ["size", "context", "sampling.temperature", "sampling.top_k"])
def test_numbers_of_a_catalogue_are_numbers(own_home: Path, key: str, value: str) -> None:
    path = config_path().with_name("models.toml")
    path.parent.mkdir(parents=True)
    path.write_text(f'[[model]]\nname = "own"\nsources = ["./own.gguf"]\n{key} = {value}\n')
    one_error_line(infer("models", "list"), 2, "models.toml", key.rpartition(".")[2])


def test_a_length_of_time_has_bounds(tmp_path: Path) -> None:
    assert parse_duration(f"{MOST_SECONDS}", "--deadline") == MOST_SECONDS
    for text in ("99999999999s", "1e300h", "9" * 5000):
        with pytest.raises(UsageError) as raised:
            parse_duration(text, "--deadline")
        assert len(raised.value.message) < 100
    one_error_line(infer("run", "-m", "fake", "hi", "--deadline", "99999999999s"), 2, "100 years")
    one_error_line(infer("run", "-m", "fake", "hi", env={"INFER_DEADLINE": "1e30h"}), 2, "INFER_DEADLINE")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "deadline": "99999999999s"}\n{"prompt": "b"}\n')
    done = infer("batch", "-m", "fake", tmp_path / "rows.jsonl", "-o", "-", "--quiet")
    assert done.code == 8
    assert b"more than 100 years" in done.out
    assert infer("run", "-m", "fake", "hi", "--deadline", f"{MOST_SECONDS}").code == 0


@pytest.mark.parametrize(
    "values",
    [
        {"replies": 3},
        {"replies": {"a": 1}},
        {"template": None},
        {"step_s": "x"},
        {"n_ctx_train": 1.5},
        {"crash_after": []},
        {"load_s": float("nan")},
        {"crash_signal": "SIGNOTHING"},
    ],
)
def test_a_script_with_values_of_other_types_is_refused(tmp_path: Path, values: dict[str, object]) -> None:
    one_error_line(infer("run", "-m", script(tmp_path, **values), "a"), 4, "script.json", next(iter(values)))


# --- writing --------------------------------------------------------------------------------------


def test_a_write_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def pieces() -> list[bytes]:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_atomic(path, (piece for _ in "x" for piece in pieces()), durable=True)
    assert path.read_bytes() == b"old"
    with pytest.raises(OSError, match="disk"):
        write_atomic(path, (piece for _ in "x" for piece in pieces()))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    file.write_bytes(b"old")
    link.symlink_to(file)
    write_atomic(link, [b"ne", b"w"], durable=True)
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, [b"ne", b"w"], durable=True)
    assert os.read(reader, 9) == b"new"
    assert pipe.is_fifo()
    os.close(reader)


def test_what_the_shell_opened_is_written_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old ")
    with open(tmp_path / "file", "ab") as file:
        write_atomic(Path(f"/dev/fd/{file.fileno()}"), [b"new"], durable=True)
    assert (tmp_path / "file").read_bytes() == b"old new"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system in /dev")
def test_a_file_below_dev_is_replaced() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "file"
        for content in (b"old", b"new"):
            write_atomic(path, [content], durable=True)
            assert path.read_bytes() == content


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="No space left") as raised,
        naming(tmp_path / "items.jsonl"),
        open("/dev/full", "wb") as file,
    ):
        file.write(b"x" * 100_000)
    assert raised.value.filename == str(tmp_path / "items.jsonl")
    with pytest.raises(FileNotFoundError) as missing, naming(tmp_path / "a"):
        (tmp_path / "b").read_bytes()
    assert missing.value.filename == str(tmp_path / "b")
