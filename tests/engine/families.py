"""Tiny, randomly initialised models of every family, through transformers' own classes, and tokenizers of each kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from engine_reference import SENTENCES

from collabedit.common.model_folder import ModelFolder

VOCABULARY: Final = 400
SPECIAL: Final = ("<s>", "</s>", "<unk>")
SIZES: Final = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 5,
    "num_attention_heads": 4, "max_position_embeddings": 96, "initializer_range": 0.2,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
GROUPED: Final = {**SIZES, "num_key_value_heads": 2}
WINDOW: Final = 6  # tokens; every prompt of the tests is longer
GEMMA: Final = {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}
LOCAL_AND_GLOBAL: Final = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
GEMMA3: Final = {**GEMMA, "layer_types": [*LOCAL_AND_GLOBAL, "sliding_attention"]}
SIGHT: Final = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
OPT: Final = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 5, "num_attention_heads": 4,
    "max_position_embeddings": 96, "init_std": 0.2, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
LLAMA3_ROPE: Final = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A model to build: transformers' config class, what it is told, and the tokenizer's kind (a key of TOKENIZERS)."""

    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "byte-level"


FAMILIES: Final = {
    "gpt2": Family(
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_positions": 96, "n_embd": 32, "n_inner": 64, "n_layer": 5, "n_head": 4,
         "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 1},
    ),
    "gptj": Family(
        "GPTJConfig",
        {"vocab_size": VOCABULARY, "n_positions": 96, "n_embd": 32, "n_inner": 64, "n_layer": 5, "n_head": 4,
         "rotary_dim": 4, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 1},
    ),
    "gpt-neox, parallel": Family("GPTNeoXConfig", {**SIZES, "rotary_pct": 0.25}),
    "gpt-neox, serial": Family("GPTNeoXConfig", {**SIZES, "use_parallel_residual": False, "tie_word_embeddings": True}),
    "llama 2": Family("LlamaConfig", SIZES, "llama 2"),
    "llama 3": Family("LlamaConfig", {**GROUPED, "rope_scaling": LLAMA3_ROPE}, "begun"),
    "llama 3, tied": Family("LlamaConfig", {**GROUPED, "tie_word_embeddings": True, "attention_bias": True}, "begun"),
    "mistral": Family("MistralConfig", {**GROUPED, "sliding_window": WINDOW}, "metaspace"),
    "qwen2": Family("Qwen2Config", {**GROUPED, "tie_word_embeddings": True}),
    "qwen2, window": Family(
        "Qwen2Config", {**GROUPED, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 3}
    ),
    "qwen3": Family("Qwen3Config", {**GROUPED, "head_dim": 16}),
    "gemma2": Family(
        "Gemma2Config", {**GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}, "metaspace"
    ),
    "gemma3": Family("Gemma3TextConfig", GEMMA3, "metaspace"),
    "gemma3, sees": Family(
        "Gemma3Config", {"text_config": GEMMA3, "vision_config": SIGHT, "mm_tokens_per_image": 4}, "metaspace"
    ),
    "phi3": Family(
        "Phi3Config",
        {**GROUPED, "sliding_window": WINDOW, "partial_rotary_factor": 0.5, "pad_token_id": 1},
        "llama 2",
    ),
    "opt": Family("OPTConfig", {**OPT, "word_embed_proj_dim": 32}, "begun"),
    "opt, norm behind": Family("OPTConfig", {**OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False}, "begun"),
}  # fmt: skip


def make_family(name: str, folder: Path, *, seed: int = 0) -> ModelFolder:
    """A model of FAMILIES and its tokenizer, saved in `folder`; norms and biases are random too: they must matter."""
    import transformers

    family = FAMILIES[name]
    config = getattr(transformers, family.config)(**family.settings)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder)
    save_tokenizer(TOKENIZERS[family.tokenizer](), folder)
    return ModelFolder(folder, name)


def save_tokenizer(backend: Any, folder: Path, **options: Any) -> None:
    """Saves a `tokenizers.Tokenizer` as transformers' fast one."""
    from transformers import PreTrainedTokenizerFast

    named = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "unk_token": SPECIAL[2]}
    PreTrainedTokenizerFast(tokenizer_object=backend, **named, **options).save_pretrained(folder)


def byte_level(**options: Any) -> Any:
    """GPT-2's, Qwen's: bytes, merged; a token brings the space before it, and its offsets may leave that out."""
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer(**options)
    bpe.train_from_iterator(SENTENCES * 3, vocab_size=VOCABULARY, min_frequency=2, special_tokens=list(SPECIAL))
    return bpe._tokenizer


def between(backend: Any, form: str) -> Any:
    """The tokenizer with special tokens around each text: `form` as in "<s> $A </s>"."""
    from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing

    around = TemplateProcessing(single=form, special_tokens=[(each, SPECIAL.index(each)) for each in SPECIAL])
    backend.post_processor = Sequence([ByteLevel(trim_offsets=False), around])
    return backend


def begun() -> Any:
    """Llama 3's and OPT's kind: byte-level, with a token in front of every text."""
    return between(byte_level(), "<s> $A")


def metaspace(*, first: str = "first", end: str = "") -> Any:
    """SentencePiece's kind, as Mistral's and Gemma's: spaces are letters (▁), what is unknown falls back to bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE(unk_token=SPECIAL[2], byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=first)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return between(_trained(backend), f"<s> $A{end}")


def llama2() -> Any:
    """Llama 2's own: a space is put in front of the text by a normaliser, and the words are not taken apart before."""
    from tokenizers import decoders, normalizers

    backend = metaspace()
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


def lowering() -> Any:
    """A tokenizer that normalises (NFKC) and lower-cases before it looks."""
    from tokenizers import normalizers

    backend = byte_level()
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return backend


def _trained(backend: Any) -> Any:
    """Trained with the 256 bytes in the vocabulary, as ordinary tokens."""
    from tokenizers import Tokenizer, trainers

    whole = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=whole, show_progress=False)
    backend.train_from_iterator(SENTENCES * 3, trainer)
    made = json.loads(backend.to_str())
    made["added_tokens"] = [each for each in made["added_tokens"] if each["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(made))


TOKENIZERS: Final[dict[str, Callable[[], Any]]] = {
    "byte-level": byte_level,
    "byte-level, trimmed": lambda: byte_level(trim_offsets=True),
    "begun": begun,
    "metaspace": metaspace,
    "metaspace, never first": lambda: metaspace(first="never"),
    "metaspace, ended": lambda: metaspace(end=" </s>"),
    "llama 2": llama2,
    "lowering": lowering,
}
