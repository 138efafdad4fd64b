"""Every default and bound of the command line that is a plain number."""

from __future__ import annotations

# Ours, where nothing else says otherwise.
MAX_TOKENS = 1024

MOST_TOKENS = 2**31 - 1  # that can be asked for: llama.cpp counts in int32

MAX_SAMPLES = 256  # of one prompt: LLAMA_MAX_SEQ

MAX_LOGPROBS = 1000  # likeliest tokens of a step

FIT_RESERVE = 256  # a prompt fits if prompt + min(max_tokens, this) is within the window

MIN_PREFIX = 256  # tokens of files: from here on a kept state is clearly quicker than reading them again

SAMPLING_TEMPERATURE = 0.8  # of `-t model` where neither entry nor file recommends one; llama.cpp's
