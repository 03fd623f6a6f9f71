"""The text encoder: a BERT whose word pieces become words, and one vector for the whole text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from cmlr_utils.data.files import CourseError

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY_SIZE = 2_500
TINY_BERT = dict(
    hidden_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=768,
    max_position_embeddings=128,
    hidden_dropout_prob=0.0,  # a few hundred steps leave nothing to overfit
    attention_probs_dropout_prob=0.0,
)
# Words that look at no region: a report would read the same to a radiograph without them.
FUNCTION_WORDS = frozenset(
    "a an and are as at be been by for from has have in is it of on or that the this to was were which with".split()
)


@dataclass(frozen=True)
class Tokens:
    """B texts as word pieces; position t of text b belongs to word `word_ids[b, t]`, or to none (-1)."""

    input_ids: Tensor  # int64 [B, T]
    attention_mask: Tensor  # int64 [B, T]
    word_ids: Tensor  # int64 [B, T]
    words: list[list[str]]  # the words themselves, per text, lower case
    content: Tensor  # bool [B, N]: words with a letter or digit that are no function words

    def to(self, device: torch.device | str) -> Tokens:
        tensors = (self.input_ids, self.attention_mask, self.word_ids)
        return Tokens(*(tensor.to(device) for tensor in tensors), self.words, self.content.to(device))


class TextFeatures(NamedTuple):
    """What the text encoder says about B texts."""

    text_global: Tensor  # [B, D]
    words: Tensor  # [B, D, N]
    word_mask: Tensor  # bool [B, N], content words


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A BERT tokenizer whose word pieces are learned from `texts`: pass training reports only."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The trainer numbers the letters inside a word in an order of chance, and breaks ties by these numbers. Named
    # beforehand, they have fixed numbers, and the same texts give the same vocabulary every time.
    letters = sorted(set().union(*map(tokenizer.normalizer.normalize_str, texts)))
    fixed = SPECIAL_TOKENS + [f"##{letter}" for letter in letters if not letter.isspace()]
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY_SIZE, special_tokens=fixed, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    learned = Tokenizer(models.WordPiece(tokenizer.get_vocab(), unk_token="[UNK]"))
    learned.normalizer, learned.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    ends = [(token, learned.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    learned.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=learned,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], max_tokens: int) -> Tokens:
    """Cut texts into word pieces, remember which word each came from, and mark the content words.

    Texts are cut off after `max_tokens` pieces. Raises CourseError if the tokenizer is not a fast one or a text has no
    content word.
    """
    if not tokenizer.is_fast:
        raise CourseError(f"{type(tokenizer).__name__} does not say which word a piece is from: use a fast tokenizer.")
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    word_ids = torch.full_like(encoded["input_ids"], -1)
    words: list[list[str]] = []
    for b, text in enumerate(texts):
        spans: dict[int, tuple[int, int]] = {}
        encoding = encoded.encodings[b]
        for t, (word, (start, end)) in enumerate(zip(encoding.word_ids, encoding.offsets, strict=True)):
            if word is not None:
                word_ids[b, t] = word
                spans[word] = (spans.get(word, (start, end))[0], end)
        words.append([text[start:end].lower() for start, end in spans.values()])
    content = torch.zeros(len(words), max(map(len, words), default=0), dtype=torch.bool)
    for b, text_words in enumerate(words):
        for n, word in enumerate(text_words):
            content[b, n] = bool(re.search(r"\w", word)) and word not in FUNCTION_WORDS
        if not content[b].any():
            raise CourseError(f"The text {texts[b]!r} has no word to look for: write a finding, such as 'edema'.")
    return Tokens(encoded["input_ids"], encoded["attention_mask"], word_ids, words, content)


def merge_word_pieces(hidden: Tensor, word_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the pieces of each word, without a loop (GLoRIA, section 3.2).

    hidden [B, T, D]; word_ids int [B, T]: the word that a piece belongs to, counted from 0, or -1 for padding and
    special tokens. Returns words [B, D, N] and mask [B, N] bool, N being the largest number of words in a text.
    Raises ValueError if shapes do not fit.
    """
    if hidden.ndim != 3 or hidden.shape[:2] != word_ids.shape:
        raise ValueError(
            f"hidden must be [B, T, D] and word_ids [B, T]; got {list(hidden.shape)}, {list(word_ids.shape)}."
        )
    batch, _, width = hidden.shape
    num_words = int(word_ids.max()) + 1 if word_ids.numel() else 0
    # Pieces of no word are added to one more slot at the end, which is then dropped.
    slot = torch.where(word_ids < 0, num_words, word_ids)
    words = hidden.new_zeros(batch, num_words + 1, width).scatter_add_(1, slot[..., None].expand_as(hidden), hidden)
    mask = torch.zeros(batch, num_words + 1, dtype=torch.bool, device=hidden.device).scatter_(1, slot, True)
    return words[:, :num_words].transpose(1, 2), mask[:, :num_words]


def load_bert(name: str, tokenizer: PreTrainedTokenizerFast | None = None) -> tuple[nn.Module, PreTrainedTokenizerFast]:
    """A BERT and its tokenizer: "tiny" is built here around `tokenizer`, any other name comes from the Hub or a folder.

    Raises CourseError where the model cannot be had.
    """
    if name == "tiny":
        if tokenizer is None:
            raise CourseError(
                "The tiny text encoder needs a tokenizer: train one with train_tokenizer(training reports)."
            )
        config = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **TINY_BERT)
        return BertModel(config, add_pooling_layer=False), tokenizer
    try:
        AutoConfig.from_pretrained(name)
        return AutoModel.from_pretrained(name), tokenizer or AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise CourseError(
            f"The text model {name} could not be loaded ({reason}): go online, give a folder, or use the preset tiny."
        ) from error


class TextEncoder(nn.Module):
    """A BERT and two projections to the shared width D: words are local, their average is global."""

    def __init__(self, bert: nn.Module, width: int, summed_layers: int) -> None:
        super().__init__()
        self.bert = bert
        self.summed_layers = summed_layers
        self.to_words = nn.Linear(bert.config.hidden_size, width)
        self.to_global = nn.Linear(bert.config.hidden_size, width)

    def forward(self, tokens: Tokens) -> TextFeatures:
        states = self.bert(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True
        ).hidden_states
        hidden = torch.stack(states[-self.summed_layers :]).sum(0)  # [B, T, hidden]
        weight = tokens.attention_mask[..., None].to(hidden.dtype)  # [B, T, 1]
        text_global = self.to_global((hidden * weight).sum(1) / weight.sum(1))
        words, _ = merge_word_pieces(self.to_words(hidden), tokens.word_ids)
        return TextFeatures(text_global, words, tokens.content)
