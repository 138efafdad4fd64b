"""A loaded model's vocabulary, which tokenizes with tiktoken where that is exact and pays."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING

from infer_cli.errors import ModelInvalid, ModelNotFound

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.models.gguf.header import Header
    from infer_cli.vocab.tiktoken_tokenizer import TiktokenTokenizer


# Bytes of text, for each token of the vocabulary, that llama.cpp tokenizes before tiktoken does. To import it
# and to make its encoding takes 2 us a token; each byte then takes 0.3 us less (SmolLM2, Qwen2), or 0.1 us
# less (Llama 3, whose pre-tokenizer llama.cpp has as code). It is worth it after 8, 6 and 24 bytes a token.
BYTES_FOR_TIKTOKEN = 8  # 390 KB for SmolLM2

# As many where the self-test was never run: it takes 30 us a token, which less text can't win back. After so
# much it pays in the same command if as much comes again, and the verdict is there for the next command.
BYTES_FOR_CHECK = 128  # 6.3 MB for SmolLM2


class LoadedVocab:
    """llama.cpp's vocabulary (`backend.base.Vocab`), tokenizing with tiktoken after much text, where that is
    proven to give the same ids. Importing and making what that takes would only delay a short prompt."""

    def __init__(self, vocab: Vocab, header: Header) -> None:
        self.n_tokens, self.bos, self.eos = vocab.n_tokens, vocab.bos, vocab.eos
        self.add_bos, self.add_eos = vocab.add_bos, vocab.add_eos
        self.tokenize_special, self.control_tokens = vocab.tokenize_special, vocab.control_tokens
        self.piece, self.token_text, self.is_eog = vocab.piece, vocab.token_text, vocab.is_eog
        self._vocab, self._header = vocab, header
        self._n_bytes = 0  # tokenized so far; threads may lose some
        self._enough = BYTES_FOR_TIKTOKEN * vocab.n_tokens
        self._looking = threading.Lock()
        self._exact: TiktokenTokenizer | None = None

    def tokenize(self, text: bytes) -> list[int]:
        if self._exact is None:
            self._n_bytes += len(text)
            # While one thread looks, the others need not wait.
            if self._n_bytes > self._enough and self._looking.acquire(blocking=False):
                try:
                    self._look_for_exact()
                finally:
                    self._looking.release()
        return (self._exact or self._vocab).tokenize(text)

    def _look_for_exact(self) -> None:
        from infer_cli.vocab.tiktoken_proof import exact_tokenizer, is_checked

        enough_for_check = BYTES_FOR_CHECK * self.n_tokens
        may_check, self._enough = self._n_bytes > enough_for_check, sys.maxsize
        # llama.cpp has read the vocabulary: where the file is gone since, or changed, it just goes on.
        with contextlib.suppress(ModelInvalid, ModelNotFound, OSError):
            if may_check or is_checked(self._header):
                self._exact = exact_tokenizer(self._header, lambda: self._vocab)
            else:
                self._enough = enough_for_check
