"""What llm, ollama, llama.cpp and others call what is here; `docs/coming-from.md` has the same. Data alone.

A word that means one thing only is accepted, another one is answered with what there is here. A word that
means something here keeps its meaning.
"""

from __future__ import annotations

# --- accepted -------------------------------------------------------------------------------------

COMMANDS: dict[str, list[str]] = {
    "pull": ["models", "pull"],
    "list": ["models", "list"],
    "ls": ["models", "list"],
    "show": ["models", "show"],
    "rm": ["models", "rm"],
    "version": ["--version"],
    "-V": ["--version"],
}

# Of commands that have the flag on the right.
FLAGS = {
    "--temp": "--temperature",
    "--n-predict": "--max-tokens",
    "--num-predict": "--max-tokens",
    "--ctx-size": "--ctx",
    "--num-ctx": "--ctx",
    "-ngl": "--gpu-layers",
    "--n-gpu-layers": "--gpu-layers",
    "-s": "--system",
    "-sys": "--system",
    "--system-prompt": "--system",
    "--system-file": "--system",
    "-sysf": "--system",
    "--system-prompt-file": "--system",
    "-hf": "--model",
    "--hf-repo": "--model",
    "-fa": "--flash-attn",
    "-ctk": "--cache-type-k",
    "-ctv": "--cache-type-v",
}
SYSTEM_FILES = {"--system-file", "-sysf", "--system-prompt-file"}  # whose value is the name of a file
PROMPTS = {"-p", "--prompt"}  # of `infer run`: words of the prompt

# Of `infer chat`, after the slash.
CHAT_COMMANDS = {"bye": "exit", "quit": "exit", "q": "exit", "?": "help", "h": "help"}
LEAVING = {"exit", "quit"}  # typed as a message

# --- answered -------------------------------------------------------------------------------------

_NO_SERVER = "there is no server: each command loads the model itself, and `infer run` is over in a moment"
_NO_CONSTRAINT = "there is none: --choices A,B,C answers with the likeliest of these texts"
_NO_DRAFT = "there is no draft model: tokens are guessed from the text before, unless --no-speculation"
_NOT_KNOWN = "llama.cpp's flag, which is not known here: `infer run --help` has those of the engine"

OTHER_COMMANDS = {
    "serve": _NO_SERVER,
    "server": _NO_SERVER,
    "start": _NO_SERVER,
    "stop": "no model stays in memory when a command has ended",
    "ps": "no model stays in memory when a command has ended; `infer models list` shows what is here",
    "embed": "there are no embeddings here",
    "embeddings": "there are no embeddings here",
    "logs": "`infer records list` shows what was answered",
    "history": "`infer records list` shows what was answered",
    "prompt": "`infer run` answers a prompt",
    "generate": "`infer run` answers a prompt, `infer batch` each row of a file",
    "complete": "`infer run --raw` completes a text",
    "repl": "`infer chat` talks",
    "tokenize": "`infer tokens` counts tokens, `infer tokens --ids` lists them",
    "templates": "`infer run --prompt-template NAME` fills a stored prompt",
    "aliases": "`infer models add NAME SOURCE` gives a model a name",
    "create": "`infer models add NAME SOURCE` gives a model a name",
    "cp": "`infer models add NAME SOURCE` gives a model a name",
    "download": "`infer models pull` fetches a model",
    "get": "`infer models pull` fetches a model",
    "inspect": "`infer models show` tells what a model is",
    "remove": "`infer models rm` removes a model, `infer records rm` a record",
    "delete": "`infer models rm` removes a model, `infer records rm` a record",
    "push": "nothing is published from here",
    "login": "set HF_TOKEN for repositories that ask for access",
    "update": "pip brings a new version",
    "upgrade": "pip brings a new version",
    "install": "there are no plugins: models come with `infer models pull`, the program's extras with pip",
    "uninstall": "there are no plugins: models come with `infer models pull`, the program's extras with pip",
    "plugins": "there are no plugins: models come with `infer models pull`, the program's extras with pip",
    "search": "there is no search here: huggingface.co lists models, `infer models list` those with a name",
    "signin": "set HF_TOKEN for repositories that ask for access",
    "logout": "nothing is signed in to: HF_TOKEN is read at each call",
    "signout": "nothing is signed in to: HF_TOKEN is read at each call",
    "keys": "there are no keys: models run on this machine; HF_TOKEN is the hub's",
    "launch": _NO_SERVER,
    "quantize": "files are used as they are: a repository mostly has several, `-m OWNER/REPO:Q8_0` takes one",
    "bench": "there is no benchmark command: --stats prints the rates of a reply",
    "benchmark": "there is no benchmark command: --stats prints the rates of a reply",
}

OTHER_FLAGS = {
    "--format": "--json prints JSON, where a command has it",
    "--no-stream": "there is nothing to turn off: --json prints a reply when it is whole",
    "--stream": "a reply is printed as it comes; --jsonl prints its events",
    "-v": "--stats prints counts and times, --verbose llama.cpp's log",
    "-o": "parameters have flags of their own, others --set NAME=VALUE; `> FILE` takes the answer",
    "--option": "parameters have flags of their own, others --set NAME=VALUE",
    "-q": "--quiet drops warnings and progress",
    "-u": "--stats prints counts and times",
    "--usage": "--stats prints counts and times",
    "--timings": "--stats prints counts and times",
    "--show-timings": "--stats prints counts and times",
    "--cid": "`infer chat --resume ID` goes on with a conversation",
    "--conversation": "`infer chat --resume ID` goes on with a conversation",
    "--no-log": "--no-record records nothing",
    "-i": "`infer chat` talks",
    "--interactive": "`infer chat` talks",
    "-cnv": "`infer chat` talks",
    "-no-cnv": "`infer run` answers one prompt, with --raw it completes a text",
    "-st": "`infer run` answers one prompt",
    "--single-turn": "`infer run` answers one prompt",
    "--hidethinking": "--reasoning hide leaves the reasoning out",
    "--nowordwrap": "--plain prints the text as it comes",
    "--keepalive": "no model stays in memory when a command has ended",
    "--prompt-cache": "what was read of files is kept by itself: see `infer cache`",
    "--context-shift": "--overflow says what goes where the window is too small",
    "--keep": "--overflow says what goes where the window is too small",
    "--batch-size": "the mode decides: --fast, --canonical or --invariant",
    "-b": "the mode decides: --fast, --canonical or --invariant",
    "-np": "`infer batch` answers side by side: see its --parallel",
    "--no-display-prompt": "only the answer is printed",
    "-a": "a model here reads text only: -f FILE puts a file's text before the prompt",
    "--attachment": "a model here reads text only: -f FILE puts a file's text before the prompt",
    "--image": "a model here reads text only: -f FILE puts a file's text before the prompt",
    "--hf-token": "set HF_TOKEN",
    "--color": "styles are on at a terminal; NO_COLOR turns them off",
    "--database": "INFER_HOME is where records are, with all else",
    "--key": "no key is needed: models run on this machine; HF_TOKEN is the hub's",
    "--insecure": "there is none: certificates are always checked",
    "--jinja": "chat templates are always Jinja here: there is nothing to turn on",
    "-x": "there is none: the answer is printed whole",
    "--extract": "there is none: the answer is printed whole",
    "--schema": _NO_CONSTRAINT,
    "--json-schema": _NO_CONSTRAINT,
    "-j": _NO_CONSTRAINT,
    "--grammar": _NO_CONSTRAINT,
    "--grammar-file": _NO_CONSTRAINT,
    "--mirostat": "with -t: --set mirostat=2",
    "--dry-run": "there is none: `infer models show` tells a model's size before it is fetched",
    "--log-disable": "there is nothing to turn off: --verbose alone shows llama.cpp's log",
    "-T": "--tools FILE tells the model of tools, where a command has it",
    "--tool": "--tools FILE tells the model of tools, where a command has it",
    "-r": "--stop TEXT ends a reply",
    "--reverse-prompt": "--stop TEXT ends a reply",
    "-e": "the shell writes them: $'two\\nlines'",
    "--escape": "the shell writes them: $'two\\nlines'",
    "-tb": "--threads is for prompts and replies alike",
    "--threads-batch": "--threads is for prompts and replies alike",
    "-md": _NO_DRAFT,
    "--model-draft": _NO_DRAFT,
    "-cd": _NO_DRAFT,
    "-ngld": _NO_DRAFT,
    "-devd": _NO_DRAFT,
    "-dev": "--device names a GPU, --gpu-layers 0 takes none",
    "-ub": "the mode decides: --fast, --canonical or --invariant",
    "--ubatch-size": "the mode decides: --fast, --canonical or --invariant",
    "-mm": "a model here reads text only: -f FILE puts a file's text before the prompt",
    "--mmproj": "a model here reads text only: -f FILE puts a file's text before the prompt",
    "-sm": _NOT_KNOWN,
    "-ts": _NOT_KNOWN,
    "-mg": _NOT_KNOWN,
    "-ot": _NOT_KNOWN,
    "-td": _NOT_KNOWN,
    "-lv": _NOT_KNOWN,
    "-nkvo": _NOT_KNOWN,
    "-p": "`infer run` takes a prompt",
    "--prompt": "`infer run` takes a prompt",
}

OTHER_CHAT_COMMANDS = {
    "new": "/clear begins a new conversation",
    "reset": "/clear begins a new conversation",
    "retry": "/regen asks for another reply",
    "save": "every conversation is kept: /rename names it, /load goes on with it; /export writes a file",
    "show": "/params shows the parameters, /model and /system what they name",
    "file": "/attach puts a file before the next message, /read sends one",
    "multi": 'a message that begins with """ goes on to the next """',
}
