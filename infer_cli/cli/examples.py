"""Three command lines for each command's help page. Read only where help is asked for."""

from __future__ import annotations

from typing import Any

_EXAMPLES = {
    "": (
        'infer run "Why is the sky blue?"',
        "infer chat",
        "infer batch prompts.txt -o replies.jsonl",
    ),
    "run": (
        'infer run "Why is the sky blue?"',
        'cat notes.txt | infer run "Rewrite this as a list." > list.txt',
        'infer run -m qwen3-0.6b -f report.md "What is missing?" -t 0.7 --json',
    ),
    "chat": (
        "infer chat",
        'infer chat -m qwen3-4b --system "Answer in one sentence."',
        "infer chat --continue",
    ),
    "batch": (
        "infer batch prompts.txt -o replies.jsonl",
        "infer batch things.csv -o replies.jsonl --row-template 'Describe {text}.'",
        "infer batch rows.jsonl -o replies.jsonl --dry-run",
    ),
    "eval": (
        "infer eval blimp --data anaphor_number_agreement.jsonl -o run",
        "infer eval gsm8k --data gsm8k.jsonl -o runs -m smollm2 -m qwen3-0.6b",
        "infer eval mine.toml -o run --fail-under exact=0.40",
    ),
    "rescore": (
        "infer rescore run",
        "infer rescore runs --json",
        "infer rescore run --allow-code",
    ),
    "merge": (
        "infer merge shard1.jsonl shard2.jsonl -o replies.jsonl",
        "infer merge shard*.jsonl -o replies.jsonl",
        "infer merge shard*.jsonl -o - | wc -l",
    ),
    "verify": (
        "infer verify replies.jsonl",
        "infer verify replies.jsonl --fraction 1",
        "infer verify replies.jsonl -m qwen3-0.6b --fraction 0.2 --json",
    ),
    "compare": (
        "infer compare runs/smollm2 runs/qwen3",
        "infer compare before after --fail-if-worse --margin 2",
        "infer compare a b c --all-metrics --plot compare.svg",
    ),
    "report": (
        "infer report runs/gsm8k",
        "infer report runs",
        "infer report before after -o changes.html",
    ),
    "replay": (
        "infer replay last",
        "infer replay 5c0ffee0 --quiet && echo the same",
        "infer replay my-conversation",
    ),
    "tokens": (
        'infer tokens "How many tokens is this?"',
        "infer tokens -f book.txt -m qwen3-0.6b",
        'infer tokens --pieces "unbelievable"',
    ),
    "task": (
        "infer task list",
        "infer task check gsm8k --data test.jsonl",
        "infer task check mine.toml -m qwen3-0.6b",
    ),
    "task list": (
        "infer task list",
        "infer task list | cut -f 1",
        "infer task list --json",
    ),
    "task check": (
        "infer task check gsm8k --data test.jsonl",
        "infer task check gsm8k --data test.jsonl --fewshot 5 -m qwen3-0.6b",
        "infer task check mine.py --allow-code --json",
    ),
    "template": (
        "infer template show -m qwen3-0.6b",
        'infer template render -m qwen3-0.6b "Hello"',
        "infer template check -m qwen3-0.6b",
    ),
    "template show": (
        "infer template show",
        "infer template show -m qwen3-0.6b",
        "infer template show -m qwen3-0.6b > template.jinja",
    ),
    "template render": (
        'infer template render "Hello"',
        'infer template render --system "Be brief." "Shorten this."',
        "infer template render --messages talk.json --chat-template mine.jinja",
    ),
    "template check": (
        "infer template check",
        "infer template check -m qwen3-0.6b",
        "infer template check --chat-template mine.jinja",
    ),
    "score": (
        'infer score "The sky is" " blue"',
        "infer score pairs.jsonl -o scores.jsonl",
        "infer score pairs.jsonl -o scores.jsonl -m qwen3-0.6b-base",
    ),
    "perplexity": (
        "infer perplexity book.txt",
        "infer perplexity book.txt --ctx 2048 --json",
        "infer perplexity book.txt -m qwen3-0.6b-base",
    ),
    "probe": (
        "infer probe",
        "infer probe -m qwen3-0.6b",
        "infer probe -m qwen3-0.6b --json > probe.json",
    ),
    "models": (
        "infer models list",
        "infer models pull qwen3-0.6b",
        "infer models add tiny hf:owner/repo:Q4_K_M",
    ),
    "models pull": (
        "infer models pull",
        "infer models pull qwen3-0.6b",
        "infer models pull hf:owner/repo:Q4_K_M",
    ),
    "models path": (
        "infer models path",
        "infer models path qwen3-0.6b",
        'ls -l "$(infer models path)"',
    ),
    "models show": (
        "infer models show",
        "infer models show qwen3-4b --ctx 16384",
        "infer models show ./model.gguf --json",
    ),
    "models verify": (
        "infer models verify",
        "infer models verify qwen3-0.6b",
        "infer models verify --all",
    ),
    "models add": (
        "infer models add mine ./model.gguf",
        "infer models add tiny hf:owner/repo:Q4_K_M --alias t",
        "infer models add mine https://example.org/model.gguf --replace",
    ),
    "models rm": (
        "infer models rm qwen3-0.6b",
        "infer models rm hf:owner/repo:Q4_K_M",
        "infer models rm mine --entry",
    ),
    "models default": (
        "infer models default",
        "infer models default qwen3-0.6b",
        "infer models default smollm2",
    ),
    "models list": (
        "infer models list",
        "infer models list --installed",
        "infer models list --json > models.json",
    ),
    "records": (
        "infer records list",
        "infer records show last",
        "infer records export --format md > all.md",
    ),
    "records list": (
        "infer records list",
        'infer records list --search "blue sky" --since 7d',
        "infer records list -m smollm2 --limit 100 --json",
    ),
    "records show": (
        "infer records show last",
        "infer records show 5c0ffee0 --json",
        "infer records show 5c0ffee0 > answer.txt",
    ),
    "records export": (
        "infer records export > all.jsonl",
        "infer records export --format md > all.md",
        "infer records export 5c0ffee0 b7a3f1c2 --format md",
    ),
    "records diff": (
        "infer records diff 5c0ffee0 b7a3f1c2",
        "infer records diff 5c0ffee0 b7a3f1c2 --json",
        "infer records diff $(infer records list --limit 2 | cut -f 1)",
    ),
    "records rm": (
        "infer records rm 5c0ffee0",
        "infer records rm --older-than 30d",
        "infer records rm --all",
    ),
    "cache": (
        "infer cache list",
        "infer cache warm -f book.txt",
        "infer cache clear",
    ),
    "cache list": (
        "infer cache list",
        "infer cache list --json",
        "infer cache list | cut -f 2,4",
    ),
    "cache prune": (
        "infer cache prune",
        "infer cache prune --cache-size 500MB",
        "infer cache prune && infer cache list",
    ),
    "cache clear": (
        "infer cache clear",
        "infer cache list && infer cache clear",
        "infer cache clear && infer cache warm -f book.txt",
    ),
    "cache warm": (
        "infer cache warm -f book.txt",
        "infer cache warm -m qwen3-0.6b -f book.txt -f notes.txt",
        'infer cache warm -f book.txt && infer run -f book.txt "Who is Anna?"',
    ),
    "devices": (
        "infer devices",
        "infer devices --json",
        "infer devices --verbose",
    ),
    "doctor": (
        "infer doctor",
        "infer doctor --json",
        "infer doctor > report.txt",
    ),
    "config": (
        "infer config set model qwen3-0.6b",
        "infer config show",
        "infer config edit",
    ),
    "config path": (
        "infer config path",
        'cat "$(infer config path)"',
        'cp "$(infer config path)" config-before.toml',
    ),
    "config show": (
        "infer config show",
        "infer config show | grep model",
        "INFER_HOME=./state infer config show",
    ),
    "config set": (
        "infer config set model qwen3-0.6b",
        "infer config set run.max-tokens 200",
        "infer config set chat.stats true",
    ),
    "config edit": (
        "infer config edit",
        "EDITOR=nano infer config edit",
        "infer config edit && infer config show",
    ),
}


def add_examples(command: Any, name: str = "") -> None:
    """Put them below the flags of a Typer command, and of all commands inside it."""
    if name in _EXAMPLES:
        command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in _EXAMPLES[name])
    for inner, sub in getattr(command, "commands", {}).items():
        add_examples(sub, f"{name} {inner}".strip())
