"""The sizes of a model, as transformers configurations, and the presets of the released models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from transformers import AutoConfig, PreTrainedConfig

from vl3.arguments import whole


class VL3VisionConfig(PreTrainedConfig):
    """Sizes of the any-resolution vision encoder (SigLIP blocks with 2D-RoPE)."""

    model_type = "vl3_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    patch_size: int = 14
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs) -> None:
        super().__post_init__(**kwargs)
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "patch_size",
        ):
            setattr(self, name, whole(name, getattr(self, name), low=1))
        if self.hidden_size % self.num_attention_heads or self.head_channels % 4:
            raise ValueError(
                f"a vision width of {self.hidden_size} with {self.num_attention_heads} heads gives "
                f"{self.hidden_size / self.num_attention_heads:g} channels per head; 2D-RoPE needs "
                "a multiple of 4"
            )

    @property
    def head_channels(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def patch_values(self) -> int:
        """Values in one flattened RGB patch."""
        return 3 * self.patch_size**2


class VL3Config(PreTrainedConfig):
    """A whole model: vision encoder, connector, language model.

    connector: "linear" or "mlpNx_gelu" (N linear layers), the official names, or that of a class
    which is registered (vl3.connectors).
    image_token_id, video_token_id: token ids that mark visual slots in a prompt. The official
    layout has one for both (video_token_id is None), the transformers-native layout has two.
    """

    model_type = "vl3"
    # transformers 5.23 would make them of a table, which 5.17 does not know: made below for both.
    sub_configs: ClassVar[dict] = {"vision_config": VL3VisionConfig, "text_config": AutoConfig}
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "losses_K", "right_K"]

    if TYPE_CHECKING:  # what they are once it is made
        vision_config: VL3VisionConfig
        text_config: PreTrainedConfig
    else:  # what may be given
        vision_config: dict | PreTrainedConfig | None = None
        text_config: dict | PreTrainedConfig | None = None
    connector: str = "mlp2x_gelu"
    image_token_id: int = 151665
    video_token_id: int | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs) -> None:
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = VL3VisionConfig(**(self.vision_config or {}))
        if not isinstance(self.text_config, PreTrainedConfig):
            text = {"model_type": "qwen2"} | (self.text_config or {})
            self.text_config = AutoConfig.for_model(**text)
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = bool(self.text_config.tie_word_embeddings)

    @property
    def slot_token_ids(self) -> tuple[int, ...]:
        """Token ids whose embedding is replaced by a visual token."""
        return tuple(self.slot_kinds.values())

    @property
    def slot_kinds(self) -> dict[str, int]:
        """Those ids by what they mark; where one marks both, it goes by the name of image."""
        ids = {"image": self.image_token_id, "video": self.video_token_id}
        return {kind: token for kind, token in ids.items() if token is not None}


NANO_STD = 0.07  # about 1 / sqrt(width); 0.02 starts several times slower


def _qwen2(**sizes) -> PreTrainedConfig:
    shared = {
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "max_position_embeddings": 32768,
    }
    return AutoConfig.for_model("qwen2", **(shared | sizes))


def videollama3_2b() -> VL3Config:
    """Sizes of VideoLLaMA3-2B: SigLIP so400m and Qwen2.5-1.5B."""
    text = _qwen2(
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        vocab_size=151936,
        tie_word_embeddings=True,
    )
    return VL3Config(vision_config=VL3VisionConfig(), text_config=text)


def videollama3_7b() -> VL3Config:
    """Sizes of VideoLLaMA3-7B: SigLIP so400m and Qwen2.5-7B."""
    text = _qwen2(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
        tie_word_embeddings=False,
    )
    return VL3Config(vision_config=VL3VisionConfig(), text_config=text)


def nano(*, vocab_size: int, image_token_id: int) -> VL3Config:
    """Sizes of the bundled toy model: the same architecture at 2.6 M parameters."""
    vision = VL3VisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        initializer_range=NANO_STD,
    )
    text = _qwen2(
        hidden_size=192,
        intermediate_size=288,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=vocab_size,
        max_position_embeddings=8192,
        initializer_range=NANO_STD,
        tie_word_embeddings=True,
    )
    return VL3Config(vision_config=vision, text_config=text, image_token_id=image_token_id)


AutoConfig.register("vl3", VL3Config, exist_ok=True)
AutoConfig.register("vl3_vision", VL3VisionConfig, exist_ok=True)
