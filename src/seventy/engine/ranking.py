"""How a model that ranks is asked about a document, and how its answer becomes a score.

A reranker reads a query and a document together; a classifier on what it made of the last token says how likely the
document is of use. llama.cpp's converter makes such files of Qwen3-Reranker: cls.output has a row for "yes" and one for
"no", and tokenizer.chat_template.rerank says how both texts are put together.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seventy.engine.request import TooLong
from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.gguf.source import Source
from seventy.graph.weights import format_of
from seventy.language import t
from seventy.text.chat import ChatFormat
from seventy.text.tokenizer import Tokenizer

WEIGHT, BIAS, TEMPLATE = "cls.output.weight", "cls.output.bias", "tokenizer.chat_template.rerank"
# pooling_type in a file that ranks.
_RANKS = 4
_PLACES = ("query", "document")
# As Qwen3-Reranker was trained, for files that lack its template.
_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
_TASK = "Given a web search query, retrieve relevant passages that answer the query"
_INSTRUCTION = re.compile(r"(?<=<Instruct>: )[^\n<]*(?=\n)")


def pooling_type(metadata: Mapping[str, Any]) -> Any:
    """Return the file's pooling type: 1 mean, 3 last, 4 rank; None if it has none."""
    return metadata.get(f"{metadata.get('general.architecture')}.pooling_type")


def ranks(source: Source) -> bool:
    """Return whether the file declares a reranker."""
    return WEIGHT in source.tensors or pooling_type(source.metadata) == _RANKS


@dataclass(frozen=True, slots=True)
class Ranking:
    """A classifier f32 [labels, hidden] with a bias [labels], the row that means "of use", and the template.

    `only` says that the file was made for nothing else: it does not chat.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    relevant: int
    template: str
    tokenizer: Tokenizer
    only: bool

    @classmethod
    def find(
        cls, path: str | os.PathLike[str], wanted: bool, hidden: int, tokenizer: Tokenizer, chat: ChatFormat
    ) -> Self | None:
        """Read it from a model's file; None where the file is no reranker and that is not `wanted` of it.

        A file without a classifier is asked in its own chat template, and its rows for the tokens "yes" and "no" are
        the classifier. Raises SeventyError where it has no such tokens, or its classifier is not understood.
        """
        with GGUF(path) as gguf:
            only = ranks(gguf)
            if not (only or wanted):
                return None
            template = gguf.metadata.get(TEMPLATE)
            if WEIGHT in gguf.tensors:
                weight, bias = _classifier(gguf, hidden)
                relevant = _relevant(_labels(gguf.metadata), len(weight))
            else:
                weight, relevant = _yes_and_no(gguf, tokenizer), 0
                bias = np.zeros(2, np.float32)
        if not isinstance(template, str):
            template = _asked_as_a_chat(chat)
        if missing := [place for place in _PLACES if f"{{{place}}}" not in template]:
            raise SeventyError(
                "the file's template for ranking ({template}) has no place for the {missing}; get the file again",
                template=TEMPLATE, missing=missing[0],
            )
        return cls(weight, bias, relevant, template, tokenizer, only)

    def ids(
        self, query: str, document: str, most: int, cut: bool = False, instruction: str | None = None
    ) -> list[int]:
        """Return the tokens, at most `most`, of the prompt that asks whether a document answers the query.

        With `cut`, the end of a too long document is left out; else TooLong is raised. `instruction` replaces the
        template's description of the query's purpose. Special tokens in these texts are plain text. Raises SeventyError
        for an instruction that the template has no place for.
        """
        template, tokenizer = self.template, self.tokenizer
        if instruction is not None:
            template, found = _INSTRUCTION.subn(lambda _: "{instruction}", template, 1)
            if not found:
                raise SeventyError("this model's template has no place for an instruction; leave it out")
        if cut:
            document = document[: most * tokenizer.longest]
        least = tokenizer.fewest(query, most)
        least += 0 if cut else tokenizer.fewest(document, most - least)
        if least > most:
            raise _too_long(least, most)
        texts = {"query": query, "instruction": instruction or ""}
        ids = self._encode(template, texts | {"document": document})
        kept = tokenizer.encode(document) if cut and len(ids) > most else []
        while len(ids) > most:
            kept = kept[: max(0, len(kept) - (len(ids) - most))]
            if not kept:
                raise _too_long(len(ids), most)
            # What is left of a character that was cut is no character.
            ids = self._encode(template, texts | {"document": tokenizer.decode(kept).rstrip("\ufffd")})
        return ids

    def cut(self, document: str, most: int) -> str:
        """Return the text of a document's first `most` tokens; a shorter document unchanged."""
        ids = self.tokenizer.encode(document[: most * self.tokenizer.longest])
        # What is left of a character that was cut is no character.
        return document if len(ids) <= most else self.tokenizer.decode(ids[:most]).rstrip("\ufffd")

    def _encode(self, template: str, texts: Mapping[str, str]) -> list[int]:
        ids, bos = self.tokenizer.encode_filled(template, texts), self.tokenizer.bos_id
        return [bos, *ids] if self.tokenizer.add_bos and bos is not None and ids[:1] != [bos] else ids

    def log_odds(self, state: NDArray[np.float32]) -> float:
        """Return how much more likely than not a document is of use, as a logarithm, by the state of the last token."""
        logits = self.weight.astype(np.float64) @ state.astype(np.float64) + self.bias
        others = np.delete(logits, self.relevant)
        against = float(np.logaddexp.reduce(others)) if len(others) else 0.0
        return float(logits[self.relevant]) - against

    def score(self, state: NDArray[np.float32]) -> float:
        """Return how likely a document is of use, from 0 to 1, by the state of the last token."""
        return float(np.exp(-np.logaddexp(0, -self.log_odds(state))))


def _too_long(tokens: int, most: int) -> TooLong:
    return TooLong(
        f"query and document are too large: {tokens} tokens at least with the words around them, and the context has "
        f"{most}; send shorter ones, or \"truncate\": true",
        tokens, most,
    )  # fmt: skip


def _floats(gguf: GGUF, name: str) -> NDArray[np.float32]:
    info = gguf.tensors[name]
    format = format_of(info)
    values = format.dequantize(gguf.read(info).reshape(-1, format.nbytes))
    return np.asarray(values, np.float32).reshape(-1)


def _classifier(gguf: GGUF, hidden: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    weight = _floats(gguf, WEIGHT)
    labels, rest = divmod(len(weight), hidden)
    bias = _floats(gguf, BIAS) if BIAS in gguf.tensors else np.zeros(labels, np.float32)
    if rest or not labels or len(bias) != labels:
        raise SeventyError(
            "tensor {weight} has shape {shape} and {bias_count} biases, the model's width is {hidden}; get the file "
            "again",
            weight=WEIGHT, shape=list(gguf.tensors[WEIGHT].shape), bias_count=len(bias), hidden=hidden,
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise SeventyError("the file's classifier ({weight}) is not all numbers; get the file again", weight=WEIGHT)
    return weight.reshape(labels, hidden), bias


def _labels(metadata: Mapping[str, Any]) -> list[str]:
    labels = metadata.get(f"{metadata.get('general.architecture')}.classifier.output_labels")
    if labels is None or isinstance(labels, str) or not hasattr(labels, "__iter__"):
        return []
    return [str(label) for label in labels]


def _relevant(labels: Sequence[str], rows: int) -> int:
    """The row that says yes: by its label; the only one, or the first of two, where there are no labels."""
    if labels and len(labels) != rows:
        raise SeventyError(
            "the file's classifier has {rows} rows and {labels_count} labels; get the file again",
            rows=rows, labels_count=len(labels),
        )
    named = [row for row, label in enumerate(labels) if label.lower() == "yes"]
    if named or rows <= 2:
        return named[0] if named else 0
    raise SeventyError(
        "the file's classifier tells apart {labels}, of which none is yes: it does not rank; take a reranker",
        labels=(", ".join(labels) or t("{n} kinds", n=rows))[:200],
    )


def _yes_and_no(gguf: GGUF, tokenizer: Tokenizer) -> NDArray[np.float32]:
    """The rows of the head for the tokens of "yes" and "no", [2, hidden]."""
    tokens = [tokenizer.encode(word) for word in ("yes", "no")]
    if any(len(ids) != 1 for ids in tokens):
        raise SeventyError(
            'this model cannot rank: its vocabulary has no tokens for "yes" and "no"; take a reranker '
            "(Qwen3-Reranker), or start without --pooling rank"
        )
    info = gguf.tensors.get("output.weight") or gguf.tensors["token_embd.weight"]
    format = format_of(info)
    size = format.row_bytes(info.shape[1])
    rows = [gguf.pread(info, ids[0] * size, size).reshape(-1, format.nbytes) for ids in tokens]
    return np.stack([np.asarray(format.dequantize(row), np.float32).reshape(-1) for row in rows])


def _asked_as_a_chat(chat: ChatFormat) -> str:
    """A template for ranking, made of the model's chat template."""
    asked = f"<Instruct>: {_TASK}\n<Query>: {{query}}\n<Document>: {{document}}"
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": asked}]
    return chat.prompt(messages, variables={"enable_thinking": False}).text
