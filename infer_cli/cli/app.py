"""The `infer` command: assembles the commands, turns usage errors into ours. Imports nothing heavy."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterable
from typing import Annotated

import typer

from infer_cli import __version__
from infer_cli.cli.translation import with_our_flags
from infer_cli.errors import ExitStatus, UsageError
from infer_cli.settings.config_file import config_path, read_config, toml_text

# Name -> module of `infer_cli.cli`, what is in it (a function, or a Typer app of several commands), and the
# first sentence of its help: so the list of all imports none of them.
_COMMANDS = {
    "run": ("run.command", "run", "Answer one prompt from arguments, files and standard input."),
    "chat": ("chat.command", "chat", "Talk with a model."),
    "batch": ("batch.command", "batch", "Answer every row of a file."),
    "score": ("score.command", "score", "Say how likely a model finds texts, each after its context."),
    "eval": ("eval.command", "evaluate", "Score models on tasks."),
    "rescore": ("rescore", "rescore", "Score the answers of a run again."),
    "merge": ("batch.merge", "merge", "Put the outputs of shards together, in input order."),
    "verify": ("checks.verify", "verify", "Answer a sample of the rows again and compare."),
    "compare": ("compare.command", "compare", "Compare runs of evaluations item by item."),
    "report": ("report", "report", "Write a page about runs of evaluations."),
    "replay": (
        "checks.replay",
        "replay",
        "Answer a recorded request or conversation again and compare.",
    ),
    "task": ("task.command", "app", "Tasks of evaluations: list and check them."),
    "tokens": ("tokens", "tokens", "Count the tokens of a text, of files or of stdin."),
    "template": ("template", "app", "Chat templates: show, render and check them."),
    "perplexity": (
        "perplexity.command",
        "perplexity",
        "Measure how well a model predicts a text.",
    ),
    "probe": ("checks.probe", "probe", "Test that replies do not depend on what runs beside them."),
    "models": ("models.command", "app", "Models: what there is, what is here, and fetching them."),
    "records": ("records.command", "app", "Records: what was answered, with all that it came from."),
    "cache": ("cache.command", "app", "Files that were read by a model before, kept as it read them."),
    "devices": ("devices", "devices", "List what this build can compute on, and its memory."),
    "doctor": ("doctor", "doctor", "Check the installation."),
    "config": ("config", "app", "Show and change the configuration file."),
}


COMPLETES = "_INFER_COMPLETE"  # Typer's variable: a shell asks for words, with no arguments

_WITHOUT_SETTINGS = (["config", "edit"], ["config", "set"], ["config", "path"])  # which mend them


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"infer {__version__}")
        raise typer.Exit()


def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def command_line(names: Iterable[str] = _COMMANDS, *, only_listed: bool = False) -> typer.Typer:
    """The app with these commands: building only the one that is called saves half of the start-up.

    `only_listed`: without their parameters, for the list of all.
    """
    app = typer.Typer(
        name="infer",
        help="Answers from local language models that can be trusted and repeated.",
        rich_markup_mode=None,  # Rich would cost more than all the rest of `infer --help`
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_top)
    for name in names:
        module, attribute, summary = _COMMANDS[name]
        if only_listed:
            app.command(name, help=summary)(_top)
            continue
        found = getattr(importlib.import_module(f"infer_cli.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def call(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Raises InferError for what is wrong with it."""
    if COMPLETES in os.environ:
        return _complete()
    settings = {} if arguments[:2] in _WITHOUT_SETTINGS else read_config()
    arguments = arguments or ["--help"]
    # A setting may be any command's, so the file's names are checked against all of them.
    only_one = arguments and arguments[0] in _COMMANDS and not settings
    only_listed = not settings and arguments in (["-h"], ["--help"])
    names = arguments[:1] if only_one else _COMMANDS
    command = typer.main.get_command(command_line(names, only_listed=only_listed))
    arguments = _completed(command, arguments)
    if {"-h", "--help"}.intersection(arguments):
        from infer_cli.cli.examples import add_examples
        from infer_cli.cli.panels import add_panels

        add_examples(command)
        add_panels(command)
    defaults = _defaults(command, settings, arguments)
    if "--quiet" not in arguments and any(name.startswith("INFER_") for name in os.environ):
        _warn_of_variables(command)
    try:
        result = command.main(arguments, prog_name="infer", standalone_mode=False, default_map=defaults)
    except typer.TyperException as e:
        raise _usage_error(e, command, arguments) from None
    except typer.Abort:
        return ExitStatus.INTERRUPTED
    except SystemExit as leaving:  # what Typer makes of a reader that went away, with the exit code 1
        if isinstance(leaving.__context__, BrokenPipeError):
            raise leaving.__context__ from None
        raise
    return result if isinstance(result, int) else ExitStatus.OK


def _complete() -> int:
    """Tell a shell what the word that is being typed can become."""
    from infer_cli.cli.completion import add_completions, read_line

    called = read_line()[:1]
    command = typer.main.get_command(
        command_line(called) if called and called[0] in _COMMANDS else command_line(only_listed=True)
    )
    add_completions(command, lambda: typer.main.get_command(command_line()))
    command.main([], prog_name="infer", standalone_mode=False)  # leaves, once it has printed them
    return ExitStatus.OK


def check_settings(settings: dict[str, object]) -> None:
    """Raises UsageError for a name that no command has, and for a value that a command's flag can't have."""
    command = typer.main.get_command(command_line())
    for name in _COMMANDS:
        _defaults(command, settings, [name])


def _completed(command: object, arguments: list[str]) -> list[str]:
    """The arguments in our words, and for a group of commands alone those that show its help."""
    called, names = _called(command, arguments)
    rest = arguments[len(names) :]
    if not names or getattr(called, "commands", {}):
        return arguments if rest else [*names, "--help"]
    return [*names, *with_our_flags(" ".join(names), rest, _spellings(called))]


def _called(command: object, arguments: list[str]) -> tuple[object, list[str]]:
    """The command that the arguments call, and those of them that name it: `models`, `pull`."""
    n_names, called = 0, command
    while n_names < len(arguments) and arguments[n_names] in (below := getattr(called, "commands", {})):
        called, n_names = below[arguments[n_names]], n_names + 1
    return called, arguments[:n_names]


def flags_of(name: str) -> dict[str, bool]:
    """Spellings of the flags of one command, and whether each takes a value."""
    command = typer.main.get_command(command_line([name]))
    return _spellings(getattr(command, "commands", {})[name])


def _spellings(command: object) -> dict[str, bool]:
    return {
        spelling: not param.is_flag
        for param in getattr(command, "params", [])
        if param.param_type_name == "option"
        for spelling in (*param.opts, *param.secondary_opts)
    }


def _warn_of_variables(command: object) -> None:
    from infer_cli.cli.screen.terminal import Notices
    from infer_cli.cli.variables import unknown_variables

    notices = Notices(quiet="INFER_QUIET" in os.environ, stats=False)
    for message in unknown_variables(command, lambda: typer.main.get_command(command_line())):
        notices.warn(message)


def _usage_error(error: typer.TyperException, command: object, arguments: list[str]) -> UsageError:
    ctx = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    param = getattr(error, "param", None)
    if ctx is not None and param is not None and param.name is not None:
        source = ctx.get_parameter_source(param.name)
        if source is not None and source.name == "DEFAULT_MAP":
            message += f" (from {config_path()})"
        elif source is not None and source.name == "ENVIRONMENT" and param.envvar not in message:
            message += f" (from {param.envvar})"
    message = message.replace("Recognized values: , ", "Recognized values: ")  # the empty text is one
    if ctx is None and "requires an argument" in message:
        return UsageError(message, _with_argument(getattr(error, "option_name", ""), command, arguments))
    # Some errors do not know their command.
    own = " ".join(["infer", *_called(command, arguments)[1]])
    called = ctx.command_path if ctx is not None else own
    if called == "infer" and message.startswith("No such option"):
        return UsageError(message, "flags stand behind the command: `infer run -m MODEL`, see `infer --help`")
    return UsageError(message, f"see `{called} --help`")


def _with_argument(option: str, command: object, arguments: list[str]) -> str:
    """The hint of a flag without its value: what it takes, of the command that is called."""
    called, names = _called(command, arguments)
    path = " ".join(["infer", *names])
    metavars = (param.metavar for param in getattr(called, "params", []) if option in param.opts)
    metavar = next(metavars, None)
    example = f"write `{path} {option} {metavar}`, " if metavar else ""
    return f"{example}see `{path} --help`"


def _defaults(command: object, settings: dict[str, object], arguments: list[str]) -> dict[str, object]:
    """Click's default map from the configuration file, for the command that is called.

    Raises UsageError for a name that no command has, and for a value that this one's flag can't have.
    """
    commands: dict[str, object] = getattr(command, "commands", {})
    everywhere: dict[str, object] = {}
    tables: dict[str, dict[str, object]] = {name: {} for name in commands}
    for key, value in settings.items():
        if isinstance(value, dict) and key in commands:
            known = _flags(commands[key])
            for inner, setting in value.items():
                if (name := _flag_name(inner)) not in known:
                    raise UsageError(f"{config_path()}: [{key}] has no setting {inner!r}", _SETTINGS_HINT)
                tables[key][name] = setting
        elif (name := _flag_name(key)) in _flags(command):
            everywhere[name] = value
        else:
            raise UsageError(f"{config_path()}: no command has a setting {key!r}", _SETTINGS_HINT)
    called = next((word for word in arguments if word in commands), None)
    if called is None:
        return {}
    return {called: _default_map(commands[called], {**everywhere, **tables[called]})}


def _default_map(command: object, settings: dict[str, object]) -> dict[str, object]:
    commands: dict[str, object] = getattr(command, "commands", {})
    if commands:
        return {name: _default_map(sub, settings) for name, sub in commands.items()}
    own = _flags(command)
    params = {param.name: param for param in getattr(command, "params", [])}
    for name, value in settings.items():
        if name == "model" and name in own and params[own[name]].multiple and isinstance(value, str):
            settings = {**settings, name: [value]}  # of a command that takes several
            continue
        if name in own and (kind := _unfit(params[own[name]], value)):
            raise UsageError(f"{config_path()}: {name} can't be {toml_text(value)[:60]}", f"it takes {kind}")
    return {own[name]: value for name, value in settings.items() if name in own}


def _unfit(param: typer.core.TyperArgument | typer.core.TyperOption, value: object) -> str | None:
    """What a setting takes that is not such a `value`; None where only the flag itself can tell."""
    if param.multiple or param.nargs != 1:
        if not isinstance(value, list) or any(not _is_plain(item) for item in value):
            return "an array of strings or numbers"
    elif getattr(param, "is_flag", False):
        return None if isinstance(value, (bool, str)) else "true or false"
    elif isinstance(value, bool) or not _is_plain(value):
        return "a string or a number"
    elif param.name == "temperature":
        from infer_cli.settings.sampling import is_temperature

        return None if is_temperature(value) else "a number or `model`"
    elif isinstance(value, str):
        return _not_that_number(value, param.type.name)
    return None


def _not_that_number(text: str, kind: str) -> str | None:
    """What a flag of a number takes, where `text` is none."""
    number = {"int": int, "float": float}.get(kind)
    try:
        if number is not None:
            number(text)
    except ValueError:
        return "a whole number" if number is int else "a number"
    return None


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


_SETTINGS_HINT = "a setting is a flag's long name without the dashes; see `infer run --help`"
# Parameters that say what a command acts on: a default would hide or remove what the user does not mean.
_NO_SETTINGS = {"help", "version", "of_model", "everything", "all_models"}


def _flag_name(setting: str) -> str:
    return setting.replace("_", "-")  # `max_tokens` will do


def _flags(command: object) -> dict[str, str]:
    """Long names of a command's options, of all its commands' for a group, and their parameters' names."""
    found: dict[str, str] = {}
    for sub in getattr(command, "commands", {}).values():
        found.update(_flags(sub))
    for param in getattr(command, "params", []):
        if param.param_type_name == "option" and param.name not in _NO_SETTINGS:
            found.update({flag[2:]: param.name for flag in param.opts if flag.startswith("--")})
    return found
